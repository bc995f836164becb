"""Whether Redis answers, as all sessions of a node see it, and what they share to write to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from streamsvc.cluster.registry import Registry
from streamsvc.cluster.shared_log import SharedLog
from streamsvc.core import metrics

log = structlog.get_logger()


class Behind(Protocol):
    """A session of which Redis lacks something."""

    async def catch_up(self) -> None:
        """Copy it. Raises ClusterUnavailable."""
        ...

    async def abandon(self) -> None:
        """Copy nothing more."""
        ...


@dataclass
class Contact:
    """The state of Redis.

    `fenced`: hears of a session that another node owns now. `behind`: what has something to copy, by
    session. `work`: set where something can be copied.
    """

    fenced: Callable[[str], None]
    up: bool = True
    behind: dict[str, Behind] = field(default_factory=dict)
    work: asyncio.Event = field(default_factory=asyncio.Event)

    def lost(self) -> None:
        """Note that Redis does not answer."""
        if self.up:
            self.up = False
            metrics.cluster_redis_up.set(0)
            log.error("Redis does not answer: failover is off, events are stored at this node alone")

    def found(self) -> None:
        """Note that Redis answers."""
        if not self.up:
            log.info("Redis answers again", sessions_behind=len(self.behind))
        self.up = True
        metrics.cluster_redis_up.set(1)
        if self.behind:
            self.work.set()

    def fell_behind(self, session: str, copy: Behind) -> None:
        """Note that Redis lacks something of a session."""
        self.behind[session] = copy
        if self.up:
            self.work.set()

    def caught_up(self, session: str, copy: Behind) -> None:
        """Note that Redis lacks nothing of a session, or gets nothing more of it, by this copy."""
        if self.behind.get(session) is copy:
            del self.behind[session]


@dataclass(frozen=True, slots=True)
class CopyTools:
    """What all copies of a node share. `spawn`: runs a coroutine as a task. `seconds`: that a write waits."""

    registry: Registry
    log: SharedLog
    contact: Contact
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    seconds: float
