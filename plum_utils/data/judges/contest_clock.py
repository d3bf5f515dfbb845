# In the judge's process, where the time of each test is measured and expected outputs stay.
import json  # for the judges that follow
import signal


class OutOfTime(Exception):
    pass

def alarm(*_):
    raise OutOfTime("out of time in one test")

def timed(function, arguments, seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

signal.signal(signal.SIGALRM, alarm)
