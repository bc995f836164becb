"""A service and a publisher behind routers of their own: network namespaces with NAT (iproute2, nftables).

    service 10.77.1.2 - (10.77.1.1) router (10.77.2.1) - 10.77.2.2 publisher
       |                 203.0.113.1
    10.77.3.2 - 10.77.3.1 this process

The router passes TCP of 203.0.113.1 at PORT, and UDP at PORTS, on to the service; to its own address neither
side can send. What the publisher sends comes from 10.77.1.1. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from load_tests.serve_process import Serve
from tests.builders.turn_server import coturn_command

SERVICE, PUBLIC, WATCHED, PUBLISHER = "10.77.1.2", "203.0.113.1", "10.77.3.2", "10.77.2.2"
PORT, PORTS = 8080, "50000-50007"
TURN_PORT = 3478
_RULES = f"""
table ip street {{
  chain before {{
    type nat hook prerouting priority dstnat;
    ip daddr {PUBLIC} tcp dport {PORT} dnat to {SERVICE};
    ip daddr {PUBLIC} udp dport {PORTS} dnat to {SERVICE};
  }}
  chain after {{
    type nat hook postrouting priority srcnat;
    ip saddr 10.77.2.0/24 masquerade;
  }}
  chain between {{
    type filter hook forward priority filter; policy drop;
    ct state established,related accept;
    ct status dnat accept;
  }}
}}
"""


def missing() -> str | None:
    """Why namespaces cannot be made here; None: they can."""
    if os.geteuid():
        return "network namespaces with NAT need root"
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("turnserver", "coturn")):
        if shutil.which(program) is None:
            return f"no {program}: install {package}"
    name = f"probe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return "network namespaces cannot be made here"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Street:
    """The three namespaces, by their names."""

    def __init__(self) -> None:
        mark = f"st{os.getpid() % 100_000}"
        self.service, self.router, self.publisher = f"{mark}s", f"{mark}r", f"{mark}p"
        self._here = f"{mark}h"  # the link of this process

    @property
    def names(self) -> tuple[str, str, str]:
        """All three."""
        return self.service, self.router, self.publisher

    def build(self) -> None:
        """Make them. Raises subprocess.CalledProcessError."""
        for name in self.names:
            _ip(f"netns add {name}")
            _ip(f"-n {name} link set lo up")
        self._join(self.service, f"{SERVICE}/24", self.router, "10.77.1.1/24")
        self._join(self.publisher, f"{PUBLISHER}/24", self.router, "10.77.2.1/24")
        _ip(f"link add {self._here} type veth peer name watched netns {self.service}")
        _ip(f"addr add 10.77.3.1/24 dev {self._here}")
        _ip(f"link set {self._here} up")
        _ip(f"-n {self.service} addr add {WATCHED}/24 dev watched")
        _ip(f"-n {self.service} link set watched up")
        _ip(f"-n {self.router} addr add {PUBLIC}/32 dev lo")
        _ip(f"-n {self.service} route add default via 10.77.1.1")
        _ip(f"-n {self.publisher} route add default via 10.77.2.1")
        inside = ["ip", "netns", "exec", self.router]
        subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)
        subprocess.run([*inside, "nft", "-f", "-"], input=_RULES.encode(), check=True)

    def _join(self, one: str, address: str, other: str, its: str) -> None:
        _ip(f"link add to{one} netns {other} type veth peer name out netns {one}")
        for name, device, given in ((one, "out", address), (other, f"to{one}", its)):
            _ip(f"-n {name} addr add {given} dev {device}")
            _ip(f"-n {name} link set {device} up")

    def remove(self) -> None:
        """Take them away again, with the links in them."""
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._here], capture_output=True, check=False)


def inside(name: str, *command: str) -> Sequence[str]:
    """A command within a namespace."""
    return "ip", "netns", "exec", name, *command


@contextlib.contextmanager
def street() -> Iterator[Street]:
    """The namespaces, while the context lasts."""
    made = Street()
    try:
        made.build()
        yield made
    finally:
        made.remove()


class ServeInside(Serve):
    """A server within a namespace, asked by this process at WATCHED."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Mapping[str, Any]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, settings)
        self.port = PORT
        self._within = inside(name)
        given = ("--host", "0.0.0.0", "--port", str(PORT), "--data-dir", str(self.data), "--log-json")
        self._arguments = ["serve", *given]

    @property
    def address(self) -> str:
        """Where this process reaches it."""
        return f"http://{WATCHED}:{PORT}"


@contextlib.contextmanager
def coturn(name: str, folder: Path, secret: str) -> Iterator[None]:
    """Debian's TURN server at PUBLIC within a namespace, with credentials of a secret."""
    command = inside(name, *coturn_command(folder, PUBLIC, TURN_PORT, secret))
    with (folder / "turn.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        time.sleep(1.0)
        yield
    finally:
        process.kill()
        process.wait()


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)
