"""Places: how many sessions may have a publisher at once, and how many may wait for their first one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from streamsvc.core import metrics
from streamsvc.core.config import Limits
from streamsvc.core.errors import CapacityError
from streamsvc.service.auth import LOCAL, OWNER, root_of
from streamsvc.service.capacity import Kind, Room
from streamsvc.service.media_input import State
from streamsvc.service.session import Session

_UNBOUNDED = ("", OWNER, LOCAL)  # roots of holders that may have all


class Admission(Protocol):
    """What of the load controller decides on one more session."""

    def admit(self, kind: Kind, coming: Iterable[Kind]) -> None:
        """Raise CapacityError where the load allows no further session beside those that are coming."""
        ...

    def room(self, coming: Iterable[Kind]) -> Room:
        """How many sessions more the load allows."""
        ...


class Places:
    """Counts the places of a service. A session takes one with its publisher, and gives it back at its end.

    Also where its publisher leaves before any frame: then it waits for its first one again.

    Args:
        limits: how many there are.
        by_id: all sessions in memory.
        admission: by load.
    """

    def __init__(self, limits: Limits, by_id: Mapping[str, Session], admission: Admission) -> None:
        self._limits = limits
        self._by_id = by_id
        self._admission = admission
        # Publishers that are being answered, and sources that are being opened: their holders and kinds.
        self._coming: list[tuple[str, Kind]] = []

    @property
    def taken(self) -> int:
        """How many sessions hold a place."""
        return len(self._holders())

    def _holders(self) -> list[str]:
        return [session.holder for session in self._by_id.values() if holds(session)]

    def room(self) -> Room:
        """How many sessions more get a place, by kind, whoever asks; `bound_by` "limit": of the settings."""
        left = max(0, self._limits.sessions - self.taken - len(self._coming))
        found = self._admission.room([kind for _, kind in self._coming])
        if left > max(found.free.values()):
            return found
        return Room({kind: min(left, count) for kind, count in found.free.items()}, "limit")

    @contextlib.contextmanager
    def held(self, holder: str, kind: Kind = "audio_video") -> Iterator[None]:
        """Hold a place until a publisher is attached, at most until the block is left.

        `holder`: of the token that the session is made with. Raises CapacityError.
        """
        holders = [*self._holders(), *(one for one, _ in self._coming)]
        check_share(holder, holders, self._limits.sessions_per_token)
        taken = len(holders)
        if taken >= self._limits.sessions:
            metrics.sessions_rejected.labels("capacity").inc()
            raise CapacityError(f"{taken} of {self._limits.sessions} sessions are live; try again later")
        self._admission.admit(kind, [one for _, one in self._coming])
        self._coming.append((holder, kind))
        try:
            yield
        finally:
            self._coming.remove((holder, kind))

    def admit_waiting(self, holder: str, *, publishes: bool = False) -> None:
        """Raise CapacityError where no further session may wait for a publisher.

        Args:
            holder: of the token that asks for it; its share is smaller than what all have together.
            publishes: its publisher is there: it holds a place, and those who wait do not keep it out.
        """
        holders = [session.holder for session in self._by_id.values() if session.state is State.CREATED]
        root, most = root_of(holder), self._limits.unpublished_per_holder
        crowded = root not in _UNBOUNDED and [root_of(one) for one in holders].count(root) >= most
        if crowded or (not publishes and len(holders) >= self._limits.unpublished):
            metrics.sessions_rejected.labels("unpublished").inc()
            raise CapacityError(
                "too many sessions wait for a publisher: publish to one, delete one, or try again later",
                code="too_many_unpublished",
            )


def check_share(holder: str, holders: Iterable[str], most: int) -> None:
    """Raise CapacityError where a token, with those made with it, has `most` of something already.

    The API key and an open server may have all.
    """
    root = root_of(holder)
    if root not in _UNBOUNDED and sum(root_of(one) == root for one in holders) >= most:
        metrics.sessions_rejected.labels("token_share").inc()
        raise CapacityError(
            f"this token, with those made with it, has {most} at once already", code="too_many_of_token"
        )


def holds(session: Session) -> bool:
    """Whether a session holds a place."""
    return session.state not in (State.CREATED, State.ENDED)
