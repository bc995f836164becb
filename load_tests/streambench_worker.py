"""streamsvc as a worker of streambench: PCM on stdin, captions as JSON lines on stdout.

    python -m load_tests.streambench_worker [--model tiny.en] [--language en] [--hear KEY=VALUE ...]

Input: s16le, mono, 16 kHz. Output: `c`: all stable words so far; `t`: the tentative words behind them. The
models run in the hear worker process, as under `serve`; the harness counts CPU and memory of both processes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import threading
from typing import Any

import numpy as np
import structlog

from streamsvc.core import clock, config
from streamsvc.core.queues import Ring
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Words
from streamsvc.evaluation.transcriber_run import CaptionView, hear_worker
from streamsvc.speech.decoding_loop import DecodingOptions, run
from streamsvc.speech.segmenter import SpeechUnit

NAMES = {"tiny.en": "whisper-tiny.en", "base": "whisper-base"}


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def read_stdin(loop: asyncio.AbstractEventLoop, ring: Ring[AudioChunk]) -> None:
    """Put audio from stdin into the ring as it comes."""
    position, rest = 0, b""
    while data := os.read(0, 1 << 16):
        rest += data
        pcm, rest = rest[: len(rest) // 2 * 2], rest[len(rest) // 2 * 2 :]
        samples = np.frombuffer(pcm, "<i2").astype(np.float32) / np.float32(32768)
        loop.call_soon_threadsafe(
            ring.put, AudioChunk("bench", "main", position / SAMPLE_RATE, clock.now(), samples)
        )
        position += len(samples)
    loop.call_soon_threadsafe(ring.close)


async def serve(settings: config.Settings) -> None:
    hear = settings.hear
    async with hear_worker(settings, "engines.asr") as worker:
        ring: Ring[AudioChunk] = Ring(3000)
        say(ready=True)
        threading.Thread(target=read_stdin, args=(asyncio.get_running_loop(), ring), daemon=True).start()
        screen = CaptionView()

        def show(unit: SpeechUnit) -> None:
            if isinstance(unit, Words):
                committed, tentative = screen.update(unit)
                say(c=committed, t=tentative)

        await run(ring, worker.role("hear"), show, DecodingOptions(hear, session="bench"))
        say(done=True)
        await asyncio.Event().wait()  # until the harness kills us


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="tiny.en", help="tiny.en, base, or a name of engines/registry.toml (%(default)s)"
    )
    parser.add_argument("--language", default="en")
    parser.add_argument(
        "--hear",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the group [hear] (repeatable)",
    )
    chosen = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    hear: dict[str, Any] = dict(pair.split("=", 1) for pair in chosen.hear)
    settings = config.load(
        None, hear={"model": NAMES.get(chosen.model, chosen.model), "language": chosen.language, **hear}
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
