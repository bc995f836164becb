"""A subscriber of `load_tests.cluster`, in a process of its own (`beside.Beside`).

It follows sessions at any node, each by an event socket; where one ends, it goes to another node and resumes
with epoch and seq. Whatever it receives is in its raw log before it is anything else:
load_tests/cluster_counts.py says in which form.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import websockets
from websockets.asyncio.client import ClientConnection, connect

from load_tests.beside import begun, commands

AGAIN_SECONDS = (0.05, 0.4)  # between the end of a socket and the next try
OPEN_SECONDS = 5.0
READ_SECONDS = 10.0  # that a reader waits for events that it knows of
QUIET_SECONDS = 1.0  # without an event, after which a reader that has what it knows of is done


@dataclass(slots=True)
class Raw:
    """A raw log: each line is written at once."""

    out: TextIO
    sockets: dict[str, ClientConnection] = field(default_factory=dict)  # that are open, by session

    def note(self, kind: str, session: str, node: int, **more: Any) -> None:
        """Write a line."""
        line = {"t": time.monotonic(), "kind": kind, "session": session, "node": node, **more}
        self.out.write(json.dumps(line) + "\n")


def _url(address: str, session: str, epoch: str | None, after: int) -> str:
    """The event socket of a session, from an event on."""
    url = f"{address.replace('http', 'ws', 1)}/v1/sessions/{session}/events?after={after}"
    return url if epoch is None else f"{url}&epoch={epoch}"


async def _follow(raw: Raw, addresses: Sequence[str], session: str, key: str, draw: random.Random) -> None:
    """Follow one session, at one node after the other, without end."""
    epoch, seq, node = None, 0, draw.randrange(len(addresses))
    while True:
        why: object = "refused"
        try:
            async with connect(
                _url(addresses[node], session, epoch, seq),
                additional_headers={"Authorization": f"Bearer {key}"},
                max_size=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=1.0,
                ping_interval=None,  # a node that hangs is the harness' affair, one that is dead resets
            ) as socket:
                raw.sockets[session] = socket
                raw.note("open", session, node, epoch=epoch, after=seq)
                why = "ended"
                async for text in socket:
                    event = json.loads(text)
                    raw.note("event", session, node, event=event)
                    if "seq" in event:
                        epoch, seq = event["epoch"], event["seq"]
        except websockets.ConnectionClosed as error:
            why = error.rcvd.code if error.rcvd is not None else "reset"
        except (websockets.WebSocketException, OSError, TimeoutError) as error:
            why = type(error).__name__
        raw.sockets.pop(session, None)
        raw.note("closed", session, node, why=why)
        node = draw.choice([one for one in range(len(addresses)) if one != node] or [node])
        await asyncio.sleep(draw.uniform(*AGAIN_SECONDS))


async def _run(addresses: Sequence[str], sessions: Sequence[str], key: str, log: Path, seed: int) -> int:
    draw = random.Random(seed)
    killed = 0
    with log.open("a", buffering=1, encoding="utf-8") as out:
        raw = Raw(out)
        tasks = [
            asyncio.create_task(_follow(raw, addresses, session, key, random.Random(draw.random())))
            for session in sessions
        ]
        begun()
        try:
            async for session in commands():  # each names the session whose socket is to be killed
                if (socket := raw.sockets.pop(session, None)) is not None:
                    raw.note("killed", session, -1)
                    socket.transport.abort()  # a reset, without a word to either side's code
                    killed += 1
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return killed


def follow(addresses: list[str], sessions: list[str], key: str, log: str, seed: int) -> int:
    """Follow sessions until told to stop; each line that it is sent names one whose socket is killed.

    Args:
        addresses: of the nodes.
        sessions: their ids.
        key: the API key.
        log: the raw log, a path.
        seed: of the choice of nodes.

    Returns:
        How many sockets were killed.
    """
    return asyncio.run(_run(addresses, sessions, key, Path(log), seed))


async def read(address: str, node: int, known: dict[str, int], key: str, log: Path) -> list[str]:
    """Read whole sessions from their beginning at one node, as a subscriber that comes at the end.

    Args:
        address: of the node.
        node: its number.
        known: by session, the highest seq that anybody has seen: it is waited for.
        key: the API key.
        log: the raw log.

    Returns:
        Sessions that the node did not give at all.
    """
    with log.open("a", encoding="utf-8") as out:
        raw = Raw(out)
        given = await asyncio.gather(*(_read(raw, address, node, one, known[one], key) for one in known))
    return [session for session, whether in zip(known, given, strict=True) if not whether]


async def _read(raw: Raw, address: str, node: int, session: str, known: int, key: str) -> bool:
    seq, until = 0, time.monotonic() + READ_SECONDS
    with contextlib.suppress(websockets.WebSocketException, OSError, TimeoutError):
        async with connect(
            _url(address, session, None, 0),
            additional_headers={"Authorization": f"Bearer {key}"},
            max_size=None,
            open_timeout=OPEN_SECONDS,
            close_timeout=1.0,
        ) as socket:
            while time.monotonic() < until:
                patience = QUIET_SECONDS if seq >= known else until - time.monotonic()
                async with asyncio.timeout(max(0.01, patience)):
                    event = json.loads(await socket.recv())
                raw.note("event", session, node, event=event)
                seq = max(seq, event.get("seq", 0))
    return seq > 0
