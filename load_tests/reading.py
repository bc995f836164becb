"""What reading along costs and gives, for one chat model, without the rest of the service.

    python -m load_tests.reading [--model smollm2|0.5b|1.5b|FOLDER] [--threads N] [--windows 500 2000 3500]

For each window: the first token and the seconds per token of a question whose window has been read, each the
median of --questions; their largest ratio over the windows (goal 1.3). The reading rate, and how long a call
of `extend` takes (goal 0.3 s). Memory: the process before loading, with the model, and with all slots full.
The shapes 0.5b and 1.5b are Qwen2.5's published ones with random weights and SmolLM2's tokenizer, padded to
151,936 words: time and memory, no sense. Alone on a machine only: two threads of llama.cpp beside other work
read ten times slower than one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from engines import Payload, chat
from engines.chat_models import chat_file
from engines.fetch import default_dir
from tests.builders import chat_gguf

GOAL_RATIO = 1.3
GOAL_CALL = 0.3  # seconds
SMALLEST = "smollm2-135m-instruct"
SHAPES = {"0.5b": chat_gguf.QWEN_05B, "1.5b": chat_gguf.QWEN_15B}
ANSWER = 24  # tokens


def line(number: int) -> str:
    """A line of a window, about 16 tokens."""
    return (
        f"[{number}] {number // 6}:{number % 6}0 said: the speaker goes on about point {number} of the list."
    )


@contextmanager
def model(name: str) -> Iterator[tuple[Path, str]]:
    """Folder of models and the model's name in it; a shape is written for the time of the bench."""
    if name not in SHAPES:
        yield default_dir(), {"smollm2": SMALLEST}.get(name, name)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).mkdir()
        words = chat_gguf.vocabulary_of(chat_file(SMALLEST, default_dir()))
        chat_gguf.write(Path(folder) / name / "shape.gguf", SHAPES[name], vocabulary=words)
        yield Path(folder), name


class Bench:
    """One loaded engine."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.ops: Any = chat.load(options).ops

    def asked(self, session: str, lines: int, **more: Any) -> Payload:
        items = [{"number": number, "text": line(number)} for number in range(1, lines + 1)]
        return {"session": session, "items": items, "instruction": f"Answer. {session}", **more}

    def read(self, session: str, lines: int) -> tuple[int, list[float]]:
        """Read a window along. Returns the tokens read, and the seconds of each call."""
        calls: list[float] = []
        first = None
        while True:
            since = time.perf_counter()
            (told,) = self.ops["extend"].run([self.asked(session, lines)])
            if isinstance(told, Exception):
                raise told
            calls.append(time.perf_counter() - since)
            first = told["tokens"] if first is None else first
            if not told["left"]:
                return first, calls

    def answer(self, session: str, lines: int, question: str) -> tuple[float, float]:
        """Seconds to the first token, and per token after it."""
        since = time.perf_counter()
        times = []
        for piece in self.ops["generate"].run(
            self.asked(session, lines, question=question, max_tokens=ANSWER)
        ):
            if piece["text"]:
                times.append(time.perf_counter() - since)
        return times[0], (times[-1] - times[0]) / max(1, len(times) - 1)


def memory() -> str:
    info = psutil.Process().memory_full_info()
    return f"RSS {info.rss / 1e6:.0f} MB, PSS {info.pss / 1e6:.0f}, private {info.uss / 1e6:.0f}"


def run(arguments: argparse.Namespace) -> int:
    print(f"before loading: {memory()}")
    with model(arguments.model) as (folder, name):
        since = time.perf_counter()
        options = {"models": str(folder), "model": name, "threads": arguments.threads}
        bench = Bench(options)
        print(f"{name}, loaded in {time.perf_counter() - since:.1f} s: {memory()}")
        (count,) = bench.ops["count"].run([{"texts": [line(100)]}])
        rows: list[tuple[float, float]] = []
        for index, window in enumerate(arguments.windows):
            lines = window // count["tokens"][0]
            tokens, calls = bench.read(f"s{index}", lines)
            ordered = sorted(calls)
            answers = [
                bench.answer(f"s{index}", lines, f"What is point {number}?")
                for number in range(arguments.questions)
            ]
            first, each = (median(column) for column in zip(*answers, strict=True))
            rows.append((first, each))
            print(
                f"window {tokens}: read at {tokens / sum(calls):.0f} tokens/s in {len(calls)} calls"
                f" (p50 {median(calls):.2f} s, p95 {ordered[int(0.95 * (len(calls) - 1))]:.2f},"
                f" largest {ordered[-1]:.2f}); a question: first token {first:.3f} s,"
                f" then {each:.4f} s a token"
            )
        bench.read(f"s{len(rows)}", arguments.windows[0] // count["tokens"][0])
        print(f"all slots used: {memory()}; load {os.getloadavg()[0]:.1f}")
        ratios = [max(column) / min(column) for column in zip(*rows, strict=True)]
        print(f"flat within: first token {ratios[0]:.2f}, per token {ratios[1]:.2f} (goal {GOAL_RATIO})")
        return int(max(ratios) > GOAL_RATIO)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m load_tests.reading")
    parser.add_argument("--model", default="smollm2", help="smollm2, 0.5b, 1.5b, or a folder of models.dir")
    parser.add_argument("--threads", type=int, help="default: half of the cores")
    parser.add_argument("--windows", type=int, nargs="+", default=[500, 2000, 3500])
    parser.add_argument("--questions", type=int, default=5)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
