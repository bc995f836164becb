"""STUN and TURN servers that add candidates to an answer; a dead one costs its candidates alone.

A publisher waits for the answer, so all servers together get `seconds`. One that fails (unknown name,
refusal, bad credentials, silence) is told in the log and in `streamsvc_ice_server_failures_total`, and is
left out for LEFT_OUT_SECONDS, so that the offers after it wait for nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aioice import Candidate
from aioice.ice import Connection
from aioice.stun import TransactionError, TransactionFailed

from streamsvc.core import clock, metrics
from streamsvc.core.config import Turn
from streamsvc.ingest import candidates
from streamsvc.ingest.turn_credentials import credentials

log = structlog.get_logger(__name__)

SECONDS = 1.0  # for all servers together; a server abroad needs 0.2 (STUN) to 0.7 (TURN over TLS)
LEFT_OUT_SECONDS = 60.0  # after a failure
GRACE_SECONDS = 0.1  # for the other addresses of a host, once one of them has been answered
_URL = re.compile(
    r"(stun|turns?):(\[[0-9a-fA-F:.]+\]|[^?:/@\s]+)(?::([0-9]{1,5}))?(?:\?transport=(udp|tcp))?"
)
_CREDENTIALS = (401, 403, 431, 437, 438, 441)  # STUN error codes (RFC 8489, RFC 8656)


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server. `transport`: "udp", "tcp" or "tls"; STUN is asked by UDP. `turn`: with its secret."""

    scheme: str  # "stun" or "turn"
    host: str
    port: int
    transport: str
    turn: Turn | None = None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.host}:{self.port}/{self.transport}"


class IceServers:
    """The ICE servers of a process, and which of them failed lately.

    Args:
        urls: as in RFC 7064 and RFC 7065; malformed ones are left out, which is logged.
        seconds: for all servers together, per offer.
        turn: servers that take credentials of their secret.
    """

    def __init__(self, urls: Sequence[str], seconds: float = SECONDS, turn: Turn | None = None) -> None:
        self._seconds = seconds
        turn = turn or Turn()
        self._left_out: dict[IceServer, float] = {}  # until then, monotonic seconds
        self._servers: list[IceServer] = []
        for url, shared in [*((url, None) for url in urls), *((url, turn) for url in turn.urls)]:
            server = parse(url)
            if server is None:
                log.warning("ice_server.malformed", scheme=url.partition(":")[0][:8], reason="url")
            else:
                self._servers.append(replace(server, turn=shared))

    async def gather(self, connection: Connection) -> list[Candidate]:
        """Candidates of the servers that answer in time; never raises for a server's sake.

        Args:
            connection: its host candidates are gathered already.
        """
        now = clock.now()
        servers = [server for server in self._servers if self._left_out.get(server, 0.0) <= now]
        # One relay is enough; the next server takes over while the first is left out.
        relays = [server for server in servers if server.scheme == "turn"][:1]
        asked = {
            asyncio.ensure_future(_ask(connection, server)): server
            for server in servers
            if server.scheme == "stun" or server in relays
        }
        if not asked:
            return []
        try:
            await asyncio.wait(asked, timeout=self._seconds)
        finally:
            late = [task for task in asked if task.cancel()]
            await asyncio.gather(*late, return_exceptions=True)
        found: list[Candidate] = []
        for task, server in asked.items():
            error = TimeoutError() if task.cancelled() else task.exception()
            if error is None:
                found += task.result()
            else:
                self._note_failure(server, error)
        return found

    def _note_failure(self, server: IceServer, error: BaseException) -> None:
        reason = _reason(error)
        self._left_out[server] = clock.now() + LEFT_OUT_SECONDS
        metrics.ice_server_failures.labels(reason).inc()
        log.warning(
            "ice_server.failed",
            server=str(server),
            reason=reason,
            error=type(error).__name__,
            left_out_s=LEFT_OUT_SECONDS,
        )


def parse(url: str) -> IceServer | None:
    """The server that a URL names; None if it is malformed or a kind that is not supported (stuns)."""
    match = _URL.fullmatch(url.strip())
    if match is None:
        return None
    scheme, host, port, transport = match.groups()
    if scheme == "stun" and transport is not None:
        return None
    if scheme == "turns":
        return None if transport == "udp" else IceServer("turn", host.strip("[]"), int(port or 5349), "tls")
    return IceServer(scheme, host.strip("[]"), int(port or 3478), transport or "udp")


def _reason(error: BaseException) -> str:
    """Why a server gave no candidate: a label of the metric."""
    if isinstance(error, socket.gaierror):
        return "name"
    if isinstance(error, TransactionFailed):
        return "credentials" if error.response.error_code in _CREDENTIALS else "refused"
    if isinstance(error, TimeoutError | TransactionError):
        return "silent"
    return "refused" if isinstance(error, OSError) else "failed"


async def _ask(connection: Connection, server: IceServer) -> list[Candidate]:
    if server.scheme == "turn":
        tls = server.transport == "tls"
        relay = await candidates.relayed_candidate(
            connection,
            (server.host, server.port),
            "tcp" if tls else server.transport,
            None if server.turn is None else credentials(server.turn, "streamsvc"),
            tls=tls,
        )
        return [relay]
    places: list[tuple[Any, ...]] = await asyncio.get_running_loop().getaddrinfo(
        server.host, server.port, family=socket.AF_INET, type=socket.SOCK_DGRAM
    )
    address = (str(places[0][4][0]), server.port)
    # Nothing comes back to 127.0.0.1 from outside; waiting for it would cost the whole time limit.
    outside = not ipaddress.ip_address(address[0]).is_loopback
    queries = {
        asyncio.ensure_future(query)
        for query in candidates.reflexive_queries(connection, address, skip_loopback=outside)
    }
    if not queries:
        return []
    try:
        waiting = queries
        while waiting and not any(_succeeded(query) for query in queries):
            _, waiting = await asyncio.wait(queries, return_when=asyncio.FIRST_COMPLETED)
        if waiting:
            await asyncio.wait(waiting, timeout=GRACE_SECONDS)
    finally:
        late = [query for query in queries if query.cancel()]
        await asyncio.gather(*late, return_exceptions=True)
    answers = [query.result() for query in queries if _succeeded(query)]
    if not answers:
        raise next(error for query in queries if (error := query.exception()) is not None)
    hosts = {(candidate.host, candidate.port) for candidate in candidates.host_candidates(connection)}
    return [answer for answer in answers if (answer.host, answer.port) not in hosts]


def _succeeded(query: asyncio.Future[Candidate]) -> bool:
    return query.done() and not query.cancelled() and query.exception() is None
