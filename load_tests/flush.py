"""Duration of a flush through the running service.

From the commit of the last sample to the complete transcript.

    python -m load_tests.flush                              # 30 utterances, in real time
    python -m load_tests.flush --flushes 10 --seconds 4

A client of `GET /v1/realtime` sends samples like a microphone, 40 ms each when they are due, and commits at
fixed lengths, in the middle of speech or not; turn detection is off. This is the worst case: no pause has
ended an utterance before. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from load_tests.hearing import MEDIA
from streamsvc.core import clock, config
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import read
from streamsvc.service import app

RATE, PIECE = 24_000, 960  # Hz, and samples in a message: 40 ms
HEARD = {"transcription": {"model": "whisper-1", "language": "en"}, "turn_detection": None}


def pcm(path: Path) -> bytes:
    """Decode a recording to the PCM that the client sends."""
    samples = read(path)
    times = np.arange(round(len(samples) * RATE / SAMPLE_RATE)) * SAMPLE_RATE / RATE
    return bytes((np.interp(times, np.arange(len(samples)), samples) * 32767).astype("<i2").tobytes())


async def until(client: ClientConnection, kind: str) -> dict[str, Any]:
    """Read events until one of type `kind`; return it."""
    while (event := json.loads(await client.recv()))["type"] != kind:
        if event["type"] == "error":
            raise RuntimeError(event["error"]["message"])
    return dict(event)


async def flushes(
    client: ClientConnection, data: bytes, count: int, seconds: float
) -> list[tuple[float, int]]:
    """Seconds from each commit to the completed transcript, and its number of words."""
    timed = []
    step = round(seconds * RATE / PIECE) * PIECE * 2
    for number in range(count):
        first = number * step % (len(data) - step) // 2 * 2
        spoken, zero = data[first : first + step], clock.now()
        for place in range(0, step, PIECE * 2):
            await clock.sleep(zero + (place / 2 + PIECE) / RATE - clock.now())
            audio = base64.b64encode(spoken[place : place + PIECE * 2]).decode()
            await client.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        began = clock.now()
        await client.send(json.dumps({"type": "input_audio_buffer.commit"}))
        done = await until(client, "conversation.item.input_audio_transcription.completed")
        timed.append((clock.now() - began, len(done["transcript"].split())))
    return timed


async def measure(data: bytes, count: int, seconds: float, folder: Path) -> list[tuple[float, int]]:
    """Run `flushes` against a service of its own on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    place = f"ws://127.0.0.1:{listener.getsockname()[1]}/v1/realtime?intent=transcription"
    with contextlib.closing(listener):
        async with app.listening(config.load(None, server={"data_dir": folder}), listener) as (service, _):
            await service.ready()
            async with connect(place) as client:
                session = {"type": "transcription", "audio": {"input": HEARD}}
                await client.send(json.dumps({"type": "session.update", "session": session}))
                await until(client, "session.updated")
                return await flushes(client, data, count, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder with speech/*.flac (%(default)s)")
    parser.add_argument("--flushes", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2.6, help="of speech before each (%(default)s)")
    chosen = parser.parse_args()
    data = b"".join(
        pcm(chosen.media / "speech" / f"{name}.flac")
        for name in ("jfk_inaugural_excerpt", "two_cities", "harvard")
    )
    with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
        timed = asyncio.run(measure(data, chosen.flushes, chosen.seconds, Path(folder)))
    taken = [seconds for seconds, _ in timed]
    p50, p95 = np.percentile(taken, [50, 95])
    print(
        f"{len(timed)} flushes after {chosen.seconds:g} s of speech each, "
        f"{sum(words for _, words in timed)} words: ",
        end="",
    )
    print(f"p50 {p50:.2f} s, p95 {p95:.2f} s, longest {max(taken):.2f} s")


if __name__ == "__main__":
    main()
