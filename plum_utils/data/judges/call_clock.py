# evalplus' limit of each call, kept by the judge: 1 s, or 4 times the reference's time (evalplus/config.py).
from clocks import late as _plum_late  # of the sandbox's worker
from clocks import limited as _plum_limited
from clocks import now as _plum_now
