# In the candidate's process: the method `_METHOD` of the class Solution, made once.
_solution = []

def _run(*arguments):
    if not _solution:
        _solution.append(Solution())
    return getattr(_solution[0], _METHOD)(*arguments)
