"""Runtime adapters of models.

Loaded only inside a worker process, by dotted name (see streamsvc/workers/supervisor.py).

An engine module has one function, `load(options) -> Engine`. A payload is a flat dict of JSON values and
numpy arrays (bytes are sent as uint8 arrays). An op takes a batch, a list of payloads, and returns one result
for each, in order; a result may be an Exception, which fails only its request. A stream op takes one payload
and yields payloads.

An engine has no session state that cannot be rebuilt: a restarted worker loses time, never content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engines import telemetry

telemetry.switch_off()  # here, because this module is imported before any engine

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of an engine.

    `run`: the function on a batch. `threads`: how many batches run in parallel, on threads of this op.
    `batch`: the largest number of waiting requests in a batch.
    """

    run: Callable[[list[Payload]], list[Payload | Exception]]
    threads: int = 1
    batch: int = 1


@dataclass(frozen=True, slots=True)
class StreamOp:
    """An op that yields payloads; its generator is closed early on cancellation or at the deadline."""

    run: Callable[[Payload], Iterator[Payload]]
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Engine:
    """The ops of a loaded engine by name.

    `describe`: versions and models, for tests; of these "runtime", what computes, is logged. `probe`: an op
    and a payload for which it takes a few milliseconds, by which a supervisor sees that the engine still
    computes; None: nothing computes here.
    """

    ops: Mapping[str, Op | StreamOp]
    describe: Mapping[str, str] = field(default_factory=dict)
    probe: tuple[str, Payload] | None = None


def each(one: Callable[[Payload], Payload]) -> Callable[[list[Payload]], list[Payload | Exception]]:
    """Make a batch function of a function on one payload. An exception fails only its request."""

    def run(batch: list[Payload]) -> list[Payload | Exception]:
        results: list[Payload | Exception] = []
        for payload in batch:
            try:
                results.append(one(payload))
            except Exception as error:
                results.append(error)
        return results

    return run
