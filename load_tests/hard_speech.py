"""Difficult speech: exact latencies, quiet and noisy speech, and recordings without speech.

    python -m load_tests.hard_speech [--only ends|hard|silence] [--model base] [--hear KEY=VALUE ...]
                                     [--live] [--json FILE]

On a virtual clock by default: the models' CPU time is their duration, so other load hardly matters (the call
of the worker process, a few milliseconds, is missing). `--live`: in real time.

  - ends: utterances of speech/ with known silences between them. An utterance ends with its last 10 ms frame
    within QUIETER dB of its loud frames (their 95th percentile); FADE seconds later it is faded out and
    followed by zeros. So no word can end later than that plus FADE. Latencies are those of its last word
    from that end.
  - hard: the recordings of speech/ as they are, at -20 dB, and with pink noise 5 dB below the speech (fixed
    seed), rounded to 16 bits, and the files of noisy/; compared with offline faster-whisper, beam 1, on the
    same samples. "Unheard": words missed outside of the VAD's speech, in recordings with word times.
  - silence: non_speech/: no caption may be closed or shown.
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
from streamsvc.evaluation.caption_bench import offline_decoder
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import Samples, Truth, read, truth_of
from streamsvc.evaluation.score_captions import norm, percentile
from streamsvc.evaluation.transcriber_run import TranscriberRun, play

FRAME = SAMPLE_RATE // 100  # samples: 10 ms
# dB below the loud frames at which speech ends; the rooms of the recordings are 28 dB and more below them
QUIETER = 25.0
FADE = 0.05  # seconds
PAUSES = (1.2, 1.6, 2.0, 2.8)  # seconds between utterances, in turn
NEAR = 0.4  # seconds around an utterance in which a word is one of it
MARK = 0.3  # seconds by which a marked end of a word may be wrong
TAIL = np.zeros(2 * SAMPLE_RATE, np.float32)
LONGEST = 120.0  # seconds of a recording that are used
SNR = 5.0  # dB
QUIET = -20.0  # dB
SEED = 3
Player = Callable[[Samples], TranscriberRun]


# --- material -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Utterance:
    """An utterance between two silences: start and end in the spliced clip, seconds; words (see `norm`)."""

    source: str
    start: float
    end: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the end of an utterance to the commit of its last word, and to the close of its cue.

    None: no word was recognised, or no cue closed. `right`: the last committed word is the last spoken one.
    """

    utterance: Utterance
    committed: float | None
    final: float | None
    right: bool


def levels(samples: Samples) -> Samples:
    """Power of each whole frame in dB, shape (n // FRAME,)."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    decibels: Samples = (10 * np.log10((frames**2).mean(axis=1) + 1e-12)).astype(np.float32)
    return decibels


def speech_frames(samples: Samples) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each frame is within QUIETER dB of the loud ones, shape (n // FRAME,)."""
    power = levels(samples)
    return power > np.percentile(power, 95) - QUIETER


def cut(samples: Samples) -> tuple[Samples, float]:
    """Trim an utterance to its speech and fade it out; return it and its end in seconds (see the module)."""
    loud = np.flatnonzero(speech_frames(samples))
    first, last = max(0, int(loud[0]) - 5), int(loud[-1]) + 1
    fade = int(FADE * SAMPLE_RATE)
    trimmed = samples[first * FRAME : last * FRAME + fade].copy()
    trimmed = np.concatenate([trimmed, np.zeros((last - first) * FRAME + fade - len(trimmed), np.float32)])
    trimmed[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return trimmed, (last - first) * FRAME / SAMPLE_RATE


def spliced(parts: Sequence[tuple[str, Samples, Sequence[str]]]) -> tuple[Samples, list[Utterance]]:
    """Join utterances (source, samples, words) into one clip with PAUSES of zeros between them."""
    blocks: list[Samples] = [np.zeros(SAMPLE_RATE, np.float32)]
    at = 1.0
    spoken = []
    for number, (source, samples, words) in enumerate(parts):
        trimmed, end = cut(samples)
        spoken.append(Utterance(source, at, at + end, tuple(words)))
        blocks += [trimmed, np.zeros(int(PAUSES[number % len(PAUSES)] * SAMPLE_RATE), np.float32)]
        at += (len(trimmed) + len(blocks[-1])) / SAMPLE_RATE
    return np.concatenate(blocks), spoken


def utterances(media: Path) -> Iterator[tuple[str, Samples, list[str]]]:
    """Utterances of speech/ between silences: single sentences, and telephone prompts 1 s apart."""
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
    """The manifest's entries of English or wordless recordings in a folder."""
    files = json.loads((media / "manifest.json").read_text(encoding="utf-8"))["files"]
    return [
        entry
        for entry in files
        if entry["path"].startswith(f"{folder}/") and entry.get("language") in ("en", None)
    ]


def attenuated(samples: Samples) -> Samples:
    """Attenuate by QUIET dB and round to 16 bits, as from a microphone."""
    return (np.round(samples * 10 ** (QUIET / 20) * 32768) / 32768).astype(np.float32)


def with_noise(samples: Samples) -> Samples:
    """Add pink noise SNR dB below the mean power of the speech frames."""
    white = np.random.default_rng(SEED).standard_normal(len(samples) + 1)
    spectrum = np.fft.rfft(white)
    flat = 20 * len(white) / SAMPLE_RATE  # below 20 Hz
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), flat))
    noise = np.fft.irfft(spectrum)[: len(samples)]
    noise = np.pad(noise, (0, len(samples) - len(noise)))
    power = float((10 ** (levels(samples)[speech_frames(samples)] / 10)).mean())
    noise *= np.sqrt(power / 10 ** (SNR / 10) / (noise**2).mean())
    return np.clip(samples + noise, -1.0, 1.0).astype(np.float32)


CONDITIONS: dict[str, Callable[[Samples], Samples]] = {
    "as it is": lambda samples: samples,
    "-20 dB": attenuated,
    "5 dB SNR": with_noise,
}


# --- the three measurements ---------------------------------------------------------------------------------


def latencies(run: TranscriberRun, of: Sequence[Utterance]) -> list[Latency]:
    """The latency of the last word of each utterance."""
    committed = [
        (at, word) for at, unit in run.units if isinstance(unit, Words) for word in unit.words[: unit.stable]
    ]
    closed = [at for at, unit in run.units if isinstance(unit, Words) and unit.final]
    measured = []
    for one in of:
        inside = [(at, word) for at, word in committed if one.start - NEAR <= word.start < one.end + NEAR]
        if not inside:
            measured.append(Latency(one, None, None, False))
            continue
        at, word = inside[-1]
        final = next((moment for moment in closed if moment >= at), None)
        right = norm(word.text)[-1:] == list(one.words[-1:])
        measured.append(Latency(one, at - one.end, None if final is None else final - one.end, right))
    return measured


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
    data = [(one.utterance.source, one.utterance.end, one.committed, one.final, one.right) for one in every]
    return markdown_table(heads, [*rows, row("all", every)]), data


@dataclass(frozen=True, slots=True)
class Comparison:
    """One recording in one condition.

    `ours`, `theirs`: edits at each word, of streaming and of offline decoding. `fewer`: words spoken minus
    words recognised, of both. `unheard`: ends in seconds of the words missed outside of the VAD's speech;
    None: no word times.
    """

    condition: str
    name: str
    ours: score_captions.Counts
    theirs: score_captions.Counts
    fewer: tuple[int, int]
    unheard: tuple[float, ...] | None


def compare(
    condition: str, name: str, truth: Truth, run: TranscriberRun, decoded: Sequence[str]
) -> Comparison:
    """Compare a run with offline decoding, and with the VAD's speech."""
    words = [piece for word in run.stable for piece in norm(word.text)]
    unheard = None
    if truth.ends is not None:
        there, speech = {place for place, _ in score_captions.align(truth.words, words)[0]}, speech_spans(run)
        missed = [end for place, end in enumerate(truth.ends) if place not in there]
        unheard = tuple(end for end in missed if not any(a < end and end - MARK < b for a, b in speech))
    fewer = len(truth.words) - len(words), len(truth.words) - len(decoded)
    return Comparison(
        condition,
        name,
        score_captions.errors(truth.words, words),
        score_captions.errors(truth.words, decoded),
        fewer,
        unheard,
    )


def speech_spans(run: TranscriberRun) -> list[tuple[float, float]]:
    """Spans of speech by the VAD: (start, end) in seconds."""
    spans: list[tuple[float, float]] = []
    for _, unit in run.units:
        if isinstance(unit, Speech):
            spans = (
                [*spans, (unit.at, float("inf"))] if unit.active else [*spans[:-1], (spans[-1][0], unit.at)]
            )
    return spans


def measure_hard(
    hear: Player, decode: Callable[[Samples], list[str]], media: Path, seconds: float
) -> tuple[str, Any]:
    """Table and figures of `hard`."""
    every: list[Comparison] = []
    for folder in ("speech", "noisy"):
        for entry in entries(media, folder):
            path = media / entry["path"]
            truth, samples = truth_of(path), read(path, seconds)
            if truth is None or (truth.ends is None and entry["duration_s"] > seconds):
                continue  # cannot be cut without word times
            truth = truth.until(seconds)
            print(f"{entry['path']}: {len(samples) / SAMPLE_RATE:.0f} s", file=sys.stderr, flush=True)
            for condition, change in (
                CONDITIONS.items() if folder == "speech" else {"recorded": CONDITIONS["as it is"]}.items()
            ):
                changed = change(samples)
                heard = hear(np.concatenate([changed, TAIL]))
                every.append(compare(condition, path.stem, truth, heard, decode(changed)))
    rows, data = [], []
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
        data.append(
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
    return markdown_table(heads, rows), data


def _row(name: str, some: Sequence[Comparison]) -> tuple[str, ...]:
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
    # The bound of fewer pieces is worthless.
    bound = f"{100 * gap.upper:+.1f}" if gap is not None and gap.pieces >= 10 else "-"
    timed = [one.unheard for one in some if one.unheard is not None]
    fewer = f"{sum(one.fewer[0] for one in some)} / {sum(one.fewer[1] for one in some)}"
    unheard = str(sum(len(one) for one in timed)) if timed else "-"
    return (name, str(words), f"{ours:.1f}", f"{theirs:.1f}", f"{ours - theirs:+.1f}", bound, fewer, unheard)


def measure_silence(hear: Player, media: Path) -> tuple[str, Any]:
    """Table and figures of `silence`."""
    rows, data = [], []
    for entry in entries(media, "non_speech"):
        heard = hear(np.concatenate([read(media / entry["path"]), TAIL]))
        finals = sum(isinstance(unit, Words) and unit.final for _, unit in heard.units)
        shown = max((len(unit.words) for _, unit in heard.units if isinstance(unit, Words)), default=0)
        data.append(
            (entry["path"], entry["duration_s"], finals, len(heard.stable), shown, len(speech_spans(heard)))
        )
        rows.append((Path(entry["path"]).stem, f"{entry['duration_s']:.0f}", *map(str, data[-1][2:])))
    totals = [sum(one[place] for one in data) for place in range(1, 6)]
    rows.append(("all", f"{totals[0]:.0f}", *map(str, totals[1:])))
    heads = ("no speech", "s", "final captions", "committed words", "words shown at once", "taken for speech")
    return markdown_table(heads, rows), data


def report(
    settings: Settings, hear: Player, media: Path, only: str | None, seconds: float
) -> Iterator[tuple[str, str, Any]]:
    """(name, table, figures) of each chosen measurement, as soon as it is finished."""
    if only in (None, "ends"):
        yield "ends", *measure_ends(hear, media)
    if only in (None, "silence"):
        yield "silence", *measure_silence(hear, media)
    if only in (None, "hard"):
        decode = offline_decoder(settings.models.dir / "models" / settings.hear.model, "en")
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
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout: only the tables
    settings = settings_of(chosen)
    figures = {}
    with hearing(settings, live=chosen.live) as (runner, role, _):

        def hear(samples: Samples) -> TranscriberRun:
            return runner.run(play(samples, role, settings.hear))

        for name, table, data in report(settings, hear, chosen.media.resolve(), chosen.only, chosen.seconds):
            figures[name] = data
            print(f"{table}\n", flush=True)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
