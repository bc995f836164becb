"""Ports that nothing uses."""

from __future__ import annotations

import random
import socket


def free_udp_ports(count: int) -> range:
    """So many ports in a row that nothing uses at this moment, at any address."""
    while True:
        first = random.randrange(20_000, 60_000)
        try:
            for port in range(first, first + count):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                    probe.bind(("0.0.0.0", port))
        except OSError:
            continue
        return range(first, first + count)


def free_tcp_port() -> int:
    """A TCP port that nothing uses at this moment on 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
