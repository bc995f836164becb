"""What a process gives up before it parses what a stranger wrote: network, files, other processes, memory.

Each layer is tried on its own, because kernels and containers forbid some of them. `confine` says which hold.
Linux only; elsewhere none holds. `python -m streamsvc.ingest.sandbox` confines itself and prints the layers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NAMESPACE, LANDLOCK, SECCOMP = "namespace", "landlock", "seccomp"
LAYERS = (NAMESPACE, LANDLOCK, SECCOMP)
MEMORY = 2 << 30  # bytes of address space that may be added after confinement (security limit)
FILES = 64  # descriptors
NO_MEMORY = 3  # exit status of a process that needed more
OUT_OF_MEMORY = "500"  # of 1000: it is ended before our process
EXAMINE_SECONDS = 20.0

_NEW_USER, _NEW_NET, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_THREAD = 0x00010000  # clone(2): the new task is a thread of this process
_SET_DEATH_SIGNAL, _SET_NAME, _NO_NEW_PRIVILEGES = 1, 15, 38  # of prctl(2)
# The same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446
_BIND, _CONNECT, _PORT_RULE = 0b01, 0b10, 2  # of Landlock: its rights on TCP ports, its kind of rule
_CAPABILITIES_3 = 0x20080522
_SET_INTERFACE, _UP = 0x8914, 0x1  # of ioctl(2), its flag
_TYPE_MASK = 0xF  # of socket(2): its type without flags
_EXECUTABLE = 4  # of mmap(2)
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000  # actions of libseccomp
_EQUAL, _MASKED_EQUAL = 4, 7  # its comparisons
# What Python and libav's demuxers and decoders call once they are imported and their sockets are open. No
# open, no socket, no connect, no exec, no fork, no signal to others, no ptrace.
_CALLS = """
read write readv writev recvfrom recvmsg sendto sendmsg close shutdown lseek fstat poll ppoll select pselect6
munmap mremap madvise brk futex futex_wait futex_wake futex_waitv membarrier rseq set_robust_list
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall exit exit_group
sched_yield sched_getaffinity getcpu getrandom clock_gettime clock_getres clock_nanosleep nanosleep
gettimeofday time times getpid gettid getppid getuid geteuid getgid getegid getrusage sysinfo uname
"""
_CONNECT_CALLS = "connect getsockopt setsockopt getsockname getpeername"  # beside TCP sockets


class _Comparison(ctypes.Structure):
    """An argument of a system call compared with a value: scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Confinement:
    """How this process is confined. `layers`: those that hold, of LAYERS; `listener`: see `confine`."""

    layers: tuple[str, ...] = ()
    listener: socket.socket | None = None


def confine(*, loopback: bool = False, memory: int = MEMORY, calls: str = "") -> Confinement:
    """Give up what a demuxer and a decoder do not need, for good. Call it before the first thread is started.

    Args:
        loopback: whether TCP connections to 127.0.0.1 stay possible: in a network of its own, where nothing
            is but the listener that is returned. (Without `NAMESPACE` it is the machine's network.)
        memory: bytes of address space that may be added from here on.
        calls: system calls that stay possible besides those of a demuxer, such as on sockets that are open.
    """
    if not sys.platform.startswith("linux"):
        return Confinement((), _listener() if loopback else None)
    libc = ctypes.CDLL(None, use_errno=True)
    library: ctypes.CDLL | None = None
    with contextlib.suppress(OSError):
        library = ctypes.CDLL("libseccomp.so.2")  # while files can be opened
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # Landlock and seccomp ask for it
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OUT_OF_MEMORY, encoding="ascii")
    _limit(memory)
    held = []
    if _leave_network(libc):
        held.append(NAMESPACE)
    listener = _listener() if loopback else None
    if _leave_files(libc, listener.getsockname()[1] if listener is not None else 0):
        held.append(LANDLOCK)
    _drop_capabilities(libc)
    if library is not None and _filter_calls(library, loopback, calls):
        held.append(SECCOMP)
    return Confinement(tuple(held), listener)


def enough(layers: Iterable[str], *, loopback: bool = False) -> bool:
    """Whether these layers keep a process from network, files and other processes.

    Only SECCOMP keeps it from Unix sockets that have a path, and on older kernels from signals to others.
    With `loopback` it may open TCP sockets, and only NAMESPACE keeps them from the machine's network.
    """
    held = set(layers)
    return SECCOMP in held and (NAMESPACE in held or not loopback)


def examine() -> tuple[str, ...]:
    """The layers that hold on this machine, found by a process that confines itself. Blocking."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            [sys.executable, "-m", "streamsvc.ingest.sandbox"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=EXAMINE_SECONDS,
            check=True,
        )
        return tuple(name for name in LAYERS if name in done.stdout.decode().split())
    return ()


def described(layers: Iterable[str]) -> str:
    """What holds and what is missing, in words."""
    held = set(layers)
    missing = ", ".join(name for name in LAYERS if name not in held)
    text = f"confined by {', '.join(name for name in LAYERS if name in held) or 'nothing'}"
    return f"{text}; not to be had here: {missing}" if missing else text


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Move to a network where nothing is but loopback, in a user namespace of its own."""
    if libc.unshare(_NEW_USER | _NEW_NET | _NEW_IPC) != 0:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, _SET_INTERFACE, struct.pack("16sH14x", b"lo", _UP))
    return True


def _listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _leave_files(libc: ctypes.CDLL, port: int) -> bool:
    """Landlock: no path can be opened, run, made or removed; no TCP but to `port`; no signal outside."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    rights = 13 + sum(version >= since for since in (2, 3, 5))  # that it knows on files
    fields = [(1 << rights) - 1]
    if version >= 4:
        fields.append(_BIND | _CONNECT)
    if version >= 6:
        fields.append(0b11)  # abstract Unix sockets, signals
    rules = struct.pack(f"={len(fields)}Q", *fields)
    handle = libc.syscall(_LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if handle < 0:
        return False
    try:
        if version >= 4 and port:
            rule = struct.pack("=QQ", _CONNECT, port)
            if libc.syscall(_LANDLOCK_ADD_RULE, handle, _PORT_RULE, rule, 0) != 0:
                return False
        return bool(libc.syscall(_LANDLOCK_RESTRICT, handle, 0) == 0)
    finally:
        os.close(handle)


def _limit(memory: int) -> None:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    present = int(pages) * resource.getpagesize()
    limits = (
        (resource.RLIMIT_AS, present + memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, FILES),
    )
    for limit, value in limits:
        with contextlib.suppress(OSError, ValueError):
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up those of root, and those that a new user namespace gives."""
    libc.capset(struct.pack("=Ii", _CAPABILITIES_3, 0), bytes(24))


def _filter_calls(library: ctypes.CDLL, loopback: bool, calls: str = "") -> bool:
    """Allow _CALLS and `calls`, and some others with certain arguments; the rest fails with EPERM."""
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ERRNO | errno.EPERM)))
    if not context:
        return False

    def rule(action: int, name: str, *arguments: tuple[int, int, int, int]) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it does not exist on this architecture
            compared = (_Comparison * len(arguments))(*(_Comparison(*one) for one in arguments))
            library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(arguments), compared)

    try:
        for name in (*_CALLS.split(), *calls.split()):
            rule(_ALLOW, name)
        rule(_ALLOW, "clone", (0, _MASKED_EQUAL, _THREAD, _THREAD))
        rule(_ERRNO | errno.ENOSYS, "clone3")  # its flags cannot be read: glibc falls back to clone
        for name in ("mmap", "mprotect"):
            rule(_ALLOW, name, (2, _MASKED_EQUAL, _EXECUTABLE, 0))
        rule(_ALLOW, "tgkill", (0, _EQUAL, os.getpid(), 0))  # abort(3)
        rule(_ALLOW, "prctl", (0, _EQUAL, _SET_NAME, 0))  # libav names its threads
        if loopback:
            for name in _CONNECT_CALLS.split():
                rule(_ALLOW, name)
            for command in (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL):
                rule(_ALLOW, "fcntl", (1, _EQUAL, command, 0))
            internet = (0, _EQUAL, socket.AF_INET, 0)
            stream = (1, _MASKED_EQUAL, _TYPE_MASK, socket.SOCK_STREAM)
            for protocol in (0, socket.IPPROTO_TCP):
                rule(_ALLOW, "socket", internet, stream, (2, _EQUAL, protocol, 0))
        return bool(library.seccomp_load(context) == 0)
    finally:
        library.seccomp_release(context)


if __name__ == "__main__":
    print(" ".join(confine().layers))
