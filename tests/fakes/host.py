"""A session that only records what its parts hand to it, and a context around it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from streamsvc.core import config
from streamsvc.core.context import DegradationState, Roles, SessionContext
from streamsvc.core.options import SessionOptions
from streamsvc.core.session_clock import SessionClock
from streamsvc.core.types import Event
from streamsvc.core.units import Unit
from tests.builders.session import Models

T = TypeVar("T")


@dataclass
class RecordingHost:
    """A `SessionHost`: what it was handed, in order.

    Each unit gets an event "e.1", "e.2", ... with an empty body.
    """

    live_video: bool = False
    units: list[Unit] = field(default_factory=list)
    frames: list[tuple[float, bytes]] = field(default_factory=list)
    keyframe_requests: int = 0

    def dispatch(self, unit: Unit) -> Event | None:
        self.units.append(unit)
        return Event("s", "main", "e", f"e.{len(self.units)}", "test", 0.0, 0.0, {}, {}, len(self.units))

    async def store_frame(self, at: float, jpeg: bytes) -> None:
        self.frames.append((at, jpeg))

    def request_keyframe(self) -> None:
        self.keyframe_requests += 1

    def of(self, kind: type[T]) -> list[T]:
        """The units of one kind, in order."""
        return [unit for unit in self.units if isinstance(unit, kind)]


def context(
    host: Any = None,
    *,
    roles: Roles | None = None,
    options: SessionOptions | None = None,
    settings: config.Settings | None = None,
) -> SessionContext:
    """A context of session "s". `host`: a RecordingHost where none is given."""
    settings = settings or config.load(None)
    options = options or SessionOptions()
    return SessionContext(
        "s",
        settings,
        options,
        roles or Models().roles(),
        SessionClock(),
        DegradationState(),
        ThreadPoolExecutor(1),  # it starts no thread before the first submit
        host if host is not None else RecordingHost(),
    )
