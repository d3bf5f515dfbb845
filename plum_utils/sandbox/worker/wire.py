"""Values between a candidate's process and the judge's: JSON text of plain data, in which nothing can be executed.

Scalars stand for themselves; all else is a list that begins with a tag. Decoding builds values of exactly builtin types
(and of a few types of the standard library and numpy's numbers), so that nothing of a candidate's classes arrives in
the judge's process: an instance of a subclass of ``int``, ``list`` and the like crosses as its plain base value, any
other instance is ``NotPlain``. Functions and iterators cross as numbers ("handles") that the other side may call.

Mutable containers are numbered in the order in which they are met, on both sides alike. A number that comes again
stands for the same object, so cycles and identity survive, and a function that changes its arguments changes the
caller's: ``Marshal.changes`` and ``Marshal.apply``.
"""

import base64
import builtins
import collections
import datetime
import decimal
import fractions
import json
import operator
import os
import re
import struct
import types

import arrays

MAX_MESSAGE = 64 << 20  # bytes
MAX_INT = 1 << 63       # larger ones travel in base 16: Python refuses long decimal numbers
SCALARS = frozenset((type(None), bool, int, float, str))
BASES = (str, int, float, complex, bytes, bytearray, list, tuple, dict, set, frozenset)
SEQUENCES = {"l": list, "q": collections.deque}
MAPPINGS = {"d": dict, "O": collections.OrderedDict, "C": collections.Counter, "D": collections.defaultdict}
SETS = {"s": set, "z": frozenset}
TAGS = {kind: tag for table in (SEQUENCES, MAPPINGS, SETS) for tag, kind in table.items()}
UNSAFE_BUILTINS = frozenset(("eval", "exec", "compile", "open", "input", "breakpoint", "__import__", "exit", "quit",
                             "globals", "locals", "vars", "setattr", "delattr", "__build_class__", "help", "print"))
BUILTINS = {name: value for name, value in vars(builtins).items()
            if isinstance(value, (type, types.BuiltinFunctionType)) and name not in UNSAFE_BUILTINS}
BUILTIN_NAMES = {id(value): name for name, value in BUILTINS.items()}
EXCEPTIONS = {name: value for name, value in BUILTINS.items()
              if isinstance(value, type) and issubclass(value, BaseException)}
VIEWS = {type(getattr(kind(), name)()): f"v{name[0]}" for kind in (dict, collections.OrderedDict)
         for name in ("keys", "values", "items")}
UTC = datetime.timezone.utc


class NotPlain(BaseException):
    """A value that cannot cross. Not an ``Exception``, so that tests do not take it for the candidate's."""


class Broken(BaseException):
    """The other side sent what nobody of ours would have sent."""


class Gone(BaseException):
    """The other side's process has ended."""


class Match:
    """A match of a regular expression, of which nothing crosses but that there is one."""

    def __getattr__(self, name):
        raise NotPlain(f"a match, asked for .{name}")


# --- frames -----------------------------------------------------------------------------------------------------------

def send(handle, message, write=os.write, dumps=json.dumps):
    """Write one message: four bytes of length, then JSON."""
    body = dumps(message).encode("ascii")
    if len(body) > MAX_MESSAGE:
        raise NotPlain(f"{len(body) >> 20} MiB of data")
    data = memoryview(struct.pack("I", len(body)) + body)
    try:
        while data:
            data = data[write(handle, data):]
    except OSError as error:
        raise Gone from error


def receive(handle, loads=json.loads):
    """Read one message.

    Raises:
        Gone: the other side has ended. Broken: too long, or no JSON.
    """
    size, = struct.unpack("I", read_exactly(handle, 4))
    if size > MAX_MESSAGE:
        raise Broken("too long a message")
    try:
        return loads(read_exactly(handle, size))
    except (ValueError, RecursionError) as error:
        raise Broken(f"no message ({type(error).__name__})") from None


def read_exactly(handle, size, read=os.read):
    pieces = []
    while size:
        try:
            piece = read(handle, min(size, 1 << 20))
        except OSError:
            raise Gone from None
        if not piece:
            raise Gone
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


# --- values -----------------------------------------------------------------------------------------------------------

class Marshal:
    """Encodes and decodes the values of one call; knows the containers that both sides have met.

    Args:
        export: gives a function or an iterator of ours a handle; None when none may cross.
        import_function, import_iterator: make something callable or iterable of a handle of the other side's.
    """

    def __init__(self, export, import_function, import_iterator):
        self.export, self.import_function, self.import_iterator = export, import_function, import_iterator
        self.objects, self.numbers, self.copies = [], {}, []  # known containers, id -> number, shallow copies

    def number(self, value):
        self.numbers[id(value)] = len(self.objects)
        self.objects.append(value)

    # encoding

    def encode(self, value):
        kind = type(value)
        if kind in SCALARS:
            return value if kind is not int or -MAX_INT < value < MAX_INT else ["i", hex(value)]
        if kind is tuple:
            return ["t", *self.encode_all(value)]
        if kind in TAGS:
            return self.encode_container(value, TAGS[kind])
        return self.encode_other(value, kind)

    def encode_all(self, values):
        values = list(values)
        if set(map(type, values)) <= SCALARS and not any(type(one) is int and not -MAX_INT < one < MAX_INT
                                                         for one in values):
            return values
        return [self.encode(one) for one in values]

    def encode_container(self, value, tag):
        if id(value) in self.numbers:
            return ["r", self.numbers[id(value)]]
        if tag != "z":
            self.number(value)
        return [tag, *self.contents(value)]

    def contents(self, value):
        """The encoded items of a container; of a mapping, keys and values in turn."""
        if isinstance(value, dict):
            return self.encode_all(item for pair in value.items() for item in pair)
        if type(value) is collections.deque:
            return [value.maxlen, *self.encode_all(value)]
        return self.encode_all(value)

    def encode_other(self, value, kind):
        if kind in (bytes, memoryview):
            return ["b", base64.b64encode(bytes(value)).decode()]
        if kind is bytearray:
            if id(value) in self.numbers:
                return ["r", self.numbers[id(value)]]
            self.number(value)
            return ["B", base64.b64encode(value).decode()]
        if kind is complex:
            return ["c", value.real, value.imag]
        if kind is range:
            return ["R", *map(self.encode, (value.start, value.stop, value.step))]
        if kind is slice:
            return ["S", *map(self.encode, (value.start, value.stop, value.step))]
        if kind is decimal.Decimal:
            return ["m", str(value)]
        if kind is fractions.Fraction:
            return ["f", *map(self.encode, (value.numerator, value.denominator))]
        if kind in (datetime.datetime, datetime.date, datetime.time, datetime.timedelta):
            return encode_time(value, kind)
        if isinstance(value, type) or kind is types.BuiltinFunctionType:
            return self.encode_builtin(value)
        if kind is re.Match or kind is Match:
            return ["M"]
        if arrays.are_numpys(value):
            code = arrays.encode(value, kind, self.encode)
            if code is None:
                raise NotPlain(f"a numpy value of type {value.dtype}")
            return code
        return self.encode_rest(value, kind)

    def encode_builtin(self, value):
        if id(value) in BUILTIN_NAMES:
            return ["T", BUILTIN_NAMES[id(value)]]
        if isinstance(value, type):
            raise NotPlain(f"a class ({value.__name__})")
        return self.exported(value, "F")

    def encode_rest(self, value, kind):
        if isinstance(value, BaseException):
            return ["e", *encode_exception(value)]
        for base in BASES:
            if issubclass(kind, base):
                return self.encode(plain_base(value, base))
        for base in DATES:
            if issubclass(kind, base):
                return encode_time(value, base)
        if kind in VIEWS:
            return [VIEWS[kind], *self.encode_all(value)]
        if isinstance(value, types.GeneratorType) or hasattr(kind, "__next__"):
            return self.exported(value, "G")
        if callable(value) and not hasattr(kind, "__len__") and not hasattr(kind, "__bool__"):  # which may be false
            return self.exported(value, "F")
        raise NotPlain(f"an instance of {kind.__name__}")

    def exported(self, value, tag):
        if self.export is None:
            raise NotPlain("a function or an iterator")
        return [tag, self.export(value)]

    # decoding

    def decode(self, code):
        if type(code) is not list:
            if type(code) is dict:
                raise Broken("a JSON object")
            return code
        try:
            tag, rest = code[0], code[1:]
            if tag == "t":
                return tuple(self.decode_all(rest))
            if tag == "r":
                return self.objects[index(rest[0])]
            if tag in SEQUENCES or tag in MAPPINGS or tag == "s":
                return self.decode_container(tag, rest)
            return self.decode_other(tag, rest)
        except (IndexError, TypeError, ValueError, KeyError, ArithmeticError, SystemError) as error:
            raise Broken(f"{type(error).__name__} in a value") from None

    def decode_all(self, codes):
        kinds = set(map(type, codes))
        return codes if list not in kinds and dict not in kinds else [self.decode(code) for code in codes]

    def decode_container(self, tag, rest):
        if tag == "q":
            value = collections.deque(maxlen=rest[0])
        else:
            value = (SEQUENCES | MAPPINGS | SETS)[tag]()
        self.number(value)
        self.fill(value, rest)
        return value

    def fill(self, value, rest):
        """Put decoded items into a container, in the place of what it holds."""
        if type(value) is bytearray:
            value[:] = base64.b64decode(rest[0])
            return
        items = self.decode_all(rest[1:] if type(value) is collections.deque else rest)
        if isinstance(value, dict):
            if len(items) % 2:
                raise Broken("a key without a value")
            value.clear()
            for key, item in zip(items[::2], items[1::2]):
                value[key] = item
            return
        value.clear()
        value.update(items) if type(value) is set else value.extend(items)

    def decode_other(self, tag, rest):
        if tag == "i":
            return int(rest[0], 16)
        if tag == "z":
            return frozenset(self.decode_all(rest))
        if tag == "b":
            return base64.b64decode(rest[0])
        if tag == "B":
            value = bytearray()
            self.number(value)
            self.fill(value, rest)
            return value
        if tag == "c":
            return complex(*rest)
        if tag in "RS":
            return (range if tag == "R" else slice)(*map(self.decode, rest))
        if tag == "m":
            return decimal.Decimal(rest[0])
        if tag == "f":
            return fractions.Fraction(*map(self.decode, rest))
        if tag in TIMES:
            return decode_time(tag, rest)
        if tag == "T":
            return BUILTINS[rest[0]]
        if tag in arrays.TAGS:
            return arrays.decode(tag, rest, self.decode_all)
        if tag == "M":
            return Match()
        if tag == "e":
            return decode_exception(*rest)
        if tag == "vk":
            return dict.fromkeys(self.decode_all(rest)).keys()
        if tag == "vv":
            return dict(enumerate(self.decode_all(rest))).values()
        if tag == "vi":
            return dict(self.decode_all(rest)).items()
        if tag == "F":
            return self.import_function(index(rest[0]))
        if tag == "G":
            return self.import_iterator(index(rest[0]))
        raise Broken("an unknown tag")

    # what a call did to its arguments

    def remember(self):
        """Keep shallow copies of all known containers, to tell later which were changed."""
        self.copies = [shallow(value) for value in self.objects]

    def changes(self):
        """``[[number, contents...], ...]`` of the containers that differ from their copies."""
        known = list(zip(self.objects, self.copies))
        return [[number, *(self.contents(value) if type(value) is not bytearray else
                           [base64.b64encode(value).decode()])]
                for number, (value, copy) in enumerate(known) if not unchanged(shallow(value), copy)]

    def apply(self, changes):
        """Do to our containers what the other side did to its own."""
        if type(changes) is not list or any(type(one) is not list or not one for one in changes):
            raise Broken("no list of changes")
        for number, *rest in changes:
            try:
                self.fill(self.objects[index(number)], rest)
            except (IndexError, TypeError, ValueError) as error:
                raise Broken(f"{type(error).__name__} in a change") from None


def index(value):
    if type(value) is not int or value < 0:
        raise Broken("no number")
    return value


def shallow(value):
    if isinstance(value, dict):
        return [item for pair in value.items() for item in pair]
    return bytes(value) if type(value) is bytearray else list(value)


def unchanged(new, old):
    if type(new) is bytes:
        return new == old
    return len(new) == len(old) and all(map(operator.is_, new, old))


def plain_base(value, base):
    """The base value of an instance of a subclass, read with the base's own methods."""
    if base is str:
        return str.__str__(value)
    if base in (int, float, complex):
        return base.__pos__(value)
    if base in (bytes, bytearray):
        return base(memoryview(value))
    return dict(dict.items(value)) if base is dict else base(base.__iter__(value))


TIMES = {"dt": datetime.datetime, "dd": datetime.date, "dm": datetime.time}
TIMES["td"] = datetime.timedelta
DATES = tuple(TIMES.values())


def encode_time(value, kind):
    if kind is datetime.timedelta:
        return ["td", value.days, value.seconds, value.microseconds]
    tag = next(tag for tag, one in TIMES.items() if one is kind)
    return [tag, kind.isoformat(value), 1 if getattr(value, "tzinfo", None) is UTC else 0]


def decode_time(tag, rest):
    if tag == "td":
        return datetime.timedelta(*rest)
    value = TIMES[tag].fromisoformat(rest[0])
    return value.replace(tzinfo=UTC) if rest[1] else value


def encode_exception(error):
    """[name of the nearest builtin class, arguments], the arguments as one text where they are not plain, or where a class
    of the program's says what the text is."""
    kind = next(kind for kind in type(error).__mro__ if EXCEPTIONS.get(kind.__name__) is kind)
    try:
        if type(error).__str__ is kind.__str__:
            return [kind.__name__, Marshal(None, None, None).encode(tuple(error.args))]
    except BaseException:  # not plain
        pass
    try:
        return [kind.__name__, ["t", str.__str__(str(error))[:10_000]]]
    except BaseException:  # a hostile __str__
        return [kind.__name__, ["t"]]


def decode_exception(name, code):
    kind, values = EXCEPTIONS[name], Marshal(None, None, None).decode(code)
    if type(values) is not tuple:
        raise Broken("an exception's arguments are no tuple")
    try:
        return kind(*values)
    except TypeError:  # UnicodeDecodeError and its like insist on their arguments
        return Exception(f"{name}{values}")
