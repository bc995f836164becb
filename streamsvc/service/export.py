"""A session as a record to read, in Markdown. Pure.

Titles, captions, screen text, questions and answers are text, never markup: what Markdown or HTML would read
as such is escaped (CommonMark 0.31, section 2.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from streamsvc.core.types import Answer, Cue, Evidence, Gap, Scene, Translation
from streamsvc.core.units import Reply
from streamsvc.speech.captions import text_of
from streamsvc.timeline.lines import timestamp
from streamsvc.timeline.notes import central, quoted
from streamsvc.timeline.screen_history import Screen

PAUSE = 2.0  # seconds of silence that end a paragraph
LONG = 45.0  # seconds after which a paragraph ends with its sentence
LONGEST = 90.0  # seconds of one paragraph
NOTE_SECONDS = 60.0  # of speech, for which there is one note
NOTES_MAX = 20
_NOTED_FROM = 6  # sentences; fewer are read as quickly as their notes
_SENTENCE_ENDS = tuple(".!?。！？…\"'”’)")
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$&])")
_BLOCK = re.compile(r"^([-+=:]|\d+(?=[.)]))")  # begins a list, a heading or a table
_GAPS: Mapping[str, str] = {  # reason of a caption.gap -> words
    "packet_loss": "the sound was lost on the way",
    "overload": "this machine was too busy",
    "worker_restart": "the speech model was restarted",
}
_HEARD: Mapping[str, str] = {
    "speech": "heard",
    "screen": "on the screen",
    "sight": "seen",
    "timeline": "from the timeline",
    "image": "in the question's picture",
}
_OUTCOMES: Mapping[str, str] = {"closest": "Nearest passages, no answer: ", "declined": "Not answered: "}


@dataclass(frozen=True, slots=True)
class Record:
    """What is written of a session. `ended`: it is complete. `failure`: why it failed; "": it did not.

    `sentences`: of the transcript, for the notes. `replies`: what the reader may see. `seconds`: its length.
    """

    session: str
    started_utc: datetime
    seconds: float
    ended: bool
    cues: Sequence[Cue] = ()
    translations: Sequence[Translation] = ()
    sentences: Sequence[Evidence] = ()
    gaps: Sequence[Gap] = ()
    screens: Sequence[Screen] = ()
    scenes: Sequence[Scene] = ()
    replies: Sequence[Reply] = ()
    failure: str = ""


def title_of(screens: Sequence[Screen]) -> str:
    """The title of a session: the first that was read on the screen; "": none was."""
    return next((screen.title for screen in screens if screen.title), "")


def to_markdown(record: Record) -> str:
    """The whole record: title, notes, transcript, screens, scenes, questions and answers."""
    title = title_of(record.screens) or f"Session {record.session}"
    parts = [f"# {escaped(title)}", "\n".join(_facts(record))]
    sections = {
        "Notes": _notes(record),
        "Transcript": _transcript(record) or ["Nothing was said that could be captioned."],
        **_translated(record),
        "Slides and screens": [_screen(screen) for screen in record.screens if screen.lines],
        "Scenes": ["\n".join(_scene(scene) for scene in record.scenes)] if record.scenes else [],
        "Questions and answers": [_exchange(reply) for reply in record.replies],
    }
    for heading, blocks in sections.items():
        if blocks:
            parts += [f"## {heading}", *blocks]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text on one line that Markdown shows as it is."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    line = _MARKUP.sub(r"\\\1", line)
    begins = _BLOCK.match(line)
    if begins is None:
        return line
    start = begins.end() if begins[1].isdigit() else 0  # of a number, its full stop is escaped
    return f"{line[:start]}\\{line[start:]}"


def _facts(record: Record) -> Iterator[str]:
    yield f"- Session: `{record.session}`"
    yield f"- Started: {record.started_utc:%Y-%m-%d %H:%M:%S} UTC"
    yield f"- Length: {timestamp(record.seconds)}{'' if record.ended else ' so far; it is still live'}"
    languages = sorted({cue.language for cue in record.cues})
    if languages:
        yield f"- Spoken: {', '.join(map(escaped, languages))}"
    if record.gaps:
        lost = sum(gap.end - gap.start for gap in _joined(record.gaps))
        yield f"- Not captioned: {lost:.1f} s of sound; the transcript tells where"
    if record.failure:
        yield f"- Ended by an error: {escaped(record.failure)}"


def _notes(record: Record) -> list[str]:
    """The most central sentences, spread over the time."""
    if len(record.sentences) < _NOTED_FROM:
        return []
    most = min(NOTES_MAX, max(3, round(record.seconds / NOTE_SECONDS)))
    chosen = [quoted(part) for part in central(record.sentences, most)]
    return ["\n".join(f"- **{timestamp(part.start)}** {escaped(part.quote)}" for part in chosen)]


def _transcript(record: Record) -> list[str]:
    """Paragraphs with their times, and the gaps between them."""
    gaps = _joined(record.gaps)
    blocks: list[tuple[float, str]] = [(gap.start, _gap(gap)) for gap in gaps]
    for cues in _paragraphs(sorted(record.cues, key=lambda cue: cue.start), gaps):
        text = text_of([word for cue in cues for word in cue.words])
        blocks.append((cues[0].start, f"**{timestamp(cues[0].start)}** {escaped(text)}"))
    return [text for _, text in sorted(blocks, key=lambda block: block[0])]


def _paragraphs(cues: Sequence[Cue], gaps: Sequence[Gap]) -> Iterator[list[Cue]]:
    """Cues that are read in one go: no pause, gap or other language lies between them."""
    paragraph: list[Cue] = []
    for cue in cues:
        if paragraph and _ends(paragraph, cue, gaps):
            yield paragraph
            paragraph = []
        paragraph.append(cue)
    if paragraph:
        yield paragraph


def _ends(paragraph: Sequence[Cue], following: Cue, gaps: Sequence[Gap]) -> bool:
    first, last = paragraph[0], paragraph[-1]
    sentence = last.text.rstrip().endswith(_SENTENCE_ENDS)
    seconds = following.end - first.start
    return (
        following.start - last.end >= PAUSE
        or following.language != last.language
        or seconds > LONGEST
        or (sentence and seconds > LONG)
        or any(last.start < gap.start <= following.start for gap in gaps)
    )


def _joined(gaps: Sequence[Gap]) -> list[Gap]:
    """The gaps by start, those that overlap as one, with the reason of the first."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.start):
        if joined and gap.start < joined[-1].end:
            joined[-1] = replace(joined[-1], end=max(joined[-1].end, gap.end))
        else:
            joined.append(gap)
    return joined


def _gap(gap: Gap) -> str:
    why = _GAPS.get(gap.reason, gap.reason.replace("_", " "))
    return f"*{timestamp(gap.start)} to {timestamp(gap.end)}: not captioned, {escaped(why)}.*"


def _translated(record: Record) -> dict[str, list[str]]:
    """A section for each language that captions were translated into."""
    found: dict[str, list[str]] = {}
    for cue in sorted(record.translations, key=lambda cue: cue.start):
        heading = f"Translation ({escaped(cue.language)})"
        found.setdefault(heading, []).append(f"**{timestamp(cue.start)}** {escaped(cue.text)}")
    return found


def _screen(screen: Screen) -> str:
    until = "" if screen.end is None else f" to {timestamp(screen.end)}"
    title = f" {escaped(screen.title)}" if screen.title else ""
    lines = "\n".join(f"> {escaped(line)}  " for line in screen.lines)
    return f"### {timestamp(screen.start)}{until}{title}\n\n{lines}"


def _scene(scene: Scene) -> str:
    unchecked = " (a model's own words, unchecked)" if scene.by == "model" else ""
    return f"- **{timestamp(scene.start)}** {escaped(scene.text)}{unchecked}"


def _exchange(reply: Reply) -> str:
    """One question with its answer and what that rests on."""
    assert isinstance(reply.part, Answer)
    answer = reply.part
    head = f"### {timestamp(reply.at)} {escaped(reply.question)}"
    unchecked = " (unchecked)" if answer.outcome == "answer" and not answer.supported else ""
    told = f"{_OUTCOMES.get(answer.outcome, '')}{escaped(answer.text)}{unchecked}"
    evidence = "\n".join(
        f"- {timestamp(item.start)}, {_HEARD.get(item.kind, escaped(item.kind))}: {escaped(item.quote)}"
        for item in answer.evidence
    )
    return "\n\n".join(part for part in (head, told, evidence) if part)
