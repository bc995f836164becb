"""The bridge sends again what had not begun, cancels what is not wanted, tells when no replica answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import WorkerError
from streamsvc.workers import ray_bridge
from streamsvc.workers.framing import PREFIX, pack, sizes, unpack
from streamsvc.workers.ray_bridge import Answers, Bridge
from streamsvc.workers.ray_deployment import ReplicaLost
from tests.fakes.ray_replicas import STATE, FakeReplicas


class Parent:
    """The other end of a bridge: sends frames and reads what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(
        self,
        kind: str,
        number: int,
        op: str = "",
        payload: dict[str, Any] | None = None,
        seconds: float = 5.0,
    ) -> None:
        header = {"id": number, "kind": kind, "role": "test", "op": op, "deadline_in_s": seconds}
        self.writer.write(pack(header, payload or {}))

    async def next(self) -> tuple[dict[str, Any], dict[str, Any]]:
        async with asyncio.timeout(5):
            head, blob = sizes(await self._reader.readexactly(PREFIX.size))
            return unpack(await self._reader.readexactly(head), await self._reader.readexactly(blob))


@contextlib.asynccontextmanager
async def bridged(models: FakeReplicas, folder: Path) -> AsyncIterator[tuple[Parent, Answers]]:
    answers, ended = Answers(models), asyncio.Event()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Bridge(models, answers, writer).run(reader)
        ended.set()

    async with await asyncio.start_unix_server(connected, folder / "a.sock"):
        parent = Parent(*await asyncio.open_unix_connection(folder / "a.sock"))
        try:
            yield parent, answers
        finally:
            parent.writer.close()
            await asyncio.wait_for(ended.wait(), 5)


async def test_a_call_whose_replica_died_is_sent_once_more_and_no_third_time(tmp_path: Path) -> None:
    models = FakeReplicas()
    async with bridged(models, tmp_path) as (parent, answers):
        parent.send("call", 1, "echo", {"dies": 1})
        header, payload = await parent.next()
        assert (header["kind"], header["batch"], payload["sent"]) == ("result", 3, 2)
        assert payload["deadline_in_s"] < 5.0, "what is left of it"
        assert not answers.away()
        parent.send("call", 2, "other", {"dies": 9})
        header, _ = await parent.next()
        assert header["error"] == {"class": "WorkerError", "message": "a replica of test died"}
        assert models.sent["other"] == ray_bridge.SENT == 2
        assert answers.away()
        parent.send("ping", 0)
        assert (await parent.next())[1]["away"] is True


async def test_a_stream_is_sent_again_only_where_nothing_of_it_was_told(tmp_path: Path) -> None:
    models = FakeReplicas()
    async with bridged(models, tmp_path) as (parent, answers):
        parent.send("stream", 1, "empty", {"to": 0, "dies": 1})
        assert (await parent.next())[0]["kind"] == "end"
        assert models.sent["empty"] == 2
        parent.send("stream", 2, "begun", {"to": 2, "dies": 1})
        told = [await parent.next() for _ in range(3)]
        assert [payload["n"] for _, payload in told[:2]] == [0, 1]
        assert told[2][0]["error"] == {"class": "WorkerError", "message": "a replica of test died"}
        assert models.sent["begun"] == 1
        assert answers.away()


async def test_what_is_late_is_told_and_cancelled_at_its_replica(tmp_path: Path) -> None:
    models = FakeReplicas()
    async with bridged(models, tmp_path) as (parent, _):
        parent.send("call", 1, "sleep", {"seconds": 30}, seconds=0.1)
        header, _ = await parent.next()
        assert header["error"]["class"] == "DeadlineMissed"
        assert models.cancelled == ["sleep"]


@pytest.mark.parametrize("kind", ["call", "stream"])
async def test_a_cancelled_request_is_cancelled_at_its_replica(kind: str, tmp_path: Path) -> None:
    models = FakeReplicas()
    async with bridged(models, tmp_path) as (parent, _):
        parent.send(kind, 1, "sleep", {"seconds": 30, "to": 2, "pause": 30})
        await asyncio.sleep(0.1)
        parent.send("cancel", 1)
        parent.send("call", 2, "echo")
        while (await parent.next())[0]["id"] != 2:  # items that had been told
            pass
        assert models.cancelled == ["sleep"]


async def test_what_is_on_its_way_when_the_parent_closes_is_cancelled(tmp_path: Path) -> None:
    models = FakeReplicas()
    async with bridged(models, tmp_path) as (parent, _):
        parent.send("call", 1, "sleep", {"seconds": 30}, seconds=60.0)
        await asyncio.sleep(0.1)
    assert models.cancelled == ["sleep"]


async def test_more_requests_than_it_carries_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_bridge, "CARRIED", 2)
    async with bridged(FakeReplicas(), tmp_path) as (parent, _):
        for number in (1, 2, 3):
            parent.send("call", number, "sleep", {"seconds": 0.2})
        header, _ = await parent.next()
        assert (header["id"], header["error"]["class"]) == (3, "CapacityError")
        assert {(await parent.next())[0]["id"] for _ in range(2)} == {1, 2}


async def test_a_probe_computes_only_where_the_replica_has_no_result_of_its_own_lately(
    tmp_path: Path,
) -> None:
    models = FakeReplicas()
    async with bridged(models, tmp_path) as (parent, _):
        parent.send("probe", 1)
        assert (await parent.next())[0]["kind"] == "result"
        assert models.sent == {}
        models.told = replace(STATE, result_seconds=ray_bridge.PROBED_SECONDS)
        parent.send("probe", 2)
        assert (await parent.next())[0]["kind"] == "result"
        assert models.sent == {"": 1}


def test_replicas_that_do_not_answer_are_away_until_one_does(virtual: asyncio.Runner) -> None:
    class Silent(FakeReplicas):
        answers = True

        async def state(self) -> Any:
            self.states += 1
            if not self.answers:
                await clock.sleep(3600)
            return STATE

    async def main() -> None:
        models = Silent()
        answers = Answers(models)
        watching = asyncio.create_task(answers.watch())
        await clock.sleep(60)
        assert not answers.away()
        assert 60 <= models.states <= 121
        models.answers = False
        await clock.sleep(ray_bridge.AWAY_SECONDS + ray_bridge.STATE_SECONDS + 0.1)
        assert answers.away()
        models.answers = True
        await clock.sleep(ray_bridge.STATE_TIMEOUT + ray_bridge.STATE_SECONDS)
        assert not answers.away()
        answers.lost()
        assert answers.away()
        await clock.sleep(ray_bridge.STATE_SECONDS)
        assert not answers.away()
        asked = models.states
        for _ in range(100):  # results come: nothing is asked
            answers.heard()
            await clock.sleep(0.1)
        assert models.states == asked
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    virtual.run(main())


def test_the_first_answer_is_waited_for_and_an_error_ends_the_wait(virtual: asyncio.Runner) -> None:
    class Starting(FakeReplicas):
        async def state(self) -> Any:
            self.states += 1
            if self.states == 1:
                raise ReplicaLost("a replica of test died")
            if self.states == 2:
                await clock.sleep(3600)
            return await super().state()

    async def main() -> None:
        assert await Answers(Starting()).first() == STATE
        broken = FakeReplicas()
        broken.failure = WorkerError("streamsvc-test is not deployed")
        with pytest.raises(WorkerError, match="not deployed"):
            await Answers(broken).first()

    virtual.run(main())
