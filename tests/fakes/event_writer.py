"""Processes that publish events and are killed while they do (`python -m`, FOLDER ROUNDS SEED SYNC).

Prints a JSON list: of each round the highest seq that its subscriber was given.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from typing import Literal

from streamsvc.core.config import Limits
from streamsvc.core.session_clock import SessionClock
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store

WORD = {"text": "hallo", "start": 0.0, "end": 1.0, "probability": 1.0}
CAPTION = {"text": "hallo", "words": [WORD] * 20, "start": 0.0, "end": 1.0, "language": "en"}


async def publish(folder: Path, told: int, sync: Literal["process", "power"]) -> None:
    """Publish captions, and tell each seq that a subscriber has been given, until killed."""
    store = Store(folder, events=100_000, frames=10, sync=sync)
    log = EventLog("s", SessionClock(), Limits(), store)
    subscription = log.subscribe()

    async def follow() -> None:
        while (batch := await subscription.next()) is not None:
            os.write(told, "".join(f"{seq}\n" for seq, _ in batch).encode())

    async def flush() -> None:
        while True:
            await asyncio.sleep(0.5)
            await log.flush()

    tasks = [asyncio.create_task(follow()), asyncio.create_task(flush())]
    while all(not task.done() for task in tasks):
        log.emit("caption.final", CAPTION)
        await asyncio.sleep(0.0005)


def seen_by_a_killed(folder: Path, after: float, sync: Literal["process", "power"]) -> int:
    """Start a process, kill it some seconds after its first event; returns the highest seq it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(publish(folder, writing, sync))
        finally:
            os._exit(1)
    os.close(writing)
    select.select([reading], [], [], 30.0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        lines = pipe.read().split()
    return max(map(int, lines), default=0)


if __name__ == "__main__":
    root, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    wanted: Literal["process", "power"] = "power" if sys.argv[4] == "power" else "process"
    chance = random.Random(seed)
    seen = [seen_by_a_killed(root / str(n), chance.uniform(0.0, 0.06), wanted) for n in range(rounds)]
    print(json.dumps(seen))
