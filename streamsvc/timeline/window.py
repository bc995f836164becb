"""The window: what a language model is shown of a session, as numbered, timed lines. Pure.

Settled sentences, screen lines, sights and keyframes stand in the order in which they became known. None is
ever edited or moved, so that an engine can keep the keys and values of what it has read. A window is a fold
of the units of a session: `extended` after each makes it, `events.replay` gives them back from the log.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from streamsvc.core.roles import Payload
from streamsvc.core.types import Cue, Gap, Keyframe, Scene, ScreenText, Sight, Speech, Word
from streamsvc.timeline.keyframe_history import Shown, labels_of
from streamsvc.timeline.lines import Line as Line
from streamsvc.timeline.lines import new_line, one_line
from streamsvc.timeline.lines import timestamp as timestamp
from streamsvc.timeline.notes import NOTHING_SEEN, UNLABELLED, CountTokens, merged, notes_of, tokens
from streamsvc.timeline.text_tracks import TextTrack, normalized
from streamsvc.timeline.timeline import Timeline

BUDGET = 3500  # tokens of a context of 4,096: the rest is for the instruction, a question and its answer
SETTLED_SECONDS = 3.0  # of silence after which a sentence without a full stop is complete
# Without a closed word for so long, though somebody speaks: closed captions come at least each 7 s.
UNFINISHED_SECONDS = 10.0
PICTURE_SECONDS = 2.0  # for which a keyframe's sight waits for its picture's key, and the key for the sight
SAME_LINE = 0.6  # share of equal letters from which one line was read twice
FOLD_SHARE = 0.25  # of the tokens: what leaves at once
NOTES_SHARE = 0.125  # of the budget: all notes together


@dataclass(frozen=True, slots=True)
class Known:
    """Up to where a timeline has been written into a window.

    `speech_until`, `shown_until`, `pictured_until`: session seconds. `readings`: of the screen.
    `screen_lines`: (start, text) of the text tracks. `seen`: labels of the newest sight.
    """

    speech_until: float = -1.0
    shown_until: float = -1.0
    pictured_until: float = -1.0
    readings: int = 0
    screen_lines: frozenset[tuple[float, str]] = frozenset()
    seen: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Window:
    """The lines in the order in which they became known; notes before all others.

    `generation`: counts the folds; within one, lines are only appended. `tokens`: of all lines. `numbered`:
    the last number given to a line.
    """

    generation: int = 0
    lines: tuple[Line, ...] = ()
    tokens: int = 0
    numbered: int = 0
    known: Known = field(default_factory=Known)

    def line(self, number: int) -> Line | None:
        """The line of a number; None: it is not in the window."""
        return next((line for line in self.lines if line.number == number), None)

    def payload(self) -> list[Payload]:
        """The lines as the think engines take them."""
        return [line.payload() for line in self.lines]


def known_at(unit: Cue | Sight | Keyframe | ScreenText | Speech | Gap | Scene) -> float:
    """Session seconds up to which a logged unit tells of the stream: `now` of the fold right after it."""
    return unit.end if isinstance(unit, Cue | Gap) else unit.at


# --- growing ---


def extended(
    window: Window,
    timeline: Timeline,
    now: float,
    count_tokens: CountTokens,
    pictures: Mapping[float, str] | None = None,
) -> Window:
    """The window with what has become known since; the same object where nothing has.

    Args:
        window: so far.
        timeline: all that is known. Of the open caption nothing is used: its words may change.
        now: session seconds up to which the stream is known.
        count_tokens: tokens of a text.
        pictures: a VLM's keys of encoded keyframes, by session second.
    """
    known = window.known
    spoken, known = _sentences(known, timeline, now)
    read, known = _screen_lines(known, timeline)
    seen, known = _sights(known, timeline, now, pictures)
    if known == window.known:
        return window
    # Of what became known together the earlier stands first, and a picture before the text read in it.
    fresh = sorted([*seen, *read, *spoken], key=lambda line: line.start)
    fresh = [replace(line, number=window.numbered + n) for n, line in enumerate(fresh, 1)]
    lines = (*window.lines, *fresh)
    return replace(
        window,
        lines=lines,
        tokens=tokens(lines, count_tokens) if fresh else window.tokens,
        numbered=window.numbered + len(fresh),
        known=known,
    )


def _frame_at(timeline: Timeline, when: float) -> float | None:
    shown = timeline.at(when)
    return shown.start if shown is not None else None


def _sentences(known: Known, timeline: Timeline, now: float) -> tuple[list[Line], Known]:
    """New complete sentences; of a sentence that was taken as complete too early, the rest."""
    lines: list[Line] = []
    sentences = timeline.closed_sentences
    if sentences and not (sentences[-1].complete or _silent(timeline, sentences[-1].end, now)):
        sentences = sentences[:-1]
    for sentence in reversed(sentences):
        if sentence.end <= known.speech_until:
            break
        words = [word for word in sentence.words if _middle(word) > known.speech_until]
        text = one_line(" ".join(word.text for word in words))
        if text:
            start = words[0].start
            lines.append(new_line("speech", start, words[-1].end, text, _frame_at(timeline, start)))
    return lines[::-1], replace(known, speech_until=max([known.speech_until, *(line.end for line in lines)]))


def _silent(timeline: Timeline, end: float, now: float) -> bool:
    """Whether nobody has gone on since the last closed word ended at second `end`."""
    speeches = timeline.speeches
    if speeches and speeches[-1].active:
        return now - end >= UNFINISHED_SECONDS
    return now - max(end, speeches[-1].at if speeches else end) >= SETTLED_SECONDS


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2


def _screen_lines(known: Known, timeline: Timeline) -> tuple[list[Line], Known]:
    """New lines of the screen; lines that appeared together make one."""
    tracks = timeline.text_tracks
    if tracks.readings == known.readings:
        return [], known
    everything = tracks.all()
    standing = frozenset(map(_key, everything))
    before: dict[float, list[str]] = {}  # start -> texts that are written
    for start, text in known.screen_lines:
        before.setdefault(start, []).append(text)
    fresh = [
        track
        for track in everything
        if _key(track) not in known.screen_lines
        and one_line(track.text)
        and not _is_told(track, before.get(_key(track)[0], ()), standing)
    ]
    together = itertools.groupby(fresh, lambda track: track.start)
    lines = [_appeared(list(group)) for _, group in together]
    return lines, replace(known, readings=tracks.readings, screen_lines=standing)


def _is_told(track: TextTrack, before: Sequence[str], standing: frozenset[tuple[float, str]]) -> bool:
    """Whether a track is one of the texts of its start that are written: cut otherwise, or read better.

    Of one that has been read better, the text before is no longer among the `standing`.
    """
    if before and _words(track.text) <= set().union(*map(_words, before)):
        return True
    gone = (text for text in before if (_key(track)[0], text) not in standing)
    return any(difflib.SequenceMatcher(None, text, track.text).ratio() >= SAME_LINE for text in gone)


def _key(track: TextTrack) -> tuple[float, str]:
    return round(track.start, 3), track.text


def _appeared(tracks: Sequence[TextTrack]) -> Line:
    """Tracks of one start as one line."""
    text = " / ".join(one_line(track.text) for track in tracks)
    end = max(track.start if track.end is None else track.end for track in tracks)
    return new_line("screen", tracks[0].start, end, text, tracks[0].frame)


def _words(text: str) -> set[str]:
    return {normalized(word) for word in re.findall(r"\w+", text)}


def _sights(
    known: Known, timeline: Timeline, now: float, pictures: Mapping[float, str] | None
) -> tuple[list[Line], Known]:
    """What is seen, where it has changed, and keyframes that a VLM can be shown."""
    entries: list[Shown] = []
    for entry in reversed(timeline.shown):
        if round(entry.start, 3) <= known.shown_until:
            break
        entries.append(entry)
    entries.reverse()
    keys = pictures or {}
    done = max((n for n, entry in enumerate(entries, 1) if _is_decided(entry, now, pictures)), default=0)
    lines: list[Line] = []
    for entry in entries[:done]:
        key = keys.get(entry.start, "")
        labels = _labels(entry) if entry.sight is not None else known.seen
        text = labels_of(entry.sight) if entry.sight is not None else ""
        end = entry.start if entry.end is None else entry.end
        if key:
            lines.append(new_line("picture", entry.start, end, text or UNLABELLED, entry.start, key))
            known = replace(known, pictured_until=round(entry.start, 3))
        elif labels != known.seen:
            lines.append(new_line("sight", entry.start, end, text or NOTHING_SEEN, entry.start))
        known = replace(known, seen=labels, shown_until=round(entry.start, 3))
    # A still picture comes once: where its key comes late, for the model was being loaded, it is told then.
    late = [entry for entry in timeline.shown if entry.start in keys and not entries[:done]][-1:]
    for entry in late:
        if known.pictured_until < round(entry.start, 3) <= known.shown_until:
            text = labels_of(entry.sight) if entry.sight is not None else UNLABELLED
            end = entry.start if entry.end is None else entry.end
            lines.append(
                new_line("picture", entry.start, end, text or UNLABELLED, entry.start, keys[entry.start])
            )
            known = replace(known, pictured_until=round(entry.start, 3))
    return lines, known


def _is_decided(entry: Shown, now: float, pictures: Mapping[float, str] | None) -> bool:
    """Whether all that is to be waited for of a keyframe is there: its sight, and with a VLM its key."""
    if pictures is None:
        return entry.sight is not None
    waited = now - entry.start >= PICTURE_SECONDS
    if entry.sight is None:
        return entry.start in pictures and waited
    return entry.start in pictures or waited


def _labels(entry: Shown) -> frozenset[str]:
    """What is compared: things with their counts; tags, which flicker more, only where no thing is known."""
    sight = entry.sight
    if sight is None:
        return frozenset()
    without_tags = replace(sight, tags=()) if sight.boxes else sight
    return frozenset(labels_of(without_tags).split(", ")) - {""}


# --- folding ---


def folded(window: Window, count_tokens: CountTokens, budget: int = BUDGET) -> Window:
    """The window without its oldest quarter, which a few notes stand for; the same object if within `budget`.

    What stays has its numbers; notes get new ones, and stand before it.
    """
    old_notes = [line for line in window.lines if line.kind == "note"]
    lines = [line for line in window.lines if line.kind != "note"]
    if window.tokens <= budget or len(lines) < 2:
        return window
    size = 0
    gone = 0
    while gone < len(lines) - 1 and size < FOLD_SHARE * window.tokens:
        size += count_tokens(lines[gone].rendered)
        gone += 1
    kept = merged([*old_notes, *notes_of(lines[:gone], size)], count_tokens, int(NOTES_SHARE * budget))
    kept.sort(key=lambda note: note.start)
    numbers = itertools.count(window.numbered + 1)
    kept = [note if note.number else replace(note, number=next(numbers)) for note in kept]
    rest = (*kept, *lines[gone:])
    return replace(
        window,
        generation=window.generation + 1,
        lines=rest,
        tokens=tokens(rest, count_tokens),
        numbered=next(numbers) - 1,
    )
