"""Lanes batch what waits, start nothing that is cancelled or late, and refuse what does not fit."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import pytest

from engines import Engine, Op, Payload, StreamOp, each
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.workers import lanes
from streamsvc.workers.lanes import Engines, Lane, Request, WorkMeter


class Told:
    """What became of requests: (what, number of the request, detail), in order."""

    def __init__(self) -> None:
        self.queue: queue.Queue[tuple[str, int, object]] = queue.Queue()

    def result(self, request: Request, payload: Payload, batch: int) -> None:
        self.queue.put(("result", request.number, batch))

    def item(self, request: Request, payload: Payload) -> None:
        self.queue.put(("item", request.number, payload["n"]))

    def end(self, request: Request) -> None:
        self.queue.put(("end", request.number, None))

    def fail(self, request: Request, error: BaseException) -> None:
        self.queue.put(("fail", request.number, type(error)))

    def forget(self, request: Request) -> None:
        self.queue.put(("forget", request.number, None))

    def next(self) -> tuple[str, int, object]:
        return self.queue.get(timeout=10)


@contextlib.contextmanager
def engines_of(engine: Engine) -> Iterator[Engines]:
    meter = WorkMeter()
    made = {("test", name): Lane("test", op, meter) for name, op in engine.ops.items()}
    engines = Engines(made, {"test": engine.probe}, {}, meter)
    try:
        yield engines
    finally:
        engines.close()


def gated(started: threading.Event, gate: threading.Event, batch: int = 1) -> Engine:
    """An engine whose op waits for a gate."""

    def run(payloads: list[Payload]) -> list[Payload | Exception]:
        started.set()
        gate.wait(10)
        return [*payloads]

    return Engine({"wait": Op(run, batch=batch)})


def asked(told: Told, number: int, seconds: float = 10.0, payload: Payload | None = None) -> Request:
    return Request(told, number, "test", time.monotonic() + seconds, payload or {})


def test_what_waits_is_run_as_one_batch_without_what_was_cancelled_or_is_late() -> None:
    told, started, gate = Told(), threading.Event(), threading.Event()
    with engines_of(gated(started, gate, batch=8)) as engines:
        engines.submit("wait", asked(told, 1))
        started.wait(10)
        cancelled, late = asked(told, 3), asked(told, 4, seconds=-1.0)
        for request in (asked(told, 2), cancelled, late, asked(told, 5)):
            engines.submit("wait", request)
        cancelled.cancelled = True
        gate.set()
        assert [told.next() for _ in range(5)] == [
            ("result", 1, 1),
            ("forget", 3, None),
            ("fail", 4, DeadlineMissed),
            ("result", 2, 2),
            ("result", 5, 2),
        ]


def test_a_full_lane_and_an_unknown_op_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "QUEUED", 2)
    told, started, gate = Told(), threading.Event(), threading.Event()
    with engines_of(gated(started, gate)) as engines:
        engines.submit("wait", asked(told, 1))
        started.wait(10)
        for number in (2, 3):
            engines.submit("wait", asked(told, number))
        with pytest.raises(CapacityError, match=r"2 requests are queued for test\.wait"):
            engines.submit("wait", asked(told, 4))
        with pytest.raises(WorkerError, match=r"no op test\.fly"):
            engines.submit("fly", asked(told, 5))
        assert engines.busy_seconds > 0
        gate.set()
        assert {told.next() for _ in range(3)} == {("result", number, 1) for number in (1, 2, 3)}
        assert engines.busy_seconds == 0


def test_an_exception_fails_only_its_request() -> None:
    def one(payload: Payload) -> Payload:
        if payload.get("fails"):
            raise ValueError("a secret")
        return {}

    told = Told()
    with engines_of(Engine({"one": Op(each(one))})) as engines:
        engines.submit("one", asked(told, 1, payload={"fails": True}))
        engines.submit("one", asked(told, 2))
        assert [told.next(), told.next()] == [("fail", 1, ValueError), ("result", 2, 1)]


def test_a_stream_is_closed_when_it_is_cancelled_or_late() -> None:
    closed: queue.Queue[str] = queue.Queue()
    told = Told()

    def count(payload: Payload) -> Iterator[Payload]:
        try:
            for number in range(1_000_000):
                time.sleep(0.005)
                yield {"n": number}
        finally:
            closed.put("closed")

    with engines_of(Engine({"count": StreamOp(count)})) as engines:
        request = asked(told, 1)
        engines.submit("count", request)
        assert told.next() == ("item", 1, 0)
        request.cancelled = True
        assert closed.get(timeout=10) == "closed"
        engines.submit("count", asked(told, 2, seconds=0.05))
        assert closed.get(timeout=10) == "closed"
    while (last := told.next())[1:] != (2, DeadlineMissed):
        assert last[0] in ("item", "end")


def test_idle_work_counts_only_where_other_work_runs_beside_it() -> None:
    cpu = [1.0]  # loading the models
    meter = WorkMeter(lambda: cpu[0])
    with meter.run(idle=True):
        cpu[0] += 10.0
        with meter.run(idle=False):
            cpu[0] += 2.0
        cpu[0] += 10.0
    assert meter.seconds == 3.0
    with meter.run(idle=False):
        cpu[0] += 4.0
        assert meter.seconds == 7.0, "while it runs too"
    with meter.run(idle=True):
        cpu[0] += 10.0
        assert meter.seconds == 7.0
