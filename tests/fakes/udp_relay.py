"""A UDP relay between a publisher and the service that loses, delays and reorders datagrams, by a seed.

The publisher is given the relay's address instead of the service's (`through`), and the service none of the
publisher's (`without_candidates`), so that all datagrams of both come this way.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

from streamsvc.core import clock

Address = tuple[str, int]
_CANDIDATE = re.compile(r"^a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) typ host.*$", re.MULTILINE)
_CANDIDATES = re.compile(r"^a=(?:candidate:.*|end-of-candidates)\r?\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Link:
    """What happens to datagrams in one direction.

    loss: share of them. delay, jitter: seconds; to the delay comes a random part of the jitter, so that some
    overtake others unless the link is `ordered`. rate: bytes a second, in bursts of `burst` bytes; None: as
    fast as they come. queue: seconds that a datagram waits for its turn at most; else it is dropped.
    """

    loss: float = 0.0
    delay: float = 0.0
    jitter: float = 0.0
    ordered: bool = False
    rate: float | None = None
    burst: int = 16_000
    queue: float = 0.5


class LinkState:
    """One direction of a link. No I/O: datagrams come with the time."""

    def __init__(self, link: Link, seed: int) -> None:
        self.link = link
        self.counts: Counter[str] = Counter()  # sent, lost, dropped (the queue was full)
        self._random = random.Random(seed)
        self._last = float("-inf")  # when the last datagram arrives
        self._tokens = float(link.burst)
        self._counted_at: float | None = None

    def arrival(self, now: float, size: int) -> float | None:
        """When a datagram sent now arrives; None: it does not."""
        self.counts["sent"] += 1
        if self._random.random() < self.link.loss:
            self.counts["lost"] += 1
            return None
        wait = self._wait(now, size)
        if wait > self.link.queue:
            self.counts["dropped"] += 1
            return None
        at = now + wait + self.link.delay + self._random.uniform(0.0, self.link.jitter)
        if self.link.ordered:
            at = max(at, self._last)
        self._last = max(self._last, at)
        return at

    def _wait(self, now: float, size: int) -> float:
        """Seconds until the bucket has the tokens of a datagram, which are taken unless that is too long."""
        rate = self.link.rate
        if rate is None:
            return 0.0
        passed = 0.0 if self._counted_at is None else now - self._counted_at
        self._counted_at = now
        self._tokens = min(float(self.link.burst), self._tokens + passed * rate)
        wait = max(0.0, (size - self._tokens) / rate)
        if wait <= self.link.queue:
            self._tokens -= size
        return wait


class UdpRelay:
    """A relay to one address: `async with UdpRelay(target, link, seed) as relay`.

    Args:
        target: where the service listens.
        link: of each direction.
        seed: of both.
    """

    def __init__(self, target: Address, link: Link, seed: int = 0) -> None:
        self.up, self.down = LinkState(link, seed), LinkState(link, seed + 1)
        self.port = 0
        self._target = target
        self._publishers: dict[Address, asyncio.DatagramTransport] = {}
        self._opening: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._front, _ = await self._loop.create_datagram_endpoint(
            lambda: _Receiver(self._from_publisher), local_addr=("127.0.0.1", 0)
        )
        self.port = self._front.get_extra_info("sockname")[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.gather(*self._opening)
        for transport in (self._front, *self._publishers.values()):
            transport.abort()

    def _from_publisher(self, data: bytes, address: Address) -> None:
        if (transport := self._publishers.get(address)) is not None:
            self._later(self.up, transport, data, self._target)
            return
        task = asyncio.create_task(self._open(data, address))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, data: bytes, address: Address) -> None:
        """Give a publisher an address of its own towards the service."""
        transport, _ = await self._loop.create_datagram_endpoint(
            lambda: _Receiver(lambda reply, _: self._later(self.down, self._front, reply, address)),
            local_addr=("127.0.0.1", 0),
        )
        if address in self._publishers:  # it was opened meanwhile
            transport.abort()
        self._later(self.up, self._publishers.setdefault(address, transport), data, self._target)

    def _later(
        self, state: LinkState, transport: asyncio.DatagramTransport, data: bytes, to: Address
    ) -> None:
        at = state.arrival(clock.now(), len(data))
        if at is not None:
            self._loop.call_later(max(0.0, at - clock.now()), _sent, transport, data, to)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, take: Any) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Pass it on."""
        self._take(data, addr)


def _sent(transport: asyncio.DatagramTransport, data: bytes, to: Address) -> None:
    if not transport.is_closing():
        transport.sendto(data, to)


def service_address(answer: str) -> Address:
    """Where the service listens, by its SDP answer, which must have a loopback candidate."""
    found = _CANDIDATE.search(answer)
    assert found is not None, "the answer has no candidate of 127.0.0.1"
    return "127.0.0.1", int(found[1])


def through(answer: str, port: int) -> str:
    """An SDP answer with the relay at `port` as the only candidate."""
    line = f"a=candidate:1 1 udp 2130706431 127.0.0.1 {port} typ host\r\n"
    bare = without_candidates(answer)
    return re.sub(r"^(a=ice-pwd:.*\r?\n)", lambda found: found[1] + line, bare, count=1, flags=re.MULTILINE)


def without_candidates(sdp: str) -> str:
    """An SDP without candidates."""
    return _CANDIDATES.sub("", sdp)
