"""Role: the interface through which packages call a model, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from streamsvc.core.degradation import CostTracker
from streamsvc.core.idle_gate import IdleGate

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


@dataclass(frozen=True, slots=True)
class Roles:
    """The models of a service, and what all its sessions share of them.

    `embed` None: search goes by words alone. `vlm`: `think`, where that model can be shown pictures. `idle`: admits background work.
    `costs`: what the models' work has cost so far.
    """

    hear: Role
    see: Role
    think: Role
    embed: Role | None = None
    vlm: Role | None = None
    idle: IdleGate = field(default_factory=IdleGate, init=False)
    costs: CostTracker = field(default_factory=CostTracker, init=False)
