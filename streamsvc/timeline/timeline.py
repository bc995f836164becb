"""Everything heard and seen in one session, on one time axis. Pure, bounded."""

from __future__ import annotations

import bisect
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import Cue, Evidence, Gap, Keyframe, Scene, ScreenText, Sight, Speech, Word
from streamsvc.timeline.keyframe_history import KeyframeHistory, Shown, labels_of
from streamsvc.timeline.screen_history import Screen, ScreenHistory
from streamsvc.timeline.text_tracks import MAX_TRACKS, TextTrack, TextTracks
from streamsvc.timeline.transcript import Fold, Sentence, Transcript

TimelineUnit = TypeVar("TimelineUnit", Speech, Gap, Scene)


@dataclass(frozen=True, slots=True)
class TimelineLimits:
    """Entries kept of each kind; over a limit the oldest are dropped. The defaults hold hours of talk."""

    sentences: int = 6000
    folded: int = 3000  # older sentences, one a minute: two days of talk
    shown: int = 4000  # keyframes
    screens: int = 1500
    lines: int = MAX_TRACKS  # text tracks
    speeches: int = 4000
    gaps: int = 1000
    scenes: int = 1000


class Timeline:
    """The timeline of one session. Nothing here waits or reads a clock.

    `latest` is the session second of the newest unit. `speeches`, `gaps` and `scenes` are by time.

    Args:
        fold: chooses the sentence that stands for a stretch of old speech; None: old speech is dropped.
        limits: entries kept of each kind.
    """

    def __init__(self, fold: Fold | None = None, limits: TimelineLimits | None = None) -> None:
        limits = limits or TimelineLimits()
        self.latest = 0.0
        self.speeches: deque[Speech] = deque(maxlen=limits.speeches)
        self.gaps: deque[Gap] = deque(maxlen=limits.gaps)
        self.scenes: deque[Scene] = deque(maxlen=limits.scenes)
        self._transcript = Transcript(limits.sentences, limits.folded, fold)
        self._keyframes = KeyframeHistory(limits.shown)
        self._screens = ScreenHistory(limits.screens, limits.lines)
        self._dropped: Counter[str] = Counter()  # speeches, gaps, scenes

    # --- writing ---

    def add(self, unit: Cue | Sight | Keyframe | ScreenText | Speech | Gap | Scene) -> None:
        """Add a unit. Units of one kind come in order of time; kinds may come in any order."""
        self.latest = max(self.latest, unit.at)
        match unit:
            case Cue():
                self._transcript.add(unit)
                self.latest = max(self.latest, self._transcript.end)
            case Keyframe():
                self._keyframes.add(Shown(unit.at, None, None, unit.reason))
            case Sight():
                self._keyframes.add_sight(unit)
                if unit.blank:
                    self._screens.clear(unit.at)
            case ScreenText():
                self._screens.read(unit)
            case Speech():
                self._append(self.speeches, unit, "speeches")
            case Gap():
                self.latest = max(self.latest, unit.end)
                self._append(self.gaps, unit, "gaps")
            case Scene():
                if self.scenes and self.scenes[-1].start == unit.start:  # more is known of the same picture
                    self.scenes.pop()
                self._append(self.scenes, unit, "scenes")

    def set_open_words(self, words: Sequence[Word]) -> None:
        """Replace the stable words of the caption that is still open."""
        self._transcript.set_open_words(words)
        self.latest = max(self.latest, self._transcript.end)

    def _append(self, units: deque[TimelineUnit], unit: TimelineUnit, kind: str) -> None:
        self._dropped[kind] += len(units) == units.maxlen
        units.append(unit)

    # --- reading ---

    @property
    def empty(self) -> bool:
        """Whether nothing has been heard, seen or read."""
        has_sight = any(entry.sight for entry in self.shown)
        return not (self._transcript.has_words or has_sight or self.screens)

    @property
    def dropped(self) -> Counter[str]:
        """Entries dropped over each of `TimelineLimits`, by its name."""
        return self._dropped | Counter(
            sentences=self._transcript.dropped,
            shown=self._keyframes.dropped,
            screens=self._screens.dropped,
            lines=self._screens.tracks.dropped,
        )

    @property
    def sentences(self) -> list[Sentence]:
        """All sentences by time, the unfinished one included; up to `folded_until` one a minute."""
        return self._transcript.sentences

    @property
    def closed_sentences(self) -> list[Sentence]:
        """All sentences of closed captions by time; the last may be unfinished."""
        return self._transcript.closed_sentences

    @property
    def talks(self) -> list[list[Sentence]]:
        """Sentences grouped by pauses of 5 s and more; pauses before `folded_until` are not known."""
        return self._transcript.talks

    @property
    def folded_until(self) -> float:
        """Session seconds up to which not every sentence is kept."""
        return self._transcript.folded_until

    @property
    def shown(self) -> list[Shown]:
        """What the keyframes showed, by time."""
        return self._keyframes.entries

    @property
    def screens(self) -> list[Screen]:
        """Screens of text, by time."""
        return self._screens.screens

    @property
    def text_tracks(self) -> TextTracks:
        """The lines of the screens, each with its own times."""
        return self._screens.tracks

    def words_between(self, start: float, end: float) -> list[Word]:
        """Words of which more than 0.1 s lies between two session seconds."""
        return self._transcript.words_between(start, end)

    def end_of(self, item: Shown | Screen | TextTrack) -> float:
        """Session seconds until which an item was shown; `latest` for what is shown now."""
        return max(item.start, self.latest) if item.end is None else item.end

    def at(self, when: float) -> Shown | None:
        """The keyframe shown at session second `when`."""
        return self._keyframes.at(when)

    def screen_at(self, when: float) -> Screen | None:
        """The screen of text shown at session second `when`."""
        return self._screens.at(when)

    def lines(self) -> list[Evidence]:
        """Sentences, text tracks and labels of keyframes, by time, with the keyframe shown at their start."""
        frames = [entry.start for entry in self.shown]

        def frame_at(when: float) -> float | None:
            position = bisect.bisect_right(frames, when)
            return frames[position - 1] if position else None

        spoken = [sentence.evidence() for sentence in self.sentences]
        lines = [replace(line, frame=frame_at(line.start)) for line in spoken]
        lines += [track.evidence(self.latest) for track in self.text_tracks.all()]
        for entry in self.shown:
            if entry.sight is not None and (labels := labels_of(entry.sight)):
                lines.append(Evidence(entry.start, self.end_of(entry), "sight", labels, entry.start))
        return sorted(lines, key=lambda line: line.start)

    def pictures(self) -> list[tuple[Evidence, NDArray[np.float16]]]:
        """Keyframes with the vector of a vision-text model (`Sight.clip`), by time; a quote may be empty."""
        return [
            (
                Evidence(entry.start, self.end_of(entry), "sight", labels_of(entry.sight), entry.start),
                entry.sight.clip,
            )
            for entry in self.shown
            if entry.sight is not None and entry.sight.clip is not None
        ]
