"""Roles: how the packages ask a model, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

Payload = dict[str, Any]


class Role(Protocol):
    """What a room sees of a model."""

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """Run one op.

        Args:
            op: name of the op.
            payload: JSON values and numpy arrays, flat.
            deadline_in_s: seconds from now until the result is of no use; work not started by then is not done.
            affinity: key that keeps a session's calls at one worker where there are several.

        Raises:
            DeadlineMissed: the deadline passed. WorkerError: the worker died or failed. CapacityError: its queue is full.
        """
        ...

    def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """Run one op that yields payloads as they come. Raises as `call` does; leaving the loop cancels the work."""
        ...
