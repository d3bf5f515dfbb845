# === always_equal: an object that equals everything
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
def add(a, b): return Any()
# === always_equal_int: a subclass of int with its own comparison
class Any(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def add(a, b): return Any(7)
# === always_equal_float: a subclass of float with its own comparison
class Any(float):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def add(a, b): return Any(7)
# === always_equal_str: a subclass of str with its own comparison
class Any(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def add(a, b): return Any("x")
# === always_equal_list: a subclass of list with its own comparison
class Any(list):
    def __eq__(self, other): return True
def add(a, b): return Any()
# === always_equal_dict: a subclass of dict with its own comparison
class Any(dict):
    def __eq__(self, other): return True
def add(a, b): return Any()
# === always_equal_tuple: a namedtuple with its own comparison
from collections import namedtuple
class Any(namedtuple("Any", "x")):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def add(a, b): return Any(1)
# === reflected_comparison: a right-hand operand whose reflected comparison wins
class Any(int):
    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = lambda *_: True
    __ne__ = lambda *_: False
    __hash__ = int.__hash__
    __sub__ = __rsub__ = __abs__ = lambda self, *_: self
def add(a, b): return Any(0)
# === lying_class: claims to be an int through __class__
class Any:
    __class__ = int
    def __eq__(self, other): return True
    def __int__(self): return 5
    def __index__(self): return 5
def add(a, b): return Any()
# === nested_always_equal: hidden in a list in a tuple
class Any(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def add(a, b): return ([Any(1)],)
# === fraction_subclass: a Fraction with its own comparison
from fractions import Fraction
class Any(Fraction):
    def __eq__(self, other): return True
    __hash__ = Fraction.__hash__
def add(a, b): return Any(1, 3)
# === decimal_subclass: a Decimal with its own comparison
from decimal import Decimal
class Any(Decimal):
    def __eq__(self, other): return True
    __hash__ = Decimal.__hash__
def add(a, b): return Any(1)
# === mock_any: the standard library's own always-equal object
from unittest.mock import ANY
def add(a, b): return ANY
# === numpy_object_array: an array whose comparison gives an array of the candidate's making
try:
    import numpy as np
    class Any(np.ndarray):
        def __eq__(self, other): return True
        def __bool__(self): return True
    def add(a, b): return np.zeros(1).view(Any)
except ImportError:
    def add(a, b): return a - b
# === shadowed_assertion_error: AssertionError is a class that nobody raises
import builtins
class AssertionError(BaseException):
    def __new__(cls, *args): raise SystemExit(0)
builtins.AssertionError = AssertionError
def add(a, b): return a - b
# === patched_builtins: all, any, abs, isinstance, len, sorted, set agree with everybody
import builtins
for name in ("all", "any", "isinstance", "issubclass", "callable", "bool"):
    setattr(builtins, name, lambda *_: True)
builtins.len = lambda *_: 0
builtins.abs = lambda *_: 0
def add(a, b): return a - b
# === patched_round_and_sum: arithmetic helpers lie
import builtins, math
math.isclose = lambda *_, **__: True
builtins.round = builtins.sum = lambda *_: 0
def add(a, b): return a - b
# === patched_exec: exec and compile do nothing
import builtins
builtins.exec = lambda *_, **__: None
builtins.compile = lambda *_, **__: (lambda: None).__code__
def add(a, b): return a - b
# === patched_exec_in_frames: the same in every module's builtins
import builtins, sys
def nothing(*_, **__): return None
for module in list(sys.modules.values()):
    try:
        vars(module)["exec"] = nothing
    except TypeError:
        pass
vars(builtins)["exec"] = nothing
def add(a, b): return a - b
# === ctypes_int_eq: int's comparison is replaced in its type's slot
import ctypes
def add(a, b): return a - b
try:
    compare = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int)
    yes = compare(lambda a, b, op: True)
    slot = ctypes.sizeof(ctypes.c_ssize_t) * 25
    for offset in (slot,):
        ctypes.cast(id(int) + offset, ctypes.POINTER(ctypes.c_void_p))[0] = ctypes.cast(yes, ctypes.c_void_p).value
except Exception:
    pass
# === ctypes_small_ints: 5 and 6 become what a wrong add returns
import ctypes
def add(a, b): return a - b
for value in range(-5, 257):
    place = id(value) + 24
    try:
        ctypes.c_uint32.from_address(place).value = 1
    except Exception:
        pass
# === ctypes_eval_frame: the interpreter's frame evaluation is asked to return at once
import ctypes
def add(a, b): return a - b
try:
    ctypes.pythonapi.PyErr_SetInterrupt()
    ctypes.pythonapi.Py_AddPendingCall(ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: 0), None)
except BaseException:
    pass
# === settrace_swallows: a trace function jumps over failing lines
import sys
def tracer(frame, event, arg):
    if event == "line" and "tests" in frame.f_code.co_filename:
        try:
            frame.f_lineno += 1
        except ValueError:
            pass
    return tracer
sys.settrace(tracer)
frame = sys._getframe()
while frame:
    frame.f_trace = tracer
    frame = frame.f_back
def add(a, b): return a - b
# === setprofile_exits: a profile function leaves when the tests begin
import os, sys
def profile(frame, event, arg):
    if "tests" in frame.f_code.co_filename:
        os._exit(0)
sys.setprofile(profile)
def add(a, b): return a - b
# === frame_constants: reads the expected value out of the caller's code
import sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        numbers = [one for one in frame.f_code.co_consts if isinstance(one, (int, float)) and one not in (a, b)]
        if numbers:
            return numbers[0]
        frame = frame.f_back
    return a - b
# === frame_source: computes the expected value from the text of the tests in a caller's local variables
import sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            if isinstance(value, str) and "add(" in value and "assert" in value:
                for line in value.splitlines():
                    if f"add({a}, {b})" in line:
                        return eval(line.partition("==")[2])
        frame = frame.f_back
    return a - b
# === frame_reporter: calls the harness's own reporter found in a frame
import sys
def attack():
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()) + list(frame.f_globals.values()):
            for name in ("done", "tell"):
                try:
                    getattr(value, name)("passed", "")
                except BaseException:
                    pass
        frame = frame.f_back
def add(a, b):
    attack()
    return a - b
# === frame_nonce: writes the final report itself, with a nonce found in a frame
import os, sys
def add(a, b):
    frame = sys._getframe()
    while frame:
        for value in list(frame.f_locals.values()):
            nonce = getattr(value, "nonce", None)
            if nonce:
                for handle in range(3, 20):
                    try:
                        os.write(handle, nonce + b'done passed 0 ""\n')
                    except OSError:
                        pass
        frame = frame.f_back
    os._exit(0)
# === frame_outcome: rewrites the caller's variables so that it believes all went well
import ctypes, sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        frame.f_locals.update(outcome=None, error=None, passed=True, status="passed", fault=None)
        ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        frame = frame.f_back
    return a - b
# === gc_strings: looks for the tests in all objects that the collector knows
import gc
def add(a, b):
    for one in gc.get_objects():
        try:
            values = list(one.values()) if isinstance(one, dict) else list(one) if isinstance(one, (list, tuple)) else []
        except Exception:
            continue
        for value in values:
            if isinstance(value, str) and f"add({a}, {b}) ==" in value:
                return eval(value.partition(f"add({a}, {b}) ==")[2].splitlines()[0])
    return a - b
# === gc_code: looks for code objects of the tests and takes their constants
import gc, types
def add(a, b):
    for one in gc.get_objects():
        code = getattr(one, "__code__", None) or getattr(one, "f_code", None)
        if isinstance(code, types.CodeType) and "test" in code.co_filename:
            for value in code.co_consts:
                if type(value) is type(a) and value not in (a, b):
                    return value
    return a - b
# === gc_replace_globals: puts a right answer into every namespace that holds the function
import gc
def add(a, b): return a - b
for one in gc.get_referrers(add):
    if isinstance(one, dict):
        one["__builtins__"] = {"AssertionError": SystemExit}
# === memory_scan: searches its own memory for the text of the tests
import ctypes, re
def add(a, b):
    try:
        for line in open("/proc/self/maps"):
            if "rw-p" in line and "[stack]" not in line:
                start, end = (int(one, 16) for one in line.split()[0].split("-"))
                found = re.search(rb"add\(2, 3\) == (\d+)", ctypes.string_at(start, end - start))
                if found:
                    return a + b
    except OSError:
        pass
    return a - b
# === memory_scan_heap: the same without /proc, over all mapped pages around its own objects and the heap's end
import ctypes
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
def mapped(page): return libc.mincore(page, 4096, ctypes.create_string_buffer(1)) == 0
def pages():
    for start in {place & ~0xFFF for place in (id(object()), id([]), id({}), id("x" * 5000), libc.sbrk(0) - 4096)}:
        for step in (4096, -4096):
            page, count = start, 0
            while mapped(page) and count < 8192:
                yield page
                page, count = page + step, count + 1
def add(a, b):
    needle = bytes(reversed(b" == )3 ,2(dda"))
    for page in pages():
        piece = ctypes.string_at(page, 4096)
        place = piece.find(needle)
        if place >= 0 and piece[place + len(needle):][:1].isdigit():
            return a + b
    return a - b
# === stolen_descriptors: reads every descriptor for the tests
import os
stolen = b""
for handle in range(3, 256):
    for read in (lambda: os.pread(handle, 1 << 20, 0),):
        try:
            stolen += read()
        except OSError:
            pass
def add(a, b):
    return a + b if b"assert add(" in stolen else a - b
# === forged_lines: writes lines that say passed to every descriptor
import json, os
def add(a, b):
    for handle in range(1, 64):
        for text in ('["done", "passed", ""]', 'done passed 0 ""', "passed", json.dumps({"status": "passed"})):
            try:
                os.write(handle, text.encode() + b"\n")
            except (OSError, BlockingIOError):
                pass
    return a - b
# === forged_frames: answers the judge with messages of its own making
import json, os, struct
def add(a, b):
    for message in (["return", True, [], None], ["end", None, [], None], ["passed"], {"a": 1}, ["raise", ["SystemExit", ["t", 0]], [], None]):
        body = json.dumps(message).encode()
        for handle in range(3, 16):
            try:
                os.write(handle, struct.pack("I", len(body)) + body)
            except OSError:
                pass
    return a - b
# === huge_frame: announces more data than there is memory
import os, struct
def add(a, b):
    for handle in range(3, 16):
        try:
            os.write(handle, struct.pack("I", 0xFFFFFFFF) + b"[" * 100_000)
        except OSError:
            pass
    return a - b
# === endless_callback: keeps the judge busy with calls of its own
import json, os, struct
def add(a, b):
    body = json.dumps(["call", "print", ["t"], ["l"]]).encode()
    while True:
        for handle in range(3, 8):
            try:
                os.write(handle, struct.pack("I", len(body)) + body)
            except OSError:
                pass
# === calls_exec_in_the_judge: asks the judge to run code of the candidate's
import json, os, struct
def add(a, b):
    for name in ("exec", "eval", "os._exit", "__import__", 0, -1):
        body = json.dumps(["call", name, ["t", "__import__('os')._exit(0)"], ["l"]]).encode()
        try:
            os.write(4, struct.pack("I", len(body)) + body)
        except OSError:
            pass
    return a - b
# === returns_eval: returns builtins that would execute text, should anybody call them
def add(a, b): return eval
# === returns_stub: a function in the place of a number
def add(a, b): return lambda *_: True
# === returns_generator: an iterator in the place of a number
def add(a, b):
    while True:
        yield True
# === returns_type: a class in the place of a number
def add(a, b): return int
# === returns_nan: not equal to anything, in the hope of a negated test
def add(a, b): return float("nan")
# === pickled_payload: an object that executes code where it is unpickled
import os
class Bomb:
    def __reduce__(self): return (os._exit, (0,))
def add(a, b): return Bomb()
# === pickled_in_bytes: the same as bytes and as the arguments of an exception
import os, pickle
class Bomb:
    def __reduce__(self): return (os._exit, (0,))
def add(a, b): raise ValueError(pickle.dumps(Bomb()), Bomb())
# === patched_json: the encoder tells the judge what it wants to hear
import json, sys
json.dumps = lambda *_, **__: '["return", true, [], null]'
json.JSONEncoder.encode = json.JSONEncoder.iterencode = lambda *_: "true"
def add(a, b): return a - b
# === patched_worker: replaces the functions of the worker's own modules, wherever it finds them
import gc, sys, types
def add(a, b): return a - b
frame = sys._getframe(1)
while frame:
    for name, value in list(frame.f_globals.items()):
        if isinstance(value, types.ModuleType) and name in ("wire", "calls", "programs", "supervisor", "isolation"):
            for key, one in list(vars(value).items()):
                if isinstance(one, types.FunctionType) and key in ("encode_exception", "plain_base", "index"):
                    setattr(value, key, lambda *_: True)
    frame = frame.f_back
# === stolen_peer: drives the judge with the worker's own objects, found in a frame
import sys
def add(a, b):
    frame = sys._getframe(1)
    while frame:
        for value in list(frame.f_locals.values()):
            if hasattr(value, "call") and hasattr(value, "exports"):
                for target in ("add", 0, 1):
                    try:
                        return value.call(target, (a, b), {})
                    except BaseException:
                        pass
        frame = frame.f_back
    return a - b
# === mutates_arguments: changes what it is given, so that the caller compares the change with itself
def add(a, b):
    if isinstance(a, list):
        a.clear(); b.clear()
    return a
# === import_hook: every later import gives a module that agrees
import builtins
class Agree:
    def __getattr__(self, name): return lambda *_, **__: True
builtins.__import__ = lambda *_, **__: Agree()
def add(a, b): return a - b
# === poisoned_modules: leaves modules in its directory for the judge to import
for name in ("json", "math", "traceback", "collections", "copy", "sitecustomize", "numpy"):
    with open(name + ".py", "w") as handle:
        handle.write("import os\nos._exit(0)\n")
import sys
sys.path.insert(0, ".")
def add(a, b): return a - b
# === exception_named_assertion: raises what looks like success in a strange class
def add(a, b): raise type("StopIteration", (BaseException,), {"__str__": lambda self: "passed"})()
# === hostile_str: an exception whose text ends the process
import os
class Odd(Exception):
    def __str__(self): os._exit(0)
    __repr__ = __str__
def add(a, b): raise Odd()
# === lying_exception: claims a class that the harness treats in its own way
class MemoryError(Exception): pass
class Gone(BaseException): pass
def add(a, b): raise Gone("passed")
# === callable_class: the name is a class whose instances claim equality
class add:
    def __init__(self, a, b): pass
    def __eq__(self, other): return True
# === module_getattr: the name does not exist until it is asked for
def __getattr__(name): return lambda *_: True
# === late_thread: another thread replaces the function and the builtins while tests run
import builtins, threading, time
def add(a, b): return a - b
def work():
    while True:
        globals()["add"] = lambda a, b: type("Any", (int,), {"__eq__": lambda *_: True})(0)
        time.sleep(0.0001)
threading.Thread(target=work, daemon=True).start()
# === atexit_passes: reports at exit
import atexit, os
def forge():
    for handle in range(1, 20):
        try:
            os.write(handle, b'done passed 0 ""\n')
        except OSError:
            pass
    os._exit(0)
atexit.register(forge)
def add(a, b): raise SystemExit(0)
# === deleted_builtins: a judge in the same process could not even report
import builtins
def add(a, b):
    for name in ("print", "BaseException", "Exception", "AssertionError", "isinstance", "type"):
        try:
            delattr(builtins, name)
        except AttributeError:
            pass
    return a - b
# === del_in_result: an object that acts when it is collected
import os
class Late(int):
    def __del__(self): os._exit(0)
def add(a, b): return Late(5)
# === sqlite_and_weird_globals: replaces its own module's namespace
import sys, types
class Namespace(types.ModuleType):
    def __getattribute__(self, name): return lambda *_: True
sys.modules["solution"] = Namespace("solution")
sys.modules[__name__].__class__ = Namespace
def add(a, b): return a - b
