"""The VLM path compared with the plain transformers pipeline, and the gain of reused keys and values.

    python -m load_tests.kv_reuse [--seed 0] [--answers 24] [--device cpu]

Random models of the real classes; three tables. Parity: largest difference of a logit over a growing context,
at every step, by class, tower and reuse. Dropping: the model's output after the head of the context was
dropped, compared with the whole context, and with keys and values that are cut without recomputing. Speed:
time to the first token of an answer, with and without reuse, in a context of about 1,500 tokens. Exit status
1 if a parity is over 1e-4. Random models do not show how well a real one answers after a drop; they show that
nothing else changes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from engines.vlm_decoder import KvCache, argmax
from engines.vlm_window import Entry, Limits, Picture, Piece, Window, append_entry, token_count
from tests.engines.tiny_vlm import KINDS, Bench, Shape, picture, save

GOAL = 1e-4
STEPS = 4  # of an answer
LARGER = Shape(
    width=256, layers=6, heads=8, side=48, spread=0.05
)  # where time goes into arithmetic and not into Python


@dataclass(frozen=True, slots=True)
class Dropped:
    """After the drops, over tokens of greedy answers: share that agree, largest and mean logit difference."""

    drops: int
    agree: float
    mean: float
    worst: float


def parity(bench: Bench) -> dict[tuple[str, str], float]:
    """Largest difference of a logit from the plain pipeline's by (tower, reuse)."""
    table = {}
    for tower in ("torch", "onnx") if bench.device == "cpu" else ("torch",):
        seen = bench.encode([picture(1), picture(2)], graph=tower == "onnx")
        growing = bench.growing(seen)
        for reuse in ("none", "kept"):
            kept = KvCache()
            gaps = [
                bench.gap(
                    pieces, [picture(n) for n in numbers], kept if reuse == "kept" else KvCache(), STEPS
                )
                for pieces, numbers in growing
            ]
            table[tower, reuse] = max(gaps)
    return table


def entries(bench: Bench, count: int) -> list[Entry]:
    """The items of a session: three lines of speech, then a keyframe, repeated."""
    seen = bench.encode([picture(n) for n in range(count // 4 + 1)])
    made = []
    for n in range(count):
        text = bench.layout.text_line(f"Sentence {n} of a long talk about ships and weather.")
        shown = (
            bench.layout.picture_line(
                f"[{n}]", Picture(f"{n}", seen[n // 4].tokens, seen[n // 4].rows, seen[n // 4].columns)
            )
            if n % 4 == 3
            else None
        )
        made.append(Entry(n, text, shown))
    return made


def dropping(bench: Bench, count: int = 60) -> tuple[Dropped, Dropped]:
    """At each drop: our context against the whole, and a cut without recomputing against ours."""
    window, items, limits, question = (
        Window(),
        list[Entry](),
        Limits(900, 120),
        bench.layout.question("What next?"),
    )
    ours: list[tuple[bool, float]] = []
    cut: list[tuple[bool, float]] = []
    drops = 0
    for entry in entries(bench, count):
        items.append(entry)
        before, window = window, append_entry(window, entry, limits)
        if window.drops == before.drops:
            continue
        drops += 1
        everything = [Entry(one.number, one.text, one.visual, one.visual is not None).piece for one in items]
        shown = [bench.layout.head, *window.pieces, question]
        whole = [bench.layout.head, *everything, question]
        answers = _answers(bench, shown)
        ours += _beside(_answers(bench, whole, [token for token, _ in answers]), answers)
        cut += _beside(_cut(bench, whole, token_count(shown), [token for token, _ in answers]), answers)
    return _summed(drops, ours), _summed(drops, cut)


def _answers(
    bench: Bench, pieces: Sequence[Piece], forced: Sequence[int] = ()
) -> list[tuple[int, np.ndarray]]:
    """The most likely token and the logits of each step; fed with its own tokens, or with forced ones."""
    kept = KvCache()
    return _stepped(bench, kept, bench.decoder.read(kept, pieces).cpu().numpy(), forced)


def _stepped(
    bench: Bench, kept: KvCache, logits: np.ndarray, forced: Sequence[int]
) -> list[tuple[int, np.ndarray]]:
    steps = []
    for step in range(STEPS):
        steps.append((int(logits.argmax()), logits))
        logits = bench.decoder.step(kept, forced[step] if forced else steps[-1][0]).cpu().numpy()
    return steps


def _cut(
    bench: Bench, whole: Sequence[Piece], size: int, forced: Sequence[int]
) -> list[tuple[int, np.ndarray]]:
    """Keys and values of the whole context, cut to the head's and the newest `size`, without recomputing."""
    kept, head = KvCache(), token_count(whole[:1])
    bench.decoder.read(kept, whole[:-1])
    for layer in kept.cache.layers:
        first = max(head, layer.keys.shape[-2] - size + head + len(whole[-1].ids))
        for name in ("keys", "values"):
            held = getattr(layer, name)
            setattr(layer, name, _joined(held[..., :head, :], held[..., first:, :]))
    logits = None
    for token in whole[-1].ids:
        logits = bench.decoder.step(kept, token)
    assert logits is not None
    return _stepped(bench, kept, logits.cpu().numpy(), forced)


def _joined(left: object, right: object) -> object:
    """Concatenate two tensors along the token axis."""
    import torch

    return torch.cat([left, right], dim=-2)  # type: ignore[list-item]


def _beside(
    one: Sequence[tuple[int, np.ndarray]], other: Sequence[tuple[int, np.ndarray]]
) -> list[tuple[bool, float]]:
    return [(a == b, float(np.abs(x - y).mean())) for (a, x), (b, y) in zip(one, other, strict=True)]


def _summed(drops: int, steps: Sequence[tuple[bool, float]]) -> Dropped:
    gaps = [gap for _, gap in steps]
    return Dropped(drops, sum(same for same, _ in steps) / len(steps), sum(gaps) / len(gaps), max(gaps))


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds to the first token of an answer, means over answers, drops of the head included.

    `none`: no reuse. `kept`: keys and values of the last question. `ahead`: the items since then were read
    ahead too (op `extend`). `median`: median of `none` over median of `kept`. `tokens`: mean length of the
    sequence. `reused`: share of the tokens that `kept` reused.
    """

    none: float
    kept: float
    ahead: float
    median: float
    tokens: int
    reused: float


def speed(bench: Bench, answers: int) -> Speed:
    """Time answers of a session that grows by two items a question and drops its head as in service."""
    window, limits = Window(), Limits(1600, 400)
    items = iter(entries(bench, 400))
    while window.tokens < 1200:
        window = append_entry(window, next(items), limits)
    kept, ahead = KvCache(), KvCache()
    bench.decoder.read(kept, [bench.layout.head, *window.pieces])
    rows: list[list[float]] = []
    for n in range(answers):
        for _ in range(2):
            window = append_entry(window, next(items), limits)
        session = [bench.layout.head, *window.pieces]
        pieces = [*session, bench.layout.question(f"What of {n}?")]
        bench.decoder.read(ahead, session)
        times = [_seconds(bench, mine, pieces) for mine in (KvCache(), kept, ahead)]
        rows.append([*times, token_count(pieces), kept.reused])
    none, some, read, tokens, reused = (np.array(column) for column in zip(*rows, strict=True))
    ratio = median(none) / median(some)
    return Speed(
        none.mean(), some.mean(), read.mean(), ratio, round(tokens.mean()), reused.sum() / tokens.sum()
    )


def _seconds(bench: Bench, kept: KvCache, pieces: Sequence[Piece]) -> float:
    began = time.perf_counter()
    argmax(bench.decoder.read(kept, pieces))
    return time.perf_counter() - began


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--answers", type=int, default=24)
    parser.add_argument("--device", default="cpu", help="of torch; only on the CPU is the tower exported too")
    asked = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        benches = {
            kind: Bench(save(kind, Path(scratch) / kind, seed=asked.seed), asked.device) for kind in KINDS
        }
        print("Largest difference of a logit from the plain pipeline, at every step of a growing window\n")
        print("| class | torch tower | torch, kept | ONNX tower | ONNX, kept |\n|---|---|---|---|---|")
        for kind, bench in benches.items():
            table = parity(bench)
            worst = max(worst, *table.values())
            print(f"| {kind} | " + " | ".join(f"{gap:.1e}" for gap in table.values()) + " |", flush=True)
        print("\nAfter a drop of the head, tokens of answers\n")
        print(
            "| class | drops | against the whole: agree, mean gap | cut without recomputing, against ours |\n"
            "|---|---|---|---|"
        )
        for kind, bench in benches.items():
            ours, cut = dropping(bench)
            print(
                f"| {kind} | {ours.drops} | {ours.agree:.0%}, {ours.mean:.2f} "
                f"| {cut.agree:.0%}, {cut.mean:.2f} |",
                flush=True,
            )
        print("\nSeconds to the first token of an answer, one thread\n")
        print(
            "| class | tokens | reused | no reuse | reuse | read ahead "
            "| reuse: times faster, median | read ahead: times faster |"
        )
        print("|---|---|---|---|---|---|---|---|")
        for kind in ("qwen2_vl", "smolvlm", "llava"):
            one = speed(
                Bench(save(kind, Path(scratch) / f"larger-{kind}", LARGER, seed=asked.seed), asked.device),
                asked.answers,
            )
            times = f"{one.none:.3f} | {one.kept:.3f} | {one.ahead:.3f}"
            faster = f"{one.none / one.kept:.1f}, {one.median:.1f} | {one.none / one.ahead:.1f}"
            print(f"| {kind} | {one.tokens} | {one.reused:.0%} | {times} | {faster} |", flush=True)
    return int(not worst < GOAL)


if __name__ == "__main__":
    sys.exit(main())
