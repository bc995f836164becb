"""Runtime adapters of models. Loaded only inside a worker process, by dotted name (see streamsvc/workers/supervisor.py).

An engine module has one function, `load(options) -> Engine`. A payload is a flat dict of JSON values and numpy arrays
(bytes cross as uint8 arrays). An op takes a list of payloads, the batch, and gives one result for each, in order; a
result may be an Exception, which fails that request alone. A stream op takes one payload and yields payloads.

An engine keeps no state of a session: what it holds can be rebuilt, and losing it costs time, never content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from engines import telemetry

telemetry.switch_off()  # here, because whatever loads an engine comes by this file first

Payload = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Op:
    """One thing an engine does.

    `run`: the function on a batch. `threads`: how many batches run at once, each op on threads of its own.
    `batch`: how many waiting requests one batch takes at most.
    """

    run: Callable[[list[Payload]], list[Payload | Exception]]
    threads: int = 1
    batch: int = 1


@dataclass(frozen=True, slots=True)
class StreamOp:
    """An op that yields payloads as they come; closed early when the asker goes away or the deadline passes."""

    run: Callable[[Payload], Iterator[Payload]]
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Engine:
    """The ops of one loaded engine by name; `describe` tells versions and models for `_build_info`."""

    ops: Mapping[str, Op | StreamOp]
    describe: Mapping[str, str] = field(default_factory=dict)


def each(one: Callable[[Payload], Payload]) -> Callable[[list[Payload]], list[Payload | Exception]]:
    """The batch function of a function on one payload: an error fails its own request alone."""

    def run(batch: list[Payload]) -> list[Payload | Exception]:
        results: list[Payload | Exception] = []
        for payload in batch:
            try:
                results.append(one(payload))
            except Exception as error:
                results.append(error)
        return results

    return run
