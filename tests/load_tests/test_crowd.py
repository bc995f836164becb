"""A crowd of subscribers has every event once each, and says when."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from load_tests.beside import Beside
from load_tests.crowd import _frame, _masked
from tests.builders.fake_service import at_the_door
from tests.builders.service import open_session


@pytest.mark.parametrize("size", [0, 5, 125, 126, 70_000])
def test_frames_are_read_whole_one_after_the_other(size: int) -> None:
    first, second = (Frame(Opcode.TEXT, bytes([65 + n]) * size).serialize(mask=False) for n in range(2))
    both = first + second
    found = _frame(both, 0)
    assert found == (1, b"A" * size, len(first))
    assert _frame(both, len(first)) == (1, b"B" * size, len(both))
    assert _frame(both, len(both)) is None
    assert _frame(both[:-1], len(first)) is None


def test_a_pong_is_masked() -> None:
    pong = _masked(0xA, b"ab")
    assert pong == b"\x8a\x82\x00\x00\x00\x00ab"


@pytest.mark.load
@pytest.mark.xdist_group("real time")
async def test_all_of_a_crowd_have_what_was_published(tmp_path: Path) -> None:
    async with at_the_door(tmp_path) as (service, place, client):
        one = await open_session(client)
        session = service.sessions.find(one)
        with Beside("load_tests.crowd.watch", int(place.rpartition(":")[2]), {one: 20}, []) as crowd:
            await asyncio.to_thread(crowd.wait_begun)
            event = session.log.emit("caption.partial", {"text": "hallo", "stable": 0, "words": []})
            while any(one._waiting for one in session.log._subscribers):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            seen = await asyncio.to_thread(crowd.result)
    assert len(seen["seen"][event.id]) == 20
    assert [kept["text"] for _, kept in seen["events"][one] if kept["type"] == "caption.partial"] == ["hallo"]
    assert seen["cut"] == 0
