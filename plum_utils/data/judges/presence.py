# In the candidate's process, where evalplus asks only whether there is a result: a match object could not cross to the
# judge's. `_plum_counted` is the candidate's function.
def _plum_presence(*arguments):
    found = _plum_counted(*arguments)
    return found if isinstance(found, bool) else found is not None
