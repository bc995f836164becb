"""What a language model that sees is shown of a session, which questions it is asked, and what of its words may be told. Pure.

What was told once is never edited, moved or told anew, so that what the model has read of it can be kept (engines/vlm.py): sentences,
lines of the screen and keyframes stand in the order in which they became known, and the oldest quarter goes where there are too many.
What the model says of a picture, nothing here can check; what it says of words is told only where they stand in what was told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamsvc.answers.rules.visual_questions import Way
from streamsvc.core.types import Evidence, Word
from streamsvc.timeline.timeline import Timeline, labels_of

MOST = 800  # things that are told, all kinds together: more than a window of 4096 tokens holds
LONGEST = 600  # characters of one of them
SETTLED = 3.0  # seconds after which nothing more comes to a sentence without a full stop
CITED = 4  # keyframes that an answer names, the newest


@dataclass(frozen=True, slots=True)
class Item:
    """One thing said or shown, from session second `at` to `end`. `picture`: the engine's name of a keyframe, else ""."""

    at: float
    end: float
    kind: str  # "speech", "screen" or "picture"
    text: str
    picture: str = ""

    def payload(self) -> dict[str, Any]:
        """As the engines take it."""
        told = {"at": self.at, "kind": self.kind, "text": self.text}
        return told | {"picture": self.picture} if self.picture else told


@dataclass(frozen=True, slots=True)
class Told:
    """What has been told, by arrival; it grows at its end. `gone`: things that fell off its head; `cut`: texts that were too long.

    `heard`, `read`, `pictured`: how far speech, screen and pictures have been told.
    """

    items: tuple[Item, ...] = ()
    gone: int = 0
    cut: int = 0
    heard: float = -1.0
    read: frozenset[tuple[float, str]] = frozenset()
    pictured: float = -1.0

    def payload(self, way: Way) -> list[dict[str, Any]]:
        """As the engines take it; without the pictures for a question that is about words."""
        return [item.payload() for item in self.items if way == "look" or item.kind != "picture"]


def grown(told: Told, timeline: Timeline, pictures: Mapping[float, str], now: float) -> Told:
    """What has been told, and behind it what has become known since.

    Args:
        told: before.
        timeline: all that is known.
        pictures: the engine's names of the keyframes that it has seen, by session second.
        now: session seconds.
    """
    fresh = [*_said(told, timeline, now), *_read(told, timeline), *_pictured(told, timeline, pictures)]
    if not fresh:
        return told
    cut = sum(len(item.text) > LONGEST for item in fresh)
    short = (
        replace(item, text=item.text[: LONGEST - 1] + "…") if len(item.text) > LONGEST else item
        for item in fresh
    )
    items = (
        *told.items,
        *sorted(short, key=lambda item: (item.at, item.kind != "picture")),
    )  # a picture, and then what was read in it
    over = len(items) - MOST
    gone = -(-over // (MOST // 4)) * (MOST // 4) if over > 0 else 0
    return Told(
        items[gone:],
        told.gone + gone,
        told.cut + cut,
        max([told.heard, *(item.end for item in fresh if item.kind == "speech")]),
        frozenset((line.start, line.text) for line in timeline.text.all()),
        max([told.pictured, *(item.at for item in fresh if item.picture)]),
    )


def _said(told: Told, timeline: Timeline, now: float) -> list[Item]:
    """Sentences to which nothing more comes; of one that was told too early, the rest."""
    found: list[Item] = []
    said = timeline.said
    if said and now - said[-1].end < SETTLED:
        said = said[:-1]
    for sentence in reversed(said):
        if sentence.end <= told.heard:
            break
        words = [word for word in sentence.words if _middle(word) > told.heard]
        if words:
            found.append(
                Item(words[0].start, words[-1].end, "speech", plain(" ".join(word.text for word in words)))
            )
    return found[::-1]


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


def _read(told: Told, timeline: Timeline) -> list[Item]:
    """Lines of the screen, those that came up together as one thing."""
    together: dict[float, list[str]] = {}
    ends: dict[float, float] = {}
    for line in timeline.text.all():
        if (line.start, line.text) not in told.read and (text := plain(line.text)):
            together.setdefault(line.start, []).append(text)
            ends[line.start] = max(ends.get(line.start, 0.0), timeline.end_of(line))
    return [Item(at, ends[at], "screen", " / ".join(texts)) for at, texts in together.items()]


def _pictured(told: Told, timeline: Timeline, pictures: Mapping[float, str]) -> list[Item]:
    found = []
    for at, key in sorted(pictures.items()):
        if at > told.pictured:
            shown = timeline.at(at)
            labels = labels_of(shown.sight) if shown is not None and shown.sight is not None else ""
            found.append(Item(at, at, "picture", labels or "a picture", key))
    return found


def plain(text: str) -> str:
    """A text in one line, without what is no text: what people write can then be taken for nothing else."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


# --- which questions ------------------------------------------------------------------------------------------------


# --- what may be told -----------------------------------------------------------------------------------------------

_END = re.compile(r"[.!?;…]+[\"'”’)\]]*(?=\s)|(?<=\S)\s*\n")
_MARKS = re.compile(r"[*`]+|^#+ ")
_LABEL = re.compile(
    r"^(?:\[[\d.]+\] ?)?(?:(?:answer|picture|speech|screen): ?)?", re.IGNORECASE
)  # as items are written for it
_DECLINED = re.compile(
    r"\b(?:cannot|can't|can not|unable|not able|unclear|impossible|unknown|sorry|no (?:information|picture|image)|"
    r"not (?:visible|shown|seen|heard|specified|mentioned|provided|clear|possible|enough|sure|known)|"
    r"(?:do(?:es)?|did|have|has|had)(?: not|n't) (?:know|show|see|seen|hear|heard|tell|say|mention|specify|provide|contain))\b",
    re.IGNORECASE,
)

_TELLS = re.compile(
    r"\b(says?|said|saying|reads?|writ(?:es|ten)|titled?|heading|words?|mention\w*|stat(?:es|ed)|explain\w*|ask(?:s|ed)|tells?|told|"
    r"according to|talk\w* about|speak\w* (?:of|about)|because)\b|[\"“”«»]"
)


def ended(text: str) -> int:
    """How many characters of a model's growing answer are its first whole clause; 0: it is not whole yet."""
    found = _END.search(text)
    return found.end() if found else 0


def clean(text: str) -> str:
    """A clause of a model in one line, without marks of emphasis; "" where nothing is said in it."""
    line = _LABEL.sub("", plain(_MARKS.sub("", text)))
    return line if any(letter.isalnum() for letter in line) else ""


def declined(clause: str) -> bool:
    """Whether a model says that it does not know."""
    return _DECLINED.search(clause.replace("’", "'")) is not None


def of_words(clause: str) -> bool:
    """Whether a clause is about what was said or is written, or gives reasons, and so is not about how a picture looks."""
    return _TELLS.search(clause.lower()) is not None


def sights(shown: Sequence[float], items: Sequence[Item], timeline: Timeline) -> tuple[Evidence, ...]:
    """The keyframes of some session seconds as evidence: the newest CITED, oldest first, each for as long as it was shown."""
    known = {item.at: item for item in items if item.picture}
    found = []
    for at in [at for at in shown if at in known][-CITED:]:
        frame = timeline.at(at)
        end = timeline.end_of(frame) if frame is not None and abs(frame.start - at) < 1e-3 else at
        found.append(Evidence(at, end, "sight", known[at].text, at))
    return tuple(found)
