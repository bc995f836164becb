"""Processes that publish events to a store and are killed while they do (`python -m`, FOLDER ROUNDS SEED).

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

from streamsvc.core.config import Limits
from streamsvc.core.session_clock import SessionClock
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store

WORD = {"text": "hallo", "start": 0.0, "end": 1.0, "probability": 1.0}
CAPTION = {"text": "hallo", "words": [WORD] * 20, "start": 0.0, "end": 1.0, "language": "en"}


async def publish(folder: Path, told: int) -> None:
    """Publish captions, and tell each seq that a subscriber has been given, until killed."""
    log = EventLog("s", SessionClock(), Limits(), Store(folder, events=100_000, frames=10))
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


def seen_by_a_killed(folder: Path, after: float) -> int:
    """Start a process, kill it some seconds after its first event; returns the highest seq it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(publish(folder, writing))
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
    chance = random.Random(int(sys.argv[3]))
    rounds = range(int(sys.argv[2]))
    seen = [seen_by_a_killed(Path(sys.argv[1]) / str(n), chance.uniform(0.0, 0.06)) for n in rounds]
    print(json.dumps(seen))
