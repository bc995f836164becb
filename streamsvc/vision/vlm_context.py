"""What the VLM is shown of a session: an append-only list of sentences, lines and keyframes. Pure.

Items stand in the order in which they became known. None is ever edited or moved, so that the engine can keep
the keys and values of what it has read (engines/vlm.py); where there are too many, the oldest quarter leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence, Word
from streamsvc.timeline.keyframe_history import labels_of
from streamsvc.timeline.timeline import Timeline

MAX_ITEMS = 800  # of all kinds together: more than a window of 4096 tokens holds
MAX_CHARACTERS = 600  # of one item
SETTLED_SECONDS = 3.0  # after which a sentence without a full stop is taken as complete
MAX_CITED = 4  # keyframes that an answer cites, the newest


@dataclass(frozen=True, slots=True)
class Item:
    """One thing said or shown, from session second `at` to `end`.

    `picture`: the engine's key of a keyframe, else "".
    """

    at: float
    end: float
    kind: str  # "speech", "screen" or "picture"
    text: str
    picture: str = ""

    def payload(self) -> Payload:
        """The item as the engines take it."""
        payload: Payload = {"at": self.at, "kind": self.kind, "text": self.text}
        if self.picture:
            payload["picture"] = self.picture
        return payload


@dataclass(frozen=True, slots=True)
class VlmContext:
    """The items so far, in the order in which they became known.

    `removed`: items that have left at the head. `shortened`: items whose text was too long. `speech_until`,
    `pictures_until`: session seconds up to which speech and pictures are in it; `screen_lines`: (start, text)
    of the screen lines that are.
    """

    items: tuple[Item, ...] = ()
    removed: int = 0
    shortened: int = 0
    speech_until: float = -1.0
    screen_lines: frozenset[tuple[float, str]] = frozenset()
    pictures_until: float = -1.0

    def payload(self, *, pictures: bool) -> list[Payload]:
        """The items as the engines take them, with or without the keyframes."""
        return [item.payload() for item in self.items if pictures or item.kind != "picture"]


def extended(context: VlmContext, timeline: Timeline, keys: Mapping[float, str], now: float) -> VlmContext:
    """The context with what has become known since; the same object where nothing has.

    Args:
        context: so far.
        timeline: all that is known.
        keys: the engine's keys of encoded keyframes, by session second.
        now: session seconds.
    """
    fresh = [
        *_sentences(context, timeline, now),
        *_screen_lines(context, timeline),
        *_pictures(context, timeline, keys),
    ]
    if not fresh:
        return context
    shortened = sum(len(item.text) > MAX_CHARACTERS for item in fresh)
    fresh = [
        replace(item, text=item.text[: MAX_CHARACTERS - 1] + "…") if len(item.text) > MAX_CHARACTERS else item
        for item in fresh
    ]
    fresh.sort(key=lambda item: (item.at, item.kind != "picture"))  # a picture before the text read in it
    items = (*context.items, *fresh)
    surplus = len(items) - MAX_ITEMS
    quarter = MAX_ITEMS // 4
    removed = -(-surplus // quarter) * quarter if surplus > 0 else 0
    return VlmContext(
        items[removed:],
        context.removed + removed,
        context.shortened + shortened,
        max([context.speech_until, *(item.end for item in fresh if item.kind == "speech")]),
        frozenset((line.start, line.text) for line in timeline.text_tracks.all()),
        max([context.pictures_until, *(item.at for item in fresh if item.picture)]),
    )


def _sentences(context: VlmContext, timeline: Timeline, now: float) -> list[Item]:
    """New complete sentences; of a sentence that was taken as complete too early, the rest."""
    items: list[Item] = []
    sentences = timeline.sentences
    if sentences and now - sentences[-1].end < SETTLED_SECONDS:
        sentences = sentences[:-1]
    for sentence in reversed(sentences):
        if sentence.end <= context.speech_until:
            break
        words = [word for word in sentence.words if _middle(word) > context.speech_until]
        if words:
            text = one_line(" ".join(word.text for word in words))
            items.append(Item(words[0].start, words[-1].end, "speech", text))
    return items[::-1]


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


def _screen_lines(context: VlmContext, timeline: Timeline) -> list[Item]:
    """New lines of the screen; lines that appeared together make one item."""
    texts: dict[float, list[str]] = {}
    ends: dict[float, float] = {}
    for line in timeline.text_tracks.all():
        if (line.start, line.text) not in context.screen_lines and (text := one_line(line.text)):
            texts.setdefault(line.start, []).append(text)
            ends[line.start] = max(ends.get(line.start, 0.0), timeline.end_of(line))
    return [Item(at, ends[at], "screen", " / ".join(lines)) for at, lines in texts.items()]


def _pictures(context: VlmContext, timeline: Timeline, keys: Mapping[float, str]) -> list[Item]:
    items = []
    for at, key in sorted(keys.items()):
        if at > context.pictures_until:
            shown = timeline.at(at)
            labels = labels_of(shown.sight) if shown is not None and shown.sight is not None else ""
            items.append(Item(at, at, "picture", labels or "a picture", key))
    return items


def one_line(text: str) -> str:
    """The printable characters of a text in one line.

    So user text cannot be mistaken for structure of the prompt.
    """
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def cited_pictures(shown: Sequence[float], items: Sequence[Item], timeline: Timeline) -> tuple[Evidence, ...]:
    """Evidence of the newest MAX_CITED keyframes among the session seconds `shown`, oldest first."""
    pictures = {item.at: item for item in items if item.picture}
    evidence = []
    for at in [at for at in shown if at in pictures][-MAX_CITED:]:
        frame = timeline.at(at)
        end = timeline.end_of(frame) if frame is not None and abs(frame.start - at) < 1e-3 else at
        evidence.append(Evidence(at, end, "sight", pictures[at].text, at))
    return tuple(evidence)
