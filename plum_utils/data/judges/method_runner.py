# In the candidate's process: the method `_METHOD` of the class Solution, made once; without one the function of that name.
_solution = []

def _run(*arguments):
    if "Solution" not in globals():
        return globals()[_METHOD](*arguments)
    if not _solution:
        _solution.append(Solution())
    return getattr(_solution[0], _METHOD)(*arguments)
