"""Speech that is hard to be right about: exact latencies, quiet and noisy speech, and no speech at all, in one configuration.

    python -m load_tests.hard_speech [--only ends|hard|silence] [--model base] [--hear KEY=VALUE ...] [--live] [--json FILE]

On the virtual clock by default: the models' CPU time is their duration, so a run costs CPU time only and other load hardly matters
(what is missing of real time is the way to the worker process and back, a few milliseconds); `--live` takes the time of the recordings.

  - ends: utterances of speech/ with known silences between them. An utterance ends with its last 10 ms frame within QUIETER dB of its
    loud frames (their 95th percentile); FADE seconds behind that it is cut, faded out, and followed by zeros. So no word can end later
    than that plus FADE, and nothing but the recogniser can be late. Latencies are those of its last word from that end.
  - hard: the recordings of speech/ as they are, at -20 dB, and with pink noise 5 dB below the speech (a seed fixes it), rounded to 16
    bits, and the files of noisy/; beside offline faster-whisper, beam 1, on the same samples. "Unheard" are the words missed where
    voice activity found nobody, of the recordings whose word times are known.
  - silence: non_speech/: nothing may be closed there, nor shown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from load_tests.hearing import add_arguments, hearing, settings_of
from streamsvc.core.config import Settings
from streamsvc.core.types import SAMPLE_RATE, Speech, Words
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.caption_bench import markdown, offline
from streamsvc.evaluation.recordings import Samples, Truth, read, truth_of
from streamsvc.evaluation.score_captions import norm, percentile
from streamsvc.evaluation.transcriber_run import Heard, play

FRAME = SAMPLE_RATE // 100  # samples: 10 ms
QUIETER = 25.0  # dB below the loud frames at which speech ends; the rooms of the recordings are 28 dB and more below them
FADE = 0.05  # seconds
PAUSES = (1.2, 1.6, 2.0, 2.8)  # seconds between utterances, in turn
NEAR = 0.4  # seconds around an utterance in which a word is one of it
MARK = 0.3  # seconds by which a marked end of a word may be wrong
TAIL = np.zeros(2 * SAMPLE_RATE, np.float32)
LONGEST = 120.0  # seconds of a recording that are used
SNR, QUIET = 5.0, -20.0  # dB
SEED = 3
Player = Callable[[Samples], Heard]


# --- material -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is said between two silences: where it begins and ends in the spliced clip, seconds, and its words as `norm` gives them."""

    source: str
    start: float
    end: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the end of an utterance until its last word was committed, and until its cue was closed.

    `right`: that word is the one that was said. None: nothing was heard, or nothing closed.
    """

    utterance: Utterance
    committed: float | None
    final: float | None
    right: bool


def levels(samples: Samples) -> Samples:
    """The power of each whole frame in dB, shape (n // FRAME,)."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    decibels: Samples = (10 * np.log10((frames**2).mean(axis=1) + 1e-12)).astype(np.float32)
    return decibels


def spoken(samples: Samples) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each frame lies within QUIETER dB of the loud ones."""
    of = levels(samples)
    return of > np.percentile(of, 95) - QUIETER


def cut(samples: Samples) -> tuple[Samples, float]:
    """An utterance without what comes before and after it, faded out; and its end in seconds (see the module's text)."""
    places = np.flatnonzero(spoken(samples))
    first, last = max(0, int(places[0]) - 5), int(places[-1]) + 1
    fade = int(FADE * SAMPLE_RATE)
    kept = samples[first * FRAME : last * FRAME + fade].copy()
    kept = np.concatenate([kept, np.zeros((last - first) * FRAME + fade - len(kept), np.float32)])
    kept[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return kept, (last - first) * FRAME / SAMPLE_RATE


def spliced(parts: Sequence[tuple[str, Samples, Sequence[str]]]) -> tuple[Samples, list[Utterance]]:
    """(source, samples, words) of utterances as one clip with PAUSES of zeros between them."""
    blocks: list[Samples] = [np.zeros(SAMPLE_RATE, np.float32)]
    at, found = 1.0, []
    for number, (source, samples, words) in enumerate(parts):
        kept, end = cut(samples)
        found.append(Utterance(source, at, at + end, tuple(words)))
        blocks += [kept, np.zeros(int(PAUSES[number % len(PAUSES)] * SAMPLE_RATE), np.float32)]
        at += (len(kept) + len(blocks[-1])) / SAMPLE_RATE
    return np.concatenate(blocks), found


def utterances(media: Path) -> Iterator[tuple[str, Samples, list[str]]]:
    """The utterances of speech/ that stand alone: single sentences, and telephone prompts with 1 s of silence between them."""
    for entry in entries(media, "speech"):
        samples = read(media / entry["path"])
        name = Path(entry["path"]).stem.split("_")[0]
        if "exact" in (entry.get("times_from") or ""):
            for part in entry["segments"]:
                piece = samples[int(part["start"] * SAMPLE_RATE) : int(part["end"] * SAMPLE_RATE)]
                yield name, piece, norm(part["text"])
        elif not entry.get("words") and len(samples) < 10 * SAMPLE_RATE:
            yield name, samples, norm(entry["transcript"])


def entries(media: Path, folder: str) -> list[dict[str, Any]]:
    """What the manifest tells of the English (or wordless) recordings in a folder."""
    files = json.loads((media / "manifest.json").read_text(encoding="utf-8"))["files"]
    return [
        entry
        for entry in files
        if entry["path"].startswith(f"{folder}/") and entry.get("language") in ("en", None)
    ]


def quieter(samples: Samples) -> Samples:
    """The same at QUIET dB, rounded to 16 bits as it would come from a microphone."""
    return (np.round(samples * 10 ** (QUIET / 20) * 32768) / 32768).astype(np.float32)


def noisier(samples: Samples) -> Samples:
    """The same with pink noise SNR dB below the mean power of the frames in which somebody speaks."""
    white = np.random.default_rng(SEED).standard_normal(len(samples) + 1)
    spectrum = np.fft.rfft(white)
    spectrum /= np.sqrt(
        np.maximum(np.arange(len(spectrum)), 20 * len(white) / SAMPLE_RATE)
    )  # flat below 20 Hz
    noise = np.fft.irfft(spectrum)[: len(samples)]
    noise = np.pad(noise, (0, len(samples) - len(noise)))
    power = float((10 ** (levels(samples)[spoken(samples)] / 10)).mean())
    noise *= np.sqrt(power / 10 ** (SNR / 10) / (noise**2).mean())
    return np.clip(samples + noise, -1.0, 1.0).astype(np.float32)


CONDITIONS: dict[str, Callable[[Samples], Samples]] = {
    "as it is": lambda samples: samples,
    "-20 dB": quieter,
    "5 dB SNR": noisier,
}


# --- the three measurements ---------------------------------------------------------------------------------------


def latencies(heard: Heard, of: Sequence[Utterance]) -> list[Latency]:
    """The latencies of the last words."""
    committed = [
        (at, word)
        for at, unit in heard.units
        if isinstance(unit, Words)
        for word in unit.words[: unit.stable]
    ]
    closed = [at for at, unit in heard.units if isinstance(unit, Words) and unit.final]
    found = []
    for each in of:
        inside = [(at, word) for at, word in committed if each.start - NEAR <= word.start < each.end + NEAR]
        if not inside:
            found.append(Latency(each, None, None, False))
            continue
        at, word = inside[-1]
        final = next((moment for moment in closed if moment >= at), None)
        right = norm(word.text)[-1:] == list(each.words[-1:])
        found.append(Latency(each, at - each.end, None if final is None else final - each.end, right))
    return found


def measure_ends(hear: Player, media: Path) -> tuple[str, Any]:
    """Table and figures of `ends`."""
    clip, of = spliced(list(utterances(media)))
    every = latencies(hear(np.concatenate([clip, TAIL])), of)
    heads = ("utterances", "n", "last word right", "committed p50/p95/max s", "closed p50/p95/max s")

    def row(name: str, some: Sequence[Latency]) -> tuple[str, ...]:
        cells = []
        for late in ([one.committed for one in some], [one.final for one in some]):
            known = [one for one in late if one is not None]
            cells.append(
                " / ".join(f"{percentile(known, share) or 0.0:.2f}" for share in (50, 95, 100))
                if known
                else "-"
            )
        return (name, str(len(some)), f"{sum(one.right for one in some)} of {len(some)}", *cells)

    sources = list(dict.fromkeys(one.utterance.source for one in every))
    rows = [row(source, [one for one in every if one.utterance.source == source]) for source in sources]
    told = [(one.utterance.source, one.utterance.end, one.committed, one.final, one.right) for one in every]
    return markdown(heads, [*rows, row("all", every)]), told


@dataclass(frozen=True, slots=True)
class Compared:
    """One recording in one condition.

    `ours`, `theirs`: edits at each word, of streaming and of offline decoding. `fewer`: how many words less than were said, of both.
    `unheard`: the ends of the words missed where voice activity found nobody, seconds; None: nobody knows when they were spoken.
    """

    condition: str
    name: str
    ours: score_captions.Counts
    theirs: score_captions.Counts
    fewer: tuple[int, int]
    unheard: tuple[float, ...] | None


def compared(condition: str, name: str, truth: Truth, heard: Heard, decoded: Sequence[str]) -> Compared:
    """The word errors of a run beside offline decoding, and what voice activity has to do with them."""
    words = [piece for word in heard.stable for piece in norm(word.text)]
    unheard = None
    if truth.ends is not None:
        there, speech = {place for place, _ in score_captions.align(truth.words, words)[0]}, stretches(heard)
        missed = [end for place, end in enumerate(truth.ends) if place not in there]
        unheard = tuple(end for end in missed if not any(a < end and end - MARK < b for a, b in speech))
    fewer = len(truth.words) - len(words), len(truth.words) - len(decoded)
    return Compared(
        condition,
        name,
        score_captions.errors(truth.words, words),
        score_captions.errors(truth.words, decoded),
        fewer,
        unheard,
    )


def stretches(heard: Heard) -> list[tuple[float, float]]:
    """Where voice activity heard somebody: (start, end) in seconds."""
    found: list[tuple[float, float]] = []
    for _, unit in heard.units:
        if isinstance(unit, Speech):
            found = (
                [*found, (unit.at, float("inf"))] if unit.active else [*found[:-1], (found[-1][0], unit.at)]
            )
    return found


def measure_hard(
    hear: Player, decode: Callable[[Samples], list[str]], media: Path, seconds: float
) -> tuple[str, Any]:
    """Table and figures of `hard`."""
    every: list[Compared] = []
    for folder in ("speech", "noisy"):
        for entry in entries(media, folder):
            path = media / entry["path"]
            truth, samples = truth_of(path), read(path, seconds)
            if truth is None or (truth.ends is None and entry["duration_s"] > seconds):
                continue  # where it would have to be cut nobody knows
            truth = truth.until(seconds)
            print(f"{entry['path']}: {len(samples) / SAMPLE_RATE:.0f} s", file=sys.stderr, flush=True)
            for condition, change in (
                CONDITIONS.items() if folder == "speech" else {"recorded": CONDITIONS["as it is"]}.items()
            ):
                changed = change(samples)
                heard = hear(np.concatenate([changed, TAIL]))
                every.append(compared(condition, path.stem, truth, heard, decode(changed)))
    rows, told = [], []
    for condition in CONDITIONS:
        some = [one for one in every if one.condition == condition]
        rows.append(_row(f"{condition}, {len(some)} files", some))
    rows += [_row(f"noisy/{one.name}", [one]) for one in every if one.condition == "recorded"]
    for one in every:
        counts = {
            "words": len(one.ours),
            "edits": int(one.ours.sum()),
            "edits_offline": int(one.theirs.sum()),
        }
        told.append(
            {
                "condition": one.condition,
                "name": one.name,
                **counts,
                "fewer": one.fewer,
                "unheard": one.unheard,
            }
        )
    heads = (
        "speech",
        "words",
        "WER %",
        "offline %",
        "points",
        "upper 95 %",
        "words fewer / offline",
        "unheard",
    )
    return markdown(heads, rows), told


def _row(name: str, some: Sequence[Compared]) -> tuple[str, ...]:
    words = sum(len(one.ours) for one in some)
    ours, theirs = (
        100 * sum(int(counts.sum()) for counts in of) / words
        for of in ([o.ours for o in some], [o.theirs for o in some])
    )
    pieces = [
        np.concatenate([score_captions.pieces(counts) for counts in of])
        for of in ([o.ours for o in some], [o.theirs for o in some])
    ]
    gap = score_captions.compare(*pieces)
    bound = (
        f"{100 * gap.upper:+.1f}" if gap is not None and gap.pieces >= 10 else "-"
    )  # fewer pieces bound nothing
    timed = [one.unheard for one in some if one.unheard is not None]
    fewer = f"{sum(one.fewer[0] for one in some)} / {sum(one.fewer[1] for one in some)}"
    unheard = str(sum(len(one) for one in timed)) if timed else "-"
    return (name, str(words), f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}", bound, fewer, unheard)


def measure_silence(hear: Player, media: Path) -> tuple[str, Any]:
    """Table and figures of `silence`."""
    rows, told = [], []
    for entry in entries(media, "non_speech"):
        heard = hear(np.concatenate([read(media / entry["path"]), TAIL]))
        finals = sum(isinstance(unit, Words) and unit.final for _, unit in heard.units)
        shown = max((len(unit.words) for _, unit in heard.units if isinstance(unit, Words)), default=0)
        told.append(
            (entry["path"], entry["duration_s"], finals, len(heard.stable), shown, len(stretches(heard)))
        )
        rows.append((Path(entry["path"]).stem, f"{entry['duration_s']:.0f}", *map(str, told[-1][2:])))
    totals = [sum(one[place] for one in told) for place in range(1, 6)]
    rows.append(("all", f"{totals[0]:.0f}", *map(str, totals[1:])))
    heads = ("no speech", "s", "final captions", "committed words", "words shown at once", "taken for speech")
    return markdown(heads, rows), told


def report(
    settings: Settings, hear: Player, media: Path, only: str | None, seconds: float
) -> Iterator[tuple[str, str, Any]]:
    """(name, table, figures) of each measurement that is wanted, as it is done."""
    if only in (None, "ends"):
        yield "ends", *measure_ends(hear, media)
    if only in (None, "silence"):
        yield "silence", *measure_silence(hear, media)
    if only in (None, "hard"):
        decode = offline(settings.models.dir / "models" / settings.hear.model, "en")
        yield "hard", *measure_hard(hear, decode, media, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--only", choices=("ends", "hard", "silence"))
    parser.add_argument(
        "--seconds", type=float, default=LONGEST, help="of each recording for `hard` (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="where the figures of each recording go")
    chosen = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # the tables alone go to stdout
    settings = settings_of(chosen)
    figures = {}
    with hearing(settings, live=chosen.live) as (runner, role, _):

        def hear(samples: Samples) -> Heard:
            return runner.run(play(samples, role, settings.hear))

        for name, table, told in report(settings, hear, chosen.media.resolve(), chosen.only, chosen.seconds):
            figures[name] = told
            print(f"{table}\n", flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
