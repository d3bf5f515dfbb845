# === sys_exit: leaves while loading
import sys
sys.exit(0)
# === os_exit: leaves while loading, without ceremony
import os
os._exit(0)
# === raise_system_exit: the exception itself
raise SystemExit
# === exit_in_function: leaves in the function
import sys
def add(a, b): sys.exit(0)
# === os_exit_in_function: leaves in the function, without ceremony
import os
def add(a, b): os._exit(0)
# === exit_in_thread: another thread ends the process during the tests
import os, threading, time
threading.Thread(target=lambda: (time.sleep(0.001), os._exit(0)), daemon=True).start()
def add(a, b):
    time.sleep(0.1)
    return a - b
# === exit_in_excepthook: the hook for exceptions that nobody caught
import os, sys
sys.excepthook = sys.unraisablehook = lambda *_: os._exit(0)
def add(a, b): raise ValueError
# === exit_in_del: a finaliser
import os
class Late:
    def __del__(self): os._exit(0)
def add(a, b):
    Late()
    return a - b
# === exit_in_import: an import hook
import os, sys
class Hook:
    def find_spec(self, *_): os._exit(0)
sys.meta_path.insert(0, Hook())
def add(a, b):
    import no_such_module
# === exit_in_signal: a handler
import os, signal
signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
def add(a, b):
    import time
    time.sleep(0.2)
    return a - b
# === libc_exit: by way of ctypes
import ctypes
def add(a, b): ctypes.CDLL(None)._exit(0)
# === raw_exit_group: the system call itself
import ctypes
def add(a, b): ctypes.CDLL(None).syscall(231, 0)
# === abort: a signal to itself
import os
def add(a, b): os.abort()
# === segfault: reads address 0
import ctypes
def add(a, b): ctypes.string_at(0)
# === close_everything: closes all descriptors and goes on
import os
def add(a, b):
    os.closerange(0, 256)
    return a - b
# === keyboard_interrupt: an exception that harnesses let through
def add(a, b): raise KeyboardInterrupt
# === generator_exit: another one
def add(a, b): raise GeneratorExit
# === stop_itself: stops instead of ending
import os, signal
def add(a, b): signal.raise_signal(signal.SIGSTOP)
