"""The captions of sessions as HLS playlists and segments, live and after the end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from weakref import WeakKeyDictionary

from streamsvc.core import clock, metrics
from streamsvc.events import hls_captions
from streamsvc.events.hls_captions import (
    SECONDS,
    Entry,
    Grid,
    Line,
    LiveSegments,
    PlaylistHead,
    Progress,
)
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from streamsvc.service.subtitle_routes import cues
from streamsvc.speech.captions import Caption
from streamsvc.speech.translation import TARGET

LINGER = 120.0  # seconds after the end, in which a player that was there sees the end of its live playlist


@dataclass(frozen=True, slots=True)
class Placement:
    """Where captions lie in somebody's video; the default: they have a time of their own.

    mpegts: the timestamp of session second 0; None: there is no video. offset: seconds by which they are
    shown later. first: the session second at which a video begins that has ended. discontinuity: of the
    video.
    """

    mpegts: int | None = None
    offset: float = 0.0
    first: float = 0.0
    discontinuity: int = 0


Live = dict[str | None, LiveSegments]  # by language; None: as spoken


class HlsTracks:
    """The playlists and segments of all sessions; what is held of one goes with it.

    While a session is live, and LINGER seconds longer, the newest segments (`live`), which are settled once
    and for all; then all of them (`recorded`), made of the closed captions. They have different addresses.
    """

    def __init__(self) -> None:
        self._live: WeakKeyDictionary[Session, Live] = WeakKeyDictionary()
        self._recorded: WeakKeyDictionary[Session, dict[str | None, Sequence[Caption]]] = WeakKeyDictionary()

    def is_recorded(self, session: Session) -> bool:
        """Whether the playlist of a session has all segments."""
        if not session.over.is_set():
            return False
        return session not in self._live or clock.now() - (session.ended_at or 0.0) > LINGER

    def playlist(
        self, session: Session, language: str | None, placement: Placement, address: Callable[[str], str]
    ) -> str:
        """A media playlist. `address`: of a segment, by its form and number, such as "live/7"."""
        zero = session.clock.zero_utc + timedelta(seconds=placement.offset)
        if self.is_recorded(session):
            self._live.pop(session, None)
            grid = _grid(session, placement.first)
            spans = [grid.span(number) for number in range(grid.count)]
            entries = [Entry(number, end - start, start) for number, (start, end) in enumerate(spans)]
            head = PlaylistHead(zero, placement.discontinuity, ended=True, whole=True)
            return hls_captions.playlist(head, entries, lambda number: address(f"recorded/{number}"))
        segments = self._advanced(session, language)
        changes = session.media.changes if placement.mpegts is None else ()
        entries, before = hls_captions.live_entries(segments, changes)
        head = PlaylistHead(zero, before + placement.discontinuity, ended=session.over.is_set())
        return hls_captions.playlist(head, entries, lambda number: address(f"live/{number}"))

    def live_segment(self, session: Session, language: str | None, number: int) -> str | None:
        """The cues of a settled segment; None: it is not settled, or no longer held."""
        segments = self._live.get(session, {}).get(language)
        return segments.body(number) if segments is not None else None

    def recorded_segment(
        self, session: Session, language: str | None, number: int, first: float
    ) -> str | None:
        """The cues of a segment of an ended session; None: it has not ended, or has no such segment."""
        grid = _grid(session, first)
        if not session.over.is_set() or not 0 <= number < grid.count:
            return None
        held = self._recorded.setdefault(session, {})
        if language not in held:
            held[language] = cues(session, language)
        return hls_captions.recorded(held[language], *grid.span(number))

    def _advanced(self, session: Session, language: str | None) -> LiveSegments:
        """The live segments of a language, as of now."""
        segments = self._live.setdefault(session, {}).setdefault(language, LiveSegments())
        if session.media.state is State.CREATED:  # its clock may begin anew
            return segments
        dropped = segments.dropped
        segments.advance(_progress(session, language), lambda since: _lines(session, language, since))
        if segments.dropped > dropped:
            metrics.events_dropped.labels("caption.hls").inc(segments.dropped - dropped)
        return segments


def languages(session: Session) -> tuple[str, list[str]]:
    """The language that is spoken, "" if it is not known, and those that there are translations into."""
    spoken = Counter(cue.language for cue in session.dispatcher.cues[-50:]).most_common(1)
    language = session.speech.options.language or (spoken[0][0] if spoken else "")
    translated = {unit.language for unit in session.dispatcher.translations[-50:]}
    if session.speech.options.translate and not session.over.is_set():
        translated.add(TARGET)
    return language, sorted(translated)


def _progress(session: Session, language: str | None) -> Progress:
    """How far a session is known now, for its captions in a language."""
    now, speech = session.clock.position(), session.dispatcher.open_speech
    if session.over.is_set():
        end = SECONDS * math.ceil(now / SECONDS)  # of the segment under way
        return Progress(end, end)
    progress = speech.progress(now, session.speech.backlog)
    return progress if language in (None, speech.language) else replace(progress, open=())


def _lines(session: Session, language: str | None, since: float) -> list[Line]:
    """The closed cues in a language whose last word began after a session second, by start."""
    awaited = bool(session.speech.options.translate) and language == TARGET and not session.over.is_set()
    found: list[Line] = []
    translated: dict[float, str] | None = None
    for cue in reversed(session.dispatcher.cues):
        line = Line(cue.start, cue.end, cue.text, cue.words)
        if line.mark <= since:
            break
        if language is not None and cue.language != language:
            if translated is None:
                translated = _translated(session, language, since)
            text = translated.get(round(cue.start, 3))
            line = Line(cue.start, cue.end, text)
            if line.mark <= since:
                break
            if text is None and not awaited:
                continue
        found.append(line)
    return found[::-1]


def _translated(session: Session, language: str, since: float) -> dict[float, str]:
    """The texts of translations by the start of their cues, of those that began after a session second."""
    texts: dict[float, str] = {}
    for unit in reversed(session.dispatcher.translations):
        if unit.start <= since:
            break
        if unit.language == language:
            texts[round(unit.start, 3)] = unit.text
    return texts


def _grid(session: Session, first: float) -> Grid:
    return Grid(first, max(session.clock.position(), 0.0))
