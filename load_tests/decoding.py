"""CPU of ingest and decoding per publisher, beside plain aiortc: all on one core, the senders on another.

    python -m load_tests.decoding [--publishers 8] [--seconds 20] [--kinds aiortc full keyframes floor]
                                  [--hold 20 24] [--codec h264]

Each kind is a process of its own that takes the same pre-encoded RTP (720p30 at 2 Mb/s, Opus) from senders
in another process (`rtp_sender.py`), in turns: "aiortc": its receivers and decoders, every frame read;
"full": our peers, the decoding stages of speech and vision, keyframe choice and storage (models are
stand-ins) with all frames decoded; "keyframes": the same with codec keyframes alone; "floor": datagrams are
received and decrypted, and nothing else. `--hold N...`: as many publishers of "keyframes" as are held without
lateness. Exit status 1: a goal is missed. A busy machine makes all of it late: compare kinds of one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from load_tests import report
from load_tests.receivers import KINDS
from load_tests.rtp_media import Form, recording
from streamsvc.evaluation.markdown import markdown_table

GOALS = {"full": 60.0, "keyframes": 32.0}  # CPU ms per stream-second, where aiortc needs REFERENCE
REFERENCE = 81.0  # so that a slower machine has other goals
LATE = 0.25  # seconds that the event loop may lag (p99) where publishers are held
START_SECONDS = 60.0


# --- measured -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Figures:
    """One kind. cpu_ms: per stream-second. pictures, audio: decoded seconds or pictures a stream-second;
    chosen: pictures of them that became keyframes.

    lag: of the event loop, p99 in seconds. late: of the senders, seconds at most. lost, holes, dropped:
    packets of sound, holes in video, frames that a queue had no room for.
    """

    kind: str
    publishers: int
    seconds: float
    cpu_ms: float
    pictures: float
    audio: float
    chosen: float
    lag: float
    late: float
    lost: float
    holes: float
    dropped: float
    plis: float
    sent_kbps: float

    @property
    def held(self) -> bool:
        """Whether nothing came late, and no sound was lost."""
        return self.lag <= LATE and self.audio >= 0.98 and not self.lost


@contextlib.contextmanager
def _child(core: int, *arguments: str) -> Iterator[Any]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        os.sched_setaffinity(process.pid, {core})
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def measured(kind: str, publishers: int, chosen: argparse.Namespace, cores: Sequence[int]) -> Figures:
    """Run one kind."""
    with _child(cores[1], "load_tests.receivers", kind) as receiver:
        address = f"http://127.0.0.1:{int(receiver.stdout.readline())}"
        urls = [f"{address}/whip"] * publishers
        options = ["--kept", str(chosen.kept), "--codec", chosen.codec, "--kbps", str(chosen.kbps)]
        options += ["--size", *map(str, chosen.size)]
        with _child(
            cores[0], "load_tests.rtp_sender", *urls, *options, "--loop", str(chosen.loop), "--seconds", "600"
        ) as sender:
            for _ in urls:
                if not sender.stdout.readline():
                    raise SystemExit(f"the senders of {kind} have ended")
            time.sleep(chosen.warm_up)
            first = httpx.get(f"{address}/figures", timeout=START_SECONDS).json()
            time.sleep(chosen.seconds)
            last = httpx.get(f"{address}/figures", timeout=START_SECONDS).json()
            sender.stdin.close()
            counts = [json.loads(line)["counts"] for line in sender.stdout]
    return _figures(kind, (first, last), counts, chosen.warm_up)


def _figures(
    kind: str,
    told: tuple[dict[str, Any], dict[str, Any]],
    counts: Sequence[dict[str, Any]],
    warm_up: float,
) -> Figures:
    first, last = told
    seconds = last["at"] - first["at"]
    publishers = len(counts)
    streams = seconds * publishers
    lags = sorted(last["lags"]) or [0.0]

    def grown(name: str) -> float:
        return float(last.get(name, 0.0) - first.get(name, 0.0))

    total = sum(track["bytes"] for one in counts for track in one.values())
    return Figures(
        kind=kind,
        publishers=publishers,
        seconds=round(seconds, 1),
        cpu_ms=round(1000 * grown("cpu") / streams, 1),
        pictures=round(grown("pictures") / streams, 2),
        audio=round(grown("audio") / streams, 3),
        chosen=round(grown("chosen") / streams, 2),
        lag=round(lags[int(0.99 * (len(lags) - 1))], 3),
        late=max((track["late"] for one in counts for track in one.values()), default=0.0),
        lost=grown("lost"),
        holes=grown("holes"),
        dropped=grown("dropped"),
        plis=round(grown("plis") / streams, 2),
        sent_kbps=round(total * 8e-3 / publishers / (seconds + warm_up)),
    )


def verdict(kinds: Sequence[Figures], held: Sequence[Figures], hold: Sequence[int]) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = []
    by_kind = {one.kind: one for one in kinds}
    if "aiortc" in by_kind:
        scale = by_kind["aiortc"].cpu_ms / REFERENCE
        for kind, goal in GOALS.items():
            one = by_kind.get(kind)
            if one is not None and one.cpu_ms > goal * scale:
                wrong.append(f"{kind} costs {one.cpu_ms:.0f} ms, more than {goal * scale:.0f}")
    wrong += [f"{one.kind} decoded only {one.audio:.2f} of the sound" for one in kinds if _deaf(one)]
    if hold and not any(one.held for one in held):
        wrong.append(f"{min(hold)} publishers are not held")
    return wrong


def _deaf(one: Figures) -> bool:
    return one.kind != "floor" and one.audio < 0.9


def table(rows: Sequence[Figures]) -> str:
    """A line for each kind."""
    heads = (
        "kind",
        "publishers",
        "CPU ms/s",
        "of aiortc",
        "pictures/s",
        "chosen/s",
        "audio",
        "lag p99 s",
        "senders late s",
    )
    plain = next((one.cpu_ms for one in rows if one.kind == "aiortc"), 0.0)
    return markdown_table(
        (*heads, "lost", "holes", "dropped", "PLI/s", "sent kb/s"),
        [
            (
                one.kind,
                str(one.publishers),
                f"{one.cpu_ms:.1f}",
                f"{one.cpu_ms / plain:.2f}" if plain else "",
                f"{one.pictures:.1f}",
                f"{one.chosen:.2f}",
                f"{one.audio:.2f}",
                f"{one.lag:.3f}",
                f"{one.late:.3f}",
                f"{one.lost:.0f}",
                f"{one.holes:.0f}",
                f"{one.dropped:.0f}",
                f"{one.plis:.2f}",
                f"{one.sent_kbps:.0f}",
            )
            for one in rows
        ],
    )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS, help="(%(default)s)")
    parser.add_argument("--publishers", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--hold", type=int, nargs="*", default=[], help="publishers of keyframes, in turns")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each (%(default)s)")
    parser.add_argument("--codec", choices=("vp8", "h264"), default="vp8", help="(%(default)s)")
    parser.add_argument("--kbps", type=int, default=2000, help="of the video (%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="(%(default)s)")
    parser.add_argument("--loop", type=float, default=6.0, help="seconds of media (%(default)s)")
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds before it (%(default)s)")
    parser.add_argument("--kept", type=Path, help="folder of encoded media (default: a temporary one)")
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        if chosen.kept is None:
            chosen.kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="decoding-")))
        recording(
            chosen.kept,
            seconds=chosen.loop,
            form=Form(chosen.codec, chosen.size[0], chosen.size[1], kbps=chosen.kbps),
        )
        runs = []
        for kind, publishers in [
            *((kind, chosen.publishers) for kind in chosen.kinds),
            *(("keyframes", number) for number in chosen.hold),
        ]:
            runs.append(measured(kind, publishers, chosen, (cores[0], cores[-1])))
            print(runs[-1], file=sys.stderr, flush=True)
    kinds, held = runs[: len(chosen.kinds)], runs[len(chosen.kinds) :]
    report.finish(table(runs), runs, verdict(kinds, held, chosen.hold), chosen.json)


if __name__ == "__main__":
    main()
