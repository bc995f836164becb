"""What a confined process cannot do, layer by layer: a stand-in for an exploited decoder."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from streamsvc.ingest import sandbox
from streamsvc.ingest.sandbox import LANDLOCK, NAMESPACE, SECCOMP, described, enough, examine

# argv: a layer or "all" or "none", a port of 127.0.0.1, a file, another process. Prints what was refused.
ATTACKER = """
import ctypes, fcntl, json, mmap, os, resource, socket, sys
from streamsvc.ingest import sandbox

layer, port, path, other = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
libc, refused = ctypes.CDLL(None, use_errno=True), set()
library = ctypes.CDLL("libseccomp.so.2") if layer == "seccomp" else None
libc.prctl(38, 1, 0, 0, 0)
"a".encode("idna")  # imported where it is first needed
listener = None
if layer in ("all", "loopback"):
    listener = sandbox.confine(loopback=layer == "loopback").listener
elif layer == "namespace":
    assert sandbox._leave_network(libc)
elif layer == "landlock":
    assert sandbox._leave_files(libc, 0)
elif layer == "port":
    listener = sandbox._listener()
    assert sandbox._leave_files(libc, listener.getsockname()[1])
elif layer == "seccomp":
    assert sandbox._filter_calls(library, False)
elif layer == "limits":
    sandbox._limit(64 << 20)

def attack(name, work):
    try:
        if work() == -1:
            raise OSError
    except (OSError, MemoryError, ValueError):
        refused.add(name)

attack("connect", lambda: socket.create_connection(("127.0.0.1", port), 2).close())
attack("read", lambda: open(path).close())
attack("write", lambda: os.write(os.open(path + ".new", os.O_CREAT | os.O_WRONLY), b"x"))
attack("remove", lambda: os.remove(path + ".new"))
attack("signal", lambda: os.kill(other, 0))
attack("signal to a thread", lambda: libc.tgkill(other, other, 0))
attack("trace", lambda: libc.ptrace(0x4206, other, 0, 0))
attack("fork", lambda: os.fork() or os._exit(0))
attack("datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attack("unshare", lambda: libc.unshare(0x20000))
attack("executable", lambda: mmap.mmap(-1, 4096, prot=7))
attack("memory", lambda: bytearray(3 << 30))
attack("core", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
attack("duplicate", lambda: fcntl.fcntl(0, fcntl.F_DUPFD, 3))
if listener is not None:
    attack("loopback", lambda: socket.socket().connect(listener.getsockname()))
print(json.dumps(sorted(refused)), flush=True)
try:
    os.execv("/bin/echo", ["echo", "executed"])
except OSError:
    print("refused")
"""


# Exit status 0: the kernel allows it. Not by our own code, whose faults would skip the test.
PROBES = {
    "namespace": "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x50000000))",
    "landlock": "import ctypes, sys; sys.exit(ctypes.CDLL(None).syscall(444, None, 0, 1) < 1)",
    "seccomp": "import ctypes; ctypes.CDLL('libseccomp.so.2')",
}


def allowed(layer: str) -> bool:
    probe = [sys.executable, "-c", PROBES[layer]]
    return subprocess.run(probe, check=False, stderr=subprocess.DEVNULL).returncode == 0


def skip_without(*layers: str) -> None:
    for layer in layers:
        if layer in PROBES and not allowed(layer):
            pytest.skip(f"the kernel or its container forbids {layer} here")


def test_what_the_kernel_allows_is_found() -> None:
    assert set(examine()) == {layer for layer in sandbox.LAYERS if allowed(layer)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is there."""
    (tmp_path / "a").write_text("secret")
    return tmp_path / "a"


async def attacked(layer: str, path: Path) -> tuple[set[str], bool]:
    """What was refused, and whether another program could be executed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            ATTACKER,
            layer,
            str(server.getsockname()[1]),
            str(path),
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await asyncio.wait_for(process.communicate(), 60)
    refused, _, executed = told.decode().partition("\n")
    return set(json.loads(refused)), "executed" in executed


@pytest.mark.parametrize(
    ("layer", "refused", "executes"),
    [
        ("namespace", {"connect"}, True),
        ("landlock", {"read", "write", "remove"}, False),
        (
            "seccomp",
            {
                "connect",
                "read",
                "write",
                "remove",
                "signal",
                "signal to a thread",
                "trace",
                "fork",
                "datagram",
                "unshare",
                "executable",
                "core",
            },
            False,
        ),
        ("limits", {"write", "memory"}, True),
    ],
)
async def test_each_layer_refuses_by_itself(
    path: Path, layer: str, refused: set[str], executes: bool
) -> None:
    skip_without(layer)
    found, executed = await attacked(layer, path)
    assert refused <= found
    assert executed is executes


async def test_without_a_layer_nothing_is_refused(path: Path) -> None:
    found, executed = await attacked("none", path)
    assert found & {"connect", "read", "write", "remove", "signal", "fork", "memory"} == set()
    assert executed


async def test_all_layers_together_refuse_everything(path: Path) -> None:
    skip_without("seccomp")
    found, executed = await attacked("all", path)
    assert found >= {"connect", "read", "write", "remove", "signal", "trace", "fork", "memory"}
    assert not executed


async def test_with_loopback_only_its_own_listener_is_reached(path: Path) -> None:
    skip_without("seccomp", "namespace")
    found, executed = await attacked("loopback", path)
    assert found >= {"connect", "datagram", "read", "fork", "signal", "duplicate"}
    assert "loopback" not in found
    assert not executed


async def test_where_the_kernel_can_it_connects_to_no_port_but_its_listeners(path: Path) -> None:
    if ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) < 4:
        pytest.skip("this kernel's Landlock knows no ports")
    found, _ = await attacked("port", path)
    assert "connect" in found
    assert "loopback" not in found


CONFINED = """
import sys, time
from streamsvc.ingest import sandbox
sandbox.confine()
print("confined", flush=True)
time.sleep(60)
"""
STARTER = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_a_confined_process_dies_with_the_one_that_started_it() -> None:
    """However busy it is: it would see the end of its sockets only once it reads."""
    starter = subprocess.Popen([sys.executable, "-c", STARTER, CONFINED], stdout=subprocess.PIPE)
    assert starter.stdout is not None
    with starter.stdout:
        confined = psutil.Process(int(starter.stdout.readline()))
    assert confined.is_running()
    starter.kill()
    starter.wait()
    end = time.monotonic() + 30
    while confined.is_running() and confined.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.02)


def test_it_gains_no_privileges_even_where_there_is_no_seccomp_to_say_so() -> None:
    code = """
import ctypes
from streamsvc.ingest import sandbox
sandbox._filter_calls = lambda *arguments: False
sandbox.confine()
print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode() == "1\n"


def test_of_tcp_sockets_only_plain_ones_are_allowed(path: Path) -> None:
    skip_without("seccomp")
    code = """
import ctypes, socket
from streamsvc.ingest import sandbox
library = ctypes.CDLL("libseccomp.so.2")
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
assert sandbox._filter_calls(library, True)
for protocol in (0, 6, 262):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    except PermissionError:
        print("refused", protocol)
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.decode() == "refused 262\n"


def test_what_is_enough_keeps_network_files_and_processes_away() -> None:
    assert enough([SECCOMP])
    assert not enough([NAMESPACE, LANDLOCK]), "a Unix socket that has a path could be connected to"
    assert not enough([])
    assert not enough([SECCOMP, LANDLOCK], loopback=True), "it could connect to whatever the machine reaches"
    assert enough([SECCOMP, NAMESPACE], loopback=True)


def test_what_is_missing_is_told() -> None:
    assert described([SECCOMP]) == "confined by seccomp; not to be had here: namespace, landlock"
    assert described(sandbox.LAYERS) == "confined by namespace, landlock, seccomp"
    assert described([]).startswith("confined by nothing")
