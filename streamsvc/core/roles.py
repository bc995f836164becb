"""Role: the interface through which packages call a model, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

Payload = dict[str, Any]  # JSON values and numpy arrays, flat


class Role(Protocol):
    """One model role ("hear", "see", "think", "embed") and its ops."""

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """Run one op.

        Args:
            op: name of the op.
            payload: JSON values and numpy arrays, flat.
            deadline_in_s: seconds from now until the result is useless; work not started by then is not
                started.
            affinity: key that routes a session's calls to the same worker where there are several.

        Raises:
            DeadlineMissed: the deadline passed. WorkerError: the worker died or failed. CapacityError: its
                queue is full.
        """
        ...

    def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """Run one op that yields payloads. Raises as `call` does; leaving the loop cancels the work."""
        ...


class RoleAround:
    """A role that passes calls on to another; `inner`."""

    def __init__(self, inner: Role) -> None:
        self.inner = inner


def innermost(role: Role) -> Role:
    """The role within all those around it: what was learned of a model by one holds for all."""
    while isinstance(role, RoleAround):
        role = role.inner
    return role
