"""Word errors with and without the words of the screen as prompt terms of the recogniser.

    python -m load_tests.screen_vocabulary [--only NAME] [--seconds N] [--stream]

Each recording is recognised without slides, with its own, with words that sound nearly like those of its own,
and with the slides of other recordings. Where it has none, every other sentence of its transcript is a line,
LINES to a slide. An invention is a term of the slides that the captions have where the transcript does not;
in brackets those that they have without the terms too. Sentences are decoded one by one, as at a pause;
--stream sends the audio through the decoding loop on a virtual clock, where a call takes a fixed time.
Recordings without speech are cut every PIECE seconds and decoded without voice activity detection, which is
harder than a session.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.asr import load_whisper
from engines.fetch import folder_of
from engines.whisper import SEPARATOR, Whisper
from load_tests.hearing import ENGINE, MEDIA
from streamsvc.core import config
from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Settings
from streamsvc.core.types import SAMPLE_RATE, TextLine
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import Samples, read
from streamsvc.evaluation.score_captions import align, norm
from streamsvc.evaluation.session_run import FixedTimeRole, load_engine
from streamsvc.evaluation.transcriber_run import play
from streamsvc.speech.hypothesis import is_no_speech
from streamsvc.speech.vocabulary import ScreenVocabulary

LINES = 4  # of a slide made of a transcript
PIECE = 7.0  # seconds
LONGEST = 25.0  # seconds of a sentence that one window can hold
MARGIN = 0.2  # seconds around a sentence
CONTEXT = 40  # words before a sentence that are its prompt, as in a session
NEAR = 20  # words
TERMS_MIN = 8  # of a recording's slides, so that another is recognised beside them
OTHER_SECONDS = 20.0  # for which another recording's slide stands
ALIKE = str.maketrans(
    "bpdtgkcszfvmnlrBPDTGKCSZFVMNLR", "pbtdkggzsvfnmrlPBTDKGGZSVFNMRL"
)  # voiced and voiceless
ALIKE_MIN = 5  # letters
QUESTIONS = MEDIA.parent / "questions"
HEADS = ("recording", "slides", "edits/words", "terms right/spoken", "inventions", "CPU s", "tokens")
Slide = tuple[float, tuple[str, ...]]  # the second from which it stands, its lines
Segment = tuple[float, float, str]  # start and end in seconds, the words


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording, the sentences spoken in it, and its slides."""

    name: str
    samples: Samples
    segments: tuple[Segment, ...]
    slides: tuple[Slide, ...]

    @property
    def words(self) -> list[str]:
        """The words spoken."""
        return [word for _, _, text in self.segments for word in norm(text)]

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Result:
    """Texts recognised, by sentence; CPU seconds of the model; tokens of the terms in a prompt on average."""

    texts: list[str]
    cpu: float
    tokens: float

    @property
    def words(self) -> list[str]:
        """The words, as they are compared."""
        return norm(" ".join(self.texts))


class Slides:
    """Slides that stand beside a recording. `ever`: all terms given, as compared words."""

    def __init__(self, slides: Sequence[Slide]) -> None:
        self._due = list(slides)
        self._screen = ScreenVocabulary()
        self.ever: set[str] = set()

    def terms(self, at: float) -> tuple[str, ...]:
        """The terms at a second; seconds come in order."""
        while self._due and self._due[0][0] <= at:
            start, texts = self._due.pop(0)
            lines = [TextLine(text, 1.0, 0.1, 0.1 * n, 0.8, 0.05) for n, text in enumerate(texts)]
            self._screen.read(lines, start)
        found = self._screen.terms(at)
        self.ever.update(word for term in found for word in norm(term))
        return found


# --- recordings ---------------------------------------------------------------------------------------------


def slides_of(segments: Sequence[Segment]) -> tuple[Slide, ...]:
    """Slides made of every other sentence of a transcript."""
    lines = segments[::2]
    return tuple(
        (lines[first][0], tuple(text for _, _, text in lines[first : first + LINES]))
        for first in range(0, len(lines), LINES)
    )


def alike(slides: Sequence[Slide]) -> tuple[Slide, ...]:
    """Slides with words that sound nearly like those of these slides, and are none."""

    def changed(match: re.Match[str]) -> str:
        word = match[0]
        return word.translate(ALIKE)[0] + word[1:] if len(word) >= ALIKE_MIN else word

    return tuple((start, tuple(re.sub(r"\w+", changed, line) for line in lines)) for start, lines in slides)


def recordings(media: Path, seconds: float, longest: float = LONGEST) -> Iterator[Recording]:
    """The recordings whose English sentences have times, and those without speech, cut at `seconds`.

    Sentences of more than `longest` seconds are left out.
    """
    for path in (media / "scenarios" / "lecture_stone_cutter.json", QUESTIONS / "meeting.json"):
        truth = json.loads(path.read_text("utf-8"))
        slides = tuple((float(one["start"]), tuple(one["text"].split("\n"))) for one in truth["intervals"])
        segments = _segments(truth["speech"], seconds, longest)
        yield Recording(path.stem, read(path.with_suffix(".mp4"), seconds), segments, slides)
    for entry in json.loads((media / "manifest.json").read_text("utf-8"))["files"]:
        path = media / entry["path"]
        if (
            path.suffix != ".flac"
            or entry["duration_s"] < PIECE
            or path.stem == "crimson_17_the_stone_cutter"
        ):
            continue
        if entry["language"] is None:
            yield Recording(path.stem, read(path, seconds), (), ())
        elif entry["language"] == "en" and (
            segments := _segments(entry.get("segments") or (), seconds, longest)
        ):
            yield Recording(path.stem, read(path, seconds), segments, slides_of(segments))


def _segments(told: Sequence[Mapping[str, Any]], seconds: float, longest: float) -> tuple[Segment, ...]:
    return tuple(
        (one["start"], one["end"], one["text"])
        for one in told
        if one["end"] <= seconds and one["end"] - one["start"] <= longest
    )


# --- runs ---------------------------------------------------------------------------------------------------


def by_sentence(whisper: Whisper, recording: Recording, slides: Slides, plain: Result | None) -> Result:
    """Decode sentence by sentence. The prompt is what was recognised before, without terms (`plain`)."""
    pieces = tuple((n * PIECE, (n + 1) * PIECE, "") for n in range(int(recording.seconds / PIECE)))
    texts: list[str] = []
    tokens = 0
    began = time.process_time()
    for start, end, _ in recording.segments or pieces:
        first, last = max(0.0, start - MARGIN), end + MARGIN
        terms = slides.terms(end)
        before = texts if plain is None else plain.texts[: len(texts)]
        payload = {
            "samples": recording.samples[int(first * SAMPLE_RATE) : int(last * SAMPLE_RATE)],
            "screen_terms": terms,
            "before": " ".join(" ".join(before).split()[-CONTEXT:]),
            "beam": 3,
        }
        tokens += len(whisper.tokenizer.encode(SEPARATOR.join(terms), add_special_tokens=False).ids)
        result = whisper.transcribe(payload)
        silent = is_no_speech(result["no_speech"], result["log_probability"])
        texts.append("" if silent else result["text"])
    return Result(texts, time.process_time() - began, tokens / max(1, len(texts)))


def streamed(engine: Any, settings: Settings, recording: Recording, slides: Slides) -> Result:
    """Send the audio through the decoding loop as it would come live."""
    role = FixedTimeRole(lambda: engine)
    began = time.process_time()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        played = runner.run(play(recording.samples, role, settings.hear, screen_terms=slides.terms))
    return Result([word.text for word in played.stable], time.process_time() - began, 0.0)


def inventions(spoken: Sequence[str], found: Sequence[str], terms: set[str]) -> list[str]:
    """Terms that were found where the transcript, NEAR words to both sides, does not have them."""
    pairs = align(spoken, found)[0]
    places = {index: place for place, index in pairs}
    invented, place = [], 0
    for index, word in enumerate(found):
        place = places.get(index, place)
        if word in terms and word not in spoken[max(0, place - NEAR) : place + NEAR]:
            invented.append(word)
    return invented


def rows_of(
    recording: Recording,
    others: Mapping[str, Sequence[Slide]],
    recognise: Callable[[Recording, Slides, Result | None], Result],
) -> Iterator[tuple[str, ...]]:
    """One row a run: without slides, with its own, with words like its own, with each other's."""
    spoken = recording.words
    plain = recognise(recording, Slides(()), None)
    own = Slides(recording.slides)
    for _, end, _ in recording.segments:
        own.terms(end)
    given: dict[str, Sequence[Slide]] = {"none": ()}
    if recording.slides:
        given |= {"own": recording.slides, "alike": alike(recording.slides)}
    for name, slides in {**given, **others}.items():
        shown = Slides(slides)
        result = plain if name == "none" else recognise(recording, shown, plain)
        pairs, edits = align(spoken, result.words)
        right = {index for index, _ in pairs}
        terms = [index for index, word in enumerate(spoken) if word in own.ever]
        invented = inventions(spoken, result.words, shown.ever)
        before = inventions(spoken, plain.words, shown.ever)
        yield (
            recording.name,
            name,
            f"{edits}/{len(spoken)}",
            f"{sum(index in right for index in terms)}/{len(terms)}",
            f"{len(invented)} ({len(before)}) {' '.join(invented)}".rstrip(),
            f"{result.cpu:.1f}",
            f"{result.tokens:.0f}",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder with manifest.json (%(default)s)")
    parser.add_argument("--only", action="append", default=[], help="name of a recording (repeatable)")
    parser.add_argument("--others", type=int, default=2, help="recordings whose slides are unrelated ones")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each recording (%(default)s)")
    parser.add_argument("--stream", action="store_true", help="through the decoding loop")
    chosen = parser.parse_args()
    settings = config.load(None, hear={"language": "en"})
    models = settings.models.dir / "models"
    if chosen.stream:
        engine = load_engine(ENGINE, {"models": str(models), **settings.hear.model_dump()})

        def recognise(recording: Recording, slides: Slides, plain: Result | None) -> Result:
            return streamed(engine, settings, recording, slides)
    else:
        whisper = load_whisper(folder_of(settings.hear.model, models), 1, "cpu")

        def recognise(recording: Recording, slides: Slides, plain: Result | None) -> Result:
            return by_sentence(whisper, recording, slides, plain)

    known = list(recordings(chosen.media, chosen.seconds, math.inf if chosen.stream else LONGEST))
    rows = []
    for place, recording in enumerate(known):
        if chosen.only and recording.name not in chosen.only:
            continue
        others: dict[str, Sequence[Slide]] = {}
        for other in known[place + 1 :] + known[:place]:
            if other.name[:9] == recording.name[:9] or len(others) == chosen.others:
                continue
            slides = tuple((n * OTHER_SECONDS, lines) for n, (_, lines) in enumerate(other.slides))
            given = Slides(slides)
            given.terms(chosen.seconds)
            if len(given.ever) >= TERMS_MIN:
                others[f"of {other.name}"] = slides
        for row in rows_of(recording, others, recognise):
            rows.append(row)
            print(" | ".join(row), flush=True)
    print(markdown_table(HEADS, tuple(rows)))


if __name__ == "__main__":
    main()
