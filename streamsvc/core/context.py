"""The frozen context that the parts of one session share, and the session as they see it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from streamsvc.core.config import Settings
from streamsvc.core.degradation import CostTracker, Fidelity, fidelity
from streamsvc.core.idle_gate import IdleGate
from streamsvc.core.options import SessionOptions
from streamsvc.core.roles import Role
from streamsvc.core.session_clock import SessionClock
from streamsvc.core.spans import SpanSink
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.types import Event
from streamsvc.core.units import Unit


@dataclass(frozen=True, slots=True)
class Roles:
    """The models of a service, and what all its sessions share of them.

    `embed` None: search goes by words alone. `vlm`: can be shown pictures: `think`, or a model of its own.
    `reads`: `think` can answer from lines. `idle`: admits background work.
    `cost_tracker`: what the models' work has cost so far.
    """

    hear: Role
    see: Role
    think: Role
    embed: Role | None = None
    vlm: Role | None = None
    reads: bool = False
    idle: IdleGate = field(default_factory=IdleGate)
    cost_tracker: CostTracker = field(default_factory=CostTracker)

    @property
    def sight(self) -> Role | None:
        """The model that sees, where that is another than `think`."""
        return self.vlm if self.vlm is not self.think else None

    def through(self, wrap: Callable[[str, Role], Role]) -> Roles:
        """The same with each role, given with its name, as `wrap` returns it."""
        think = wrap("think", self.think)
        return replace(
            self,
            hear=wrap("hear", self.hear),
            see=wrap("see", self.see),
            think=think,
            embed=wrap("embed", self.embed) if self.embed is not None else None,
            vlm=wrap("sight", self.sight) if self.sight is not None else think if self.vlm else None,
        )


class SessionHost(Protocol):
    """The session, as its parts see it."""

    @property
    def live_video(self) -> bool:
        """Whether pictures of the present come in, at the speed of time."""
        ...

    def dispatch(self, unit: Unit) -> Event | None:
        """Hand a unit to everything that uses it. Returns the published event; None: none was."""
        ...

    async def store_frame(self, at: float, jpeg: bytes) -> None:
        """Keep the thumbnail of session second `at`.

        A failed write is reported as an event and never raised.
        """
        ...

    def request_keyframe(self) -> None:
        """Ask the publisher's encoder for a codec keyframe, where it can be asked."""
        ...


class DegradationState:
    """The degradation level that one session is at, read by its parts whenever they spend something."""

    def __init__(self) -> None:
        self.level = 0
        self.reason = ""  # empty at level 0
        self.fidelity = Fidelity()

    def apply(self, level: int, reason: str) -> bool:
        """Go to `level`. Idempotent; returns whether the level has changed."""
        if level == self.level:
            return False
        self.level = level
        self.reason = reason
        self.fidelity = fidelity(level)
        return True


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What the parts of one session share.

    `session`: its id. `options`: with the service's defaults filled in. `media`: the threads that decode, of
    all sessions. `tape`: what is recorded of the session, or replayed. `spans`: where its traces go.
    """

    session: str
    settings: Settings
    options: SessionOptions
    roles: Roles
    clock: SessionClock
    degradation: DegradationState
    media: ThreadPoolExecutor
    host: SessionHost
    tape: Tape = LIVE
    spans: SpanSink | None = None
