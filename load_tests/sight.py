"""What a model that sees costs on a CPU: a keyframe, a question, memory; and captions beside it.

    python -m load_tests.sight [--model shape|NAME] [--threads 1 2] [--keyframes 5] [--questions 3]
    python -m load_tests.sight --beside RECORDING [--every 60 30 20 15] [--seconds 240] [--slice 30]

"shape" (default) is SmolVLM-500M's published shape with random weights: time and memory, no sense. NAME: a
folder of models.dir/models. The first form loads the engine alone, for each number of threads: wall and CPU
seconds of a keyframe that is read along, of a question whose window has been read (to the first token, and a
token), of a scene caption, and memory (PSS).

The second form plays a recording in real time through the worker processes and lets the model read a new
keyframe each so many seconds, in every other slice, in idle time as a session does: the waits of decoding
steps with it and without, as of `load_tests.reading_along`. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from PIL import Image

from engines import Payload, sight
from engines.chat_models import chat_file
from engines.fetch import default_dir
from engines.llama_server import LlamaServer, Size
from engines.sight import Sight, sight_files
from load_tests import reading_along
from load_tests.reading import SMALLEST
from streamsvc.core import clock, config
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role
from streamsvc.evaluation import session_run
from streamsvc.evaluation.scenario import Scenario
from streamsvc.service.service import Service
from tests.builders import chat_gguf, vlm_gguf

SHAPE = "shape"
ANSWER = 24  # tokens
CONTEXT = 4096
EXTEND_SECONDS = 60.0  # for one picture
_PATIENCE = 5.0  # seconds that a picture waits for an idle moment


def picture(seed: int) -> Payload:
    """A picture of 1280x720 as `encode` takes it."""
    noise = np.random.default_rng(seed).integers(0, 255, (45, 80, 3), dtype=np.uint8)
    page = io.BytesIO()
    Image.fromarray(noise).resize((1280, 720)).save(page, "JPEG")
    return {"jpeg": np.frombuffer(page.getvalue(), np.uint8)}


def window(keys: Sequence[str], **more: object) -> Payload:
    """A session's window with these pictures."""
    items = [
        {"number": n, "at": 8.0 * n, "text": f"[{n}] {n // 6}:{n % 6}0 picture: person, cup", "picture": key}
        for n, key in enumerate(keys, 1)
    ]
    return {"session": "s 0", "items": items, "instruction": "Answer from the pictures.", **more}


@contextmanager
def model(name: str) -> Iterator[tuple[Path, str]]:
    """Folder of models and the model's name in it; the shape is written for the time of the bench."""
    if name != SHAPE:
        yield default_dir(), name
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "models"  # as a service lays it out, with the models that it needs besides
        folder.mkdir()
        for other in default_dir().iterdir():
            (folder / other.name).symlink_to(other)
        words = chat_gguf.vocabulary_of(chat_file(SMALLEST, default_dir()))
        vlm_gguf.write(folder / name, vlm_gguf.SMOLVLM_500M, vocabulary=words)
        yield folder, name


class Timed:
    """Wall and CPU seconds of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def told(self) -> tuple[float, float]:
        return time.monotonic() - self._wall, time.process_time() - self._cpu


def alone(folder: Path, name: str, threads: int, arguments: argparse.Namespace) -> None:
    """Print what one number of threads needs."""
    before = psutil.Process().memory_full_info().pss
    loading = Timed()
    server = LlamaServer(*_loading(folder, name, threads))
    engine = Sight(server, Size(threads=threads, slots=sight.SLOTS, context=CONTEXT))
    print(f"{threads} threads: loaded in {loading.told()[0]:.1f} s", flush=True)
    keys: list[str] = []
    frames: list[tuple[float, float]] = []
    for number in range(arguments.keyframes):
        keys.append(engine.encode(picture(number))["picture"])
        timed = Timed()
        while engine.extend(window(keys))["left"]:
            pass
        frames.append(timed.told())
    _print("a keyframe", frames)
    questions = [
        _answered(engine, window(keys, question=f"What is in picture {number}?", max_tokens=ANSWER))
        for number in range(arguments.questions)
    ]
    first, each = (median(column) for column in zip(*questions, strict=True))
    print(f"  a question: first token {first:.2f} CPU s, then {each:.3f} a token")
    caption = window(keys[-1:], question="Say in one sentence what it shows.", max_tokens=ANSWER)
    timed = Timed()
    _answered(engine, caption | {"session": "s aside", "aside": True, "kept": True})
    _print("a scene caption", [timed.told()])
    grown = psutil.Process().memory_full_info().pss - before
    print(f"  memory: PSS {grown / 1e6:.0f} MB more; load {os.getloadavg()[0]:.1f}", flush=True)
    server.close()


def _loading(folder: Path, name: str, threads: int) -> tuple[Path, Size, Path]:
    path, projector = sight_files(name, folder)
    return path, Size(threads=threads, slots=sight.SLOTS, context=CONTEXT), projector


def _answered(engine: Sight, asked: Payload) -> tuple[float, float]:
    """CPU seconds to the first token, and of each further one."""
    timed = Timed()
    seconds: list[float] = []
    for piece in engine.generate(asked):
        if piece["text"]:
            seconds.append(timed.told()[1])
    if not seconds:  # random weights may end at once
        return timed.told()[1], 0.0
    return seconds[0], (seconds[-1] - seconds[0]) / max(1, len(seconds) - 1)


def _print(what: str, times: Sequence[tuple[float, float]]) -> None:
    wall, cpu = (median(column) for column in zip(*times, strict=True))
    print(f"  {what}: {wall:.2f} s, {cpu:.2f} CPU s", flush=True)


async def _reading(service: Service, role: Role, every: float, slice_seconds: float) -> None:
    """Read a new keyframe each `every` seconds in the slices that count as on; until cancelled."""
    keys: list[str] = []
    number = 0
    due = clock.now()
    while True:
        await clock.sleep(max(0.1, due - clock.now()))
        live = service.sessions.live
        if not live or reading_along.is_on(live[0].clock.position(), slice_seconds) is not True:
            continue
        due = clock.now() + every
        number += 1
        with contextlib.suppress(StreamsvcError, TimeoutError):
            result = await role.call("encode", picture(number), deadline_in_s=EXTEND_SECONDS)
            keys = [*keys, str(result["picture"])][-8:]
            left = 1
            while left:
                async with service.roles.idle.background(_PATIENCE):
                    found = await role.call("extend", window(keys), deadline_in_s=EXTEND_SECONDS)
                left = int(found["left"])


async def beside(folder: Path, name: str, every: float, arguments: argparse.Namespace) -> str:
    """The table of one rate."""
    settings = config.load(
        None, models={"dir": folder.parent}, think={"sees": name, "threads": arguments.threads[0]}
    )
    scenario = Scenario("recording", arguments.beside.resolve(), {}, {}, arguments.seconds)
    async with Service(settings, at_once=("hear", "see", "sight"), keeps=False) as service:
        await service.ready()
        service.load_controller.force(0)
        role = service.roles.sight
        assert role is not None, "think.sees is set"
        task = asyncio.create_task(_reading(service, role, every, arguments.slice))
        try:
            run = await session_run.play(service, scenario)
        finally:
            task.cancel()
        return reading_along.table(reading_along.figures(reading_along.waits(run.events, arguments.slice)))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m load_tests.sight")
    parser.add_argument("--model", default=SHAPE, help="shape, or a folder of models.dir (%(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--keyframes", type=int, default=5)
    parser.add_argument("--questions", type=int, default=3)
    parser.add_argument("--beside", type=Path, metavar="RECORDING")
    parser.add_argument("--every", type=float, nargs="+", default=[60.0, 30.0, 20.0, 15.0])
    parser.add_argument("--seconds", type=float, default=240.0, help="of the recording (%(default)s)")
    parser.add_argument("--slice", type=float, default=30.0, help="seconds of each turn (%(default)s)")
    chosen = parser.parse_args(arguments)
    with model(chosen.model) as (folder, name):
        if chosen.beside is None:
            for threads in chosen.threads:
                alone(folder, name, threads, chosen)
            return 0
        for every in chosen.every:
            print(
                f"a keyframe each {every:.0f} s\n{asyncio.run(beside(folder, name, every, chosen))}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
