"""Our ICE candidates: of this machine's addresses, as others see them, and at TURN servers.

Uses private names of aioice as `aiortc_hooks` does, which checks its version.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from aioice import Candidate, ice, turn
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import Connection, StunProtocol, server_reflexive_candidate

from streamsvc.core.config import Ingest
from streamsvc.core.errors import CapacityError
from streamsvc.core.web_address import port_range

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Reach:
    """How publishers reach this machine.

    Args:
        ports: UDP ports for media; one serves a publisher. None: any that the system gives.
        advertise: addresses by which a router in front of this machine is known, which passes each port on
            unchanged. They are offered beside the machine's own.
        loopback: offer 127.0.0.1 too, which aioice never does: for tests and containers.
    """

    ports: range | None = None
    advertise: tuple[str, ...] = ()
    loopback: bool = False

    @classmethod
    def of(cls, settings: Ingest) -> Reach:
        """As the settings say."""
        ports = port_range(settings.udp_ports) if settings.udp_ports else None
        return cls(ports, settings.advertise, settings.loopback)


def gather_also(
    connection: Connection, reach: Reach, ask: Callable[[Connection], Awaitable[list[Candidate]]]
) -> None:
    """Gather within `reach`, and what `ask` finds once the host candidates are there.

    `connection` gathers from no server by itself. Gathering raises CapacityError: no port is free.
    """
    gather = connection.get_component_candidates

    async def get_component_candidates(component: int, addresses: list[str], timeout: int = 5) -> Any:
        addresses = [*addresses, LOOPBACK] if reach.loopback else addresses
        if reach.ports is None:
            hosts = await gather(component, addresses, timeout)
        else:
            hosts = await _bound(connection, component, addresses, reach.ports)
        return [*_advertised(hosts, reach.advertise), *hosts, *await ask(connection)]

    connection.get_component_candidates = get_component_candidates  # type: ignore[method-assign]


async def _bound(
    connection: Connection, component: int, addresses: Sequence[str], ports: range
) -> list[Candidate]:
    """Host candidates at one port of a range, the same for all addresses: a router passes it on to one.

    Raises:
        CapacityError: none is free.
    """
    first = random.randrange(len(ports))
    for port in [*ports[first:], *ports[:first]]:
        protocols: list[StunProtocol] = []
        try:
            for address in addresses:
                if (protocol := await _bind(connection, component, address, port)) is not None:
                    protocols.append(protocol)
        except OSError:  # taken at one address
            for protocol in protocols:
                protocol.transport.abort()
            continue
        if protocols:
            connection._protocols += protocols
            return [protocol.local_candidate for protocol in protocols]
    raise CapacityError(
        f"no UDP port of ingest.udp_ports ({ports[0]}-{ports[-1]}) is free for another publisher",
        code="no_udp_port",
    )


async def _bind(connection: Connection, component: int, address: str, port: int) -> StunProtocol | None:
    """A socket with its candidate; None: the address cannot be used. Raises OSError: the port is taken."""
    loop = asyncio.get_running_loop()
    try:
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: StunProtocol(connection), local_addr=(address, port)
        )
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
        return None
    opened = transport.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
    protocol.local_candidate = _host(component, address, port)
    return protocol


def _host(component: int, address: str, port: int) -> Candidate:
    return Candidate(
        foundation=candidate_foundation("host", "udp", address),
        component=component,
        transport="udp",
        priority=candidate_priority(component, "host"),
        host=address,
        port=port,
        type="host",
    )


def _advertised(hosts: Sequence[Candidate], addresses: Sequence[str]) -> list[Candidate]:
    """Addresses of a router in front of this machine, with the ports of the candidates that it reaches."""
    found: dict[tuple[str, int], Candidate] = {}
    for address in addresses:
        version = ipaddress.ip_address(address).version
        for host in hosts:
            own = ipaddress.ip_address(host.host)
            if own.version == version and not own.is_loopback and not own.is_link_local:
                found[address, host.port] = _host(host.component, address, host.port)
    return list(found.values())


def host_candidates(connection: Connection) -> list[Candidate]:
    """The host candidates gathered so far."""
    candidates = (protocol.local_candidate for protocol in connection._protocols)
    return [candidate for candidate in candidates if candidate.type == "host"]


def reflexive_queries(
    connection: Connection, server: tuple[str, int], skip_loopback: bool
) -> list[Coroutine[Any, Any, Candidate]]:
    """One query to a STUN server (an IPv4 address, a port) for each IPv4 host candidate."""

    async def query(protocol: StunProtocol) -> Candidate:
        candidate, _ = await server_reflexive_candidate(protocol, server)
        return candidate

    protocols = [protocol for protocol in connection._protocols if "." in protocol.local_candidate.host]
    return [
        query(protocol)
        for protocol in protocols
        if not (skip_loopback and protocol.local_candidate.host == LOOPBACK)
    ]


async def relayed_candidate(
    connection: Connection,
    server: tuple[str, int],
    transport: str,
    credentials: tuple[str, str] | None,
    tls: bool,
) -> Candidate:
    """Allocate at a TURN server; the connection's close frees it. `credentials`: user name and password.

    Raises:
        OSError, stun.TransactionError: the server refuses, or cannot be reached.
    """
    user, password = credentials or (None, None)
    candidate, protocol = await ice.relayed_candidate(
        component=1,
        hide_related_address=False,
        protocol_factory=lambda: StunProtocol(connection),
        turn_server=server,
        turn_username=user,
        turn_password=password,
        turn_ssl=tls,
        turn_transport=transport,
    )
    connection._protocols.append(protocol)
    return candidate
