"""Take away from this process what a document's parser does not need. Linux; irreversible.

Covered where the kernel allows: network (own empty namespace, and TCP denied by landlock), every
file (landlock: none can be opened, created, listed or executed, but for reading those of one
folder where OCR needs its language files), signals to other processes,
privileges (own user namespace, no capabilities, none to be gained), memory, file size, open
files, core dumps. The process dies with the thread that started it.

Not covered: system calls are not filtered, so a bug in the kernel itself is still in reach; forks
are not counted (`RLIMIT_NPROC` counts all of a user's threads, in or out of the jail, and would
fail at random), though a fork stays inside the same jail. Elsewhere than on Linux only the
resource limits hold. `apply` returns what it achieved, so that nobody has to guess.
"""

import ctypes
import os
import resource
import signal
import struct
import sys

MAX_OPEN_FILES = 64

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522

# Landlock has the same numbers on every architecture (linux/landlock.h, unistd.h).
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_PATH_BENEATH = 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_LANDLOCK_VERSION = 1
# Number of file rights that each version of the interface knows: all are denied.
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_RIGHTS = 16
_TCP_RIGHTS = 0b11  # bind and connect, since version 4
_SCOPES = 0b11  # abstract sockets and signals of other processes, since version 6


def apply(memory_bytes: int, parent_pid: int, *, readable: str = "") -> list[str]:
    """Close the jail around this process and return the names of what holds.

    `memory_bytes` is what may be mapped beyond what is mapped now; files in the folder `readable`
    may still be read.

    Call it while the process has one thread and after its imports: landlock and namespaces bind
    only the calling thread and what it starts later. Exits when the parent is gone already.
    """
    held = _limit_resources(memory_bytes)
    if sys.platform != "linux":
        return held
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0:
        held.append("no_new_privileges")
    # A user namespace also takes root's rights over the rest of the machine away.
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0:
        held += ["user_namespace", "network_namespace"]
    elif libc.unshare(_CLONE_NEWNET) == 0:
        held.append("network_namespace")
    held += _drop_capabilities(libc) + _landlock(libc, readable)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
        held.append("not_dumpable")
    # Last: entering a user namespace clears it.
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        held.append("dies_with_parent")
    if os.getppid() != parent_pid:
        os._exit(1)  # the parent died before the line above could tell us
    return held


def limit_cpu(seconds: float) -> None:
    """Let this process use so many more seconds of CPU, all threads together.

    A second guard for the case that nobody is left to watch the clock.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, hard))


def _limit_resources(memory_bytes: int) -> list[str]:
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_AS: _mapped_bytes() + memory_bytes,
    }
    for name, limit in limits.items():
        hard = resource.getrlimit(name)[1]
        ceiling = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(name, (ceiling, ceiling))
    return ["resource_limits"]


def _mapped_bytes() -> int:
    """Return the address space in use: code and libraries, which no document can help."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _drop_capabilities(libc: ctypes.CDLL) -> list[str]:
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    none = bytes(24)  # effective, permitted and inheritable, two words each
    return ["no_capabilities"] if libc.capset(header, none) == 0 else []


def _landlock(libc: ctypes.CDLL, readable: str) -> list[str]:
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION)
    if version < 1:
        return []
    rights = _FILE_RIGHTS.get(version, _NEWEST_FILE_RIGHTS)
    fields = [(1 << rights) - 1]
    if version >= 4:
        fields.append(_TCP_RIGHTS)
    if version >= 6:
        fields.append(_SCOPES)
    rules = struct.pack(f"{len(fields)}Q", *fields)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return []
    if readable:
        _allow_reading(libc, ruleset, readable)
    refused = libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
    return [] if refused else ["no_files"]


def _allow_reading(libc: ctypes.CDLL, ruleset: int, folder: str) -> None:
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    rule = struct.pack("=Qi", _READ_FILE | _READ_FOLDER, opened)
    libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0)
    os.close(opened)
