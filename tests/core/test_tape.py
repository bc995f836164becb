"""The tape of a session that is neither recorded nor replayed changes nothing."""

from __future__ import annotations

import pytest

from streamsvc.core.queues import Closed, Ring
from streamsvc.core.tape import LIVE
from tests.fakes.embed_role import letters_role


async def test_queues_are_taken_from_as_they_are() -> None:
    ring: Ring[int] = Ring(5)
    for item in range(4):
        ring.put(item)
    assert await LIVE.take("ring", ring, wanted=False) == []
    assert await LIVE.take("ring", ring, 1) == [0]
    ring.close()
    assert [batch async for batch in LIVE.batches("ring", ring, 2)] == [[1, 2], [3]]
    with pytest.raises(Closed):
        await LIVE.take("ring", ring)


def test_roles_are_called_as_they_are() -> None:
    role = letters_role()
    assert LIVE.role("embed", role) is role
