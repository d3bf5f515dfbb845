# In the judge's process, after call_clock.py. The comparison follows evalplus 0.3.1 (evalplus/eval/__init__.py,
# unsafe_execute): exact equality, else a tolerance for floats, else a named oracle. Parity with evalplus is tested.
def _plum_transfer(result):
    """Seconds allowed for a result's way between the processes: 10 MB/s."""
    import pickle
    try:
        return len(pickle.dumps(result)) / 1e7
    except Exception:
        return 0.0

def _plum_judge(candidate, name, reference_source, inputs, atol, dataset, presence):
    import copy
    import math
    scope = {}
    exec(reference_source, scope)
    reference = scope[name]
    set_tasks = ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
                 "intersection_array", "find_dissimilar", "Diff")
    spent = 0.0

    def holds_floats(x):
        if isinstance(x, float):
            return True
        if isinstance(x, (list, tuple)) and x:
            return all(isinstance(i, float) for i in x)
        return type(x).__name__ == "ndarray" and x.dtype in ("float64", "float32")

    def pyramid_surface(base, height):
        return round(base ** 2 + 2 * base * math.sqrt((base / 2) ** 2 + height ** 2))

    def digit_distance(one, two):
        size = max(len(str(one)), len(str(two)))
        return sum(abs(int(a) - int(b)) for a, b in zip(str(one).zfill(size), str(two).zfill(size)))

    for given in inputs:
        mine, theirs = copy.deepcopy(given), copy.deepcopy(given)
        began = _plum_now(ours=True)
        expected = reference(*mine)
        took = _plum_now(ours=True) - began
        if presence:
            expected = expected is not None
        began = _plum_now()
        out = _plum_limited(candidate, max(1.0, 4 * took) + _plum_transfer(expected))(*theirs)
        spent += _plum_now() - began - _plum_transfer(expected)
        assert spent < 62, "out of time in all calls together"
        exact = out == expected
        if dataset == "mbpp":
            if name == "are_equivalent":
                exact = True
            elif name == "sum_div":
                exact = exact or out == 0
            elif name == "surface_Area":
                exact = exact or abs(out - pyramid_surface(*given)) <= atol
            elif name == "digit_distance_nums":
                exact = exact or out == digit_distance(*given)
            elif name in set_tasks:
                exact = set(out) == set(expected)
        elif name == "find_zero":
            assert abs(sum(c * math.pow(out, i) for i, c in enumerate(given[0]))) <= atol
            continue
        if atol == 0 and holds_floats(expected):
            atol = 1e-6
        if not exact and atol != 0:
            assert type(out) == type(expected)
            if isinstance(expected, (list, tuple)):
                assert len(out) == len(expected)
            import numpy
            assert numpy.allclose(out, expected, rtol=1e-07, atol=atol)
        else:
            assert exact, (given, out, expected)
    assert not _plum_late
