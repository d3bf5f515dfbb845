"""numpy's values as JSON: numbers, text, bytes and dates as their bytes, all others by their items, fields or parts.

``ValueError`` and its like are what a decoder makes of anything that nobody of ours would have sent; it builds arrays of
numpy's own classes of plain data, and nothing else.
"""

import base64
import math
import re
import sys

TAGS = ("n", "no", "nv", "nk", "nm")
# numpy's types whose values are bytes without a pointer: numbers, text, bytes, dates and spans of time.
TYPE = re.compile(r"[<>|]([biufc][0-9]{1,2}|[US][0-9]{1,9}|[Mm]8(\[[0-9]*[A-Za-z]{1,2}\])?)")


def are_numpys(value):
    """Whether it is an array or a scalar of numpy's; its texts and bytes are Python's own."""
    numpy = sys.modules.get("numpy")
    return bool(numpy) and isinstance(value, (numpy.ndarray, numpy.generic)) and not isinstance(value, (str, bytes))


def encode(value, kind, item):
    """The code of an array or a scalar, or ``None`` where it is of no type that may cross.

    Args:
        item: encodes a value.
    """
    import numpy

    if kind.__module__.startswith("numpy.ma"):
        return ["nk", item(numpy.asarray(value.data)), item(numpy.ma.getmaskarray(value))]
    if isinstance(value, numpy.matrix):
        return ["nm", item(numpy.asarray(value))]
    shape = list(value.shape) if isinstance(value, numpy.ndarray) else None
    if value.dtype.names:
        return ["nv", shape, *(code for name in value.dtype.names for code in (name, item(value[name])))]
    if value.dtype.char in "OT":  # objects, and texts of any length
        return ["no", shape, *map(item, value.ravel().tolist())]
    if not TYPE.fullmatch(value.dtype.str):
        return None
    return ["n", value.dtype.str, shape, base64.b64encode(value.tobytes()).decode()]


def decode(tag, rest, items):
    """The value of a code.

    Args:
        items: decodes a list of codes.

    Raises:
        ValueError, TypeError, IndexError: nobody of ours would have sent it.
    """
    try:
        import numpy
    except ImportError:
        raise ValueError("numpy is not installed here") from None
    if tag == "n":
        return plain(numpy, *rest)
    if tag == "no":
        return objects(numpy, rest[0], items(rest[1:]))
    if tag == "nv":
        return fields(numpy, rest[0], rest[1::2], items(rest[2::2]))
    parts = items(rest)
    if any(type(one) is not numpy.ndarray or one.shape != parts[0].shape for one in parts):
        raise ValueError("parts that are no array")
    return numpy.asmatrix(*parts) if tag == "nm" else numpy.ma.MaskedArray(*parts)


def plain(numpy, name, shape, data):
    if not TYPE.fullmatch(name):
        raise ValueError("an unknown type")
    data, sizes = base64.b64decode(data), checked(shape)
    if numpy.dtype(name).itemsize * math.prod(sizes) != len(data):
        raise ValueError("a value of another size")
    values = (numpy.frombuffer(data, dtype=name) if data else numpy.zeros(0, dtype=name)).reshape(sizes).copy()
    values.tolist()  # text may hold what is no character
    return values[()] if shape is None else values


def objects(numpy, shape, found):
    values = numpy.empty(len(found), dtype=object)
    for place, one in enumerate(found):
        values[place] = one
    return values.reshape(checked(shape))


def fields(numpy, shape, names, found):
    """An array with named fields, or one row of it."""
    sizes, columns = checked(shape), [numpy.asarray(one) for one in found]
    if not columns or set(map(type, names)) != {str} or any(one.shape[:len(sizes)] != sizes for one in columns):
        raise ValueError("an array with other fields")
    values = numpy.empty(sizes, dtype=[(name, one.dtype, one.shape[len(sizes):]) for name, one in zip(names, columns)])
    for name, one in zip(names, columns):
        values[name] = one
    return values[()] if shape is None else values


def checked(shape):
    """Sizes as a tuple; ``None`` is a scalar's shape."""
    if any(type(size) is not int or size < 0 for size in shape or ()):
        raise ValueError("a shape of no sizes")
    return tuple(shape or ())
