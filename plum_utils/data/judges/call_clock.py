# evalplus' limit of each call, kept by the judge's clock: 1 s, or 4 times the reference's time (evalplus/config.py).
import signal as _plum_signal
import time as _plum_time  # for evalplus_judge.py

_plum_late = []

class _PlumLate(BaseException):  # no Exception, so that tests do not take it for the candidate's
    pass

def _plum_ring(*_):
    _plum_late.append(True)
    raise _PlumLate("out of time in one call")

_plum_signal.signal(_plum_signal.SIGALRM, _plum_ring)

def _plum_limited(function, seconds=1.0):
    def call(*arguments):
        _plum_signal.setitimer(_plum_signal.ITIMER_REAL, seconds)
        try:
            return function(*arguments)
        finally:
            _plum_signal.setitimer(_plum_signal.ITIMER_REAL, 0)
    return call
