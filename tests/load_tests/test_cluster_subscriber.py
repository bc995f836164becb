"""A subscriber resumes at another node where it was, and its raw log holds all that it received."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import ServerConnection, serve

from load_tests.cluster_subscriber import Raw, _follow, read


def event(seq: int) -> dict[str, Any]:
    return {"type": "speech.started", "session": "a.1", "epoch": "e", "seq": seq, "at": float(seq), "prev": 0}


class Nodes:
    """Event sockets: each connection gets what comes next of five events, `together` at once, then ends."""

    def __init__(self, together: int) -> None:
        self.asked: list[tuple[int, str, str | None]] = []  # node, after, epoch
        self.keys: set[str | None] = set()
        self.addresses: list[str] = []
        self._together = together

    async def serve(self, number: int, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        after = query["after"][0]
        self.asked.append((number, after, query.get("epoch", [None])[0]))
        self.keys.add(socket.request.headers["Authorization"])
        await socket.send(json.dumps({"type": "caption.partial", "session": "a.1", "after": int(after)}))
        for seq in range(int(after) + 1, min(5, int(after) + self._together) + 1):
            await socket.send(json.dumps(event(seq)))


@asynccontextmanager
async def nodes(together: int) -> AsyncIterator[Nodes]:
    found = Nodes(together)
    async with AsyncExitStack() as stack:
        for number in range(2):

            async def handler(socket: ServerConnection, number: int = number) -> None:
                await found.serve(number, socket)

            server = await stack.enter_async_context(serve(handler, "127.0.0.1", 0))
            found.addresses.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield found


async def test_it_goes_to_the_other_node_with_epoch_and_seq() -> None:
    out = io.StringIO()
    async with nodes(2) as found:
        following = asyncio.create_task(_follow(Raw(out), found.addresses, "a.1", "a key", random.Random(1)))
        async with asyncio.timeout(10):
            while len(found.asked) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert [(after, epoch) for _, after, epoch in found.asked[:4]] == [
        ("0", None), ("2", "e"), ("4", "e"), ("5", "e"),
    ]  # fmt: skip
    first, second = found.asked[0][0], found.asked[1][0]
    assert first != second and found.keys == {"Bearer a key"}
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"]["seq"] for line in lines if "seq" in line.get("event", {})] == [1, 2, 3, 4, 5]
    assert [line["why"] for line in lines if line["kind"] == "closed"][:3] == ["ended"] * 3
    assert [line["after"] for line in lines if line["kind"] == "open"][:3] == [0, 2, 4]
    assert sum(line["kind"] == "event" for line in lines) >= 8  # ephemeral ones too


async def test_a_reader_says_which_sessions_a_node_does_not_give(tmp_path: Path) -> None:
    async with nodes(5) as found:
        given = await read(found.addresses[0], 0, {"a.1": 5}, "a key", tmp_path / "log")
        assert given == []
    assert (tmp_path / "log").read_text().count('"seq"') == 5
    assert await read(found.addresses[0], 0, {"a.1": 5}, "a key", tmp_path / "log") == ["a.1"]
