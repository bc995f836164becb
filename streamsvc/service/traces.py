"""Traces of one session: one per utterance, keyframe and question, made from units as they are published.

A trace's root lasts from the arrival of its first evidence to the publication of its last part. Below it is
a span for each published part, as long as its age, and below that its stages (`core.latency`). A span is made
when it is over; the root is the last one, so an exporter may have sent its children before.

    utterance   speech.started, words, caption.final, caption.translation, speech.stopped
    keyframe    keyframe.sampled, sight.ready, screen.text, scene.caption
    question    answer.first_delta, answer.done
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.latency import stage_intervals
from streamsvc.core.spans import Attributes, Span, SpanSink, random_id
from streamsvc.core.types import (
    Answer,
    Cue,
    Delta,
    Event,
    Keyframe,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Stages,
    Translation,
    Words,
)
from streamsvc.core.units import Reply, Unit

OPEN = 8  # traces of a kind that wait for more parts; then the oldest ends
PARTS = 64  # of one trace; then it ends, and what follows begins another
STAGES = 32  # spans of one part: the longest, and none below 1 ms
QUIET_SECONDS = 20.0  # without a new part: a trace ends
_EARLY = 0.5  # seconds that a word may begin before its speech was detected
_SHORTEST = 0.001  # seconds


@dataclass(frozen=True, slots=True)
class _Part:
    """What of a unit its spans say. `arrived`: monotonic seconds; `last`: no other part follows."""

    name: str
    arrived: float
    stages: Stages
    attributes: Attributes
    last: bool = False
    failed: bool = False


@dataclass(slots=True)
class _Trace:
    """One trace that is not over. `key`: second of its session, or id of its question."""

    kind: str
    key: float | str
    began: float  # monotonic seconds
    offset: float  # seconds since 1970 minus monotonic seconds
    sampled: bool
    id: int = field(default_factory=lambda: random_id(16))
    root: int = field(default_factory=lambda: random_id(8))
    ended: float = 0.0  # monotonic seconds of the last part's publication
    parts: int = 0
    failed: bool = False

    def nanoseconds(self, moment: float) -> int:
        """A monotonic second as nanoseconds since 1970."""
        return round((self.offset + moment) * 1e9)


class Traces:
    """The open traces of one session.

    Args:
        session: its id, said in each span.
        sink: where finished spans go; None: nothing is traced.
    """

    def __init__(self, session: str, sink: SpanSink | None) -> None:
        self._session = session
        self._sink = sink
        self._open: list[_Trace] = []

    def take(self, unit: Unit, event: Event | None, level: int) -> None:
        """Make the spans of a unit that was just published.

        Args:
            unit: of any kind; most have no spans.
            event: it was published as; None: as none.
            level: degradation level of the session.
        """
        if self._sink is None:
            return
        part = _part(unit)
        trace = self._trace_of(unit) if part is not None else None
        if part is None or trace is None:
            return
        published = part.arrived + event.age_ms / 1000 if event is not None else clock.now()
        said = {"streamsvc.level": level, **part.attributes}
        if event is not None:
            said["streamsvc.event_id"] = event.id
        trace.parts += 1
        trace.ended = max(trace.ended, published)
        trace.failed = trace.failed or part.failed
        if trace.sampled:
            self._put_part(trace, part, published, said)
        if part.last or trace.parts >= PARTS:
            self._end(trace)

    def tick(self, *, ended: bool = False) -> None:
        """End the traces that have become quiet; `ended`: all, for the session is over."""
        quiet = clock.now() - QUIET_SECONDS
        for trace in [one for one in self._open if ended or one.ended < quiet]:
            self._end(trace)

    def _trace_of(self, unit: Unit) -> _Trace | None:
        """The trace that a unit belongs to, begun where it is the first of one; None: its trace is over."""
        match unit:
            case Speech(active=True):
                return self._begin("utterance", unit.at, unit.arrived)
            case Speech():
                return self._utterance(unit.at) or self._begin("utterance", unit.at, unit.arrived)
            case Words():
                at = unit.words[0].start if unit.words else unit.at
                return self._utterance(at) or self._begin("utterance", at, unit.arrived)
            case Cue():
                return self._utterance(unit.start) or self._begin("utterance", unit.start, unit.arrived)
            case Translation():
                return self._utterance(unit.start)
            case Keyframe():
                return self._begin("keyframe", unit.at, unit.arrived)
            case Sight() | ScreenText() | Scene():
                return self._find("keyframe", unit.at)
            case Reply():
                found = self._find("question", unit.question_id)
                return found or self._begin("question", unit.question_id, unit.arrived)
        return None

    def _find(self, kind: str, key: float | str) -> _Trace | None:
        return next((one for one in self._open if one.kind == kind and one.key == key), None)

    def _utterance(self, at: float) -> _Trace | None:
        """The newest utterance that had begun at session second `at`, else the oldest."""
        found = [one for one in self._open if one.kind == "utterance"]
        begun = [one for one in found if isinstance(one.key, float) and one.key <= at + _EARLY]
        return begun[-1] if begun else found[0] if found else None

    def _begin(self, kind: str, key: float | str, began: float) -> _Trace:
        assert self._sink is not None
        offset = clock.utc().timestamp() - clock.now()
        trace = _Trace(kind, key, began, offset, secrets.randbelow(1 << 30) < self._sink.sample * (1 << 30))
        same = [one for one in self._open if one.kind == kind]
        if len(same) >= OPEN:
            self._end(same[0])
        self._open.append(trace)
        return trace

    def _put_part(self, trace: _Trace, part: _Part, published: float, said: Attributes) -> None:
        """The spans of a part and of its stages."""
        span = random_id(8)
        self._put(trace, part.name, (span, trace.root), (part.arrived, published), said, part.failed)
        for name, since, until in _longest(stage_intervals(part.stages, part.arrived, published)):
            self._put(trace, name, (random_id(8), span), (since, until), {})

    def _end(self, trace: _Trace) -> None:
        """Make the root's span, and forget the trace."""
        self._open.remove(trace)
        if trace.sampled:
            said = {"streamsvc.parts": trace.parts}
            self._put(trace, trace.kind, (trace.root, 0), (trace.began, trace.ended), said, trace.failed)

    def _put(
        self,
        trace: _Trace,
        name: str,
        ids: tuple[int, int],
        times: tuple[float, float],
        said: Attributes,
        failed: bool = False,
    ) -> None:
        """Hand a span on. `ids`: its own and its parent's; `times`: begin and end, monotonic seconds."""
        assert self._sink is not None
        start, end = (trace.nanoseconds(moment) for moment in times)
        attributes = {"streamsvc.session": self._session, **said}
        self._sink.put(Span(name, trace.id, *ids, start, max(start, end), attributes, failed))


def _longest(intervals: Iterable[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """The longest intervals, by time."""
    found = [one for one in intervals if one[2] - one[1] >= _SHORTEST]
    kept = sorted(found, key=lambda one: one[1] - one[2])[:STAGES]
    return sorted(kept, key=lambda one: one[1])


def _part(unit: Unit) -> _Part | None:
    """What the spans of a unit say; None: it has none. No text of a unit is among it."""
    said: Mapping[str, str | int | float | bool]
    match unit:
        case Speech():
            name = "speech.started" if unit.active else "speech.stopped"
            return _Part(name, unit.arrived, unit.stages, {})
        case Words() if unit.stable:
            said = {"streamsvc.words": unit.stable}
            return _Part("words", unit.arrived, unit.stages, said)
        case Cue(final=True):
            said = {"streamsvc.words": len(unit.words)}
            return _Part("caption.final", unit.arrived, unit.stages, said)
        case Translation():
            return _Part("caption.translation", unit.arrived, unit.stages, {})
        case Keyframe():
            return _Part("keyframe.sampled", unit.arrived, unit.stages, {"streamsvc.reason": unit.reason})
        case Sight():
            said = {"streamsvc.boxes": len(unit.boxes), "streamsvc.blank": unit.blank}
            return _Part("sight.ready", unit.arrived, unit.stages, said)
        case ScreenText():
            return _Part("screen.text", unit.arrived, unit.stages, {"streamsvc.lines": len(unit.lines)})
        case Scene():
            return _Part("scene.caption", unit.arrived, unit.stages, {"streamsvc.by": unit.by})
        case Reply(part=Delta()) if unit.first:
            return _Part("answer.first_delta", unit.arrived, unit.stages, {})
        case Reply(part=Answer() as answer):
            said = {
                "streamsvc.outcome": answer.outcome,
                "streamsvc.by": answer.by,
                "streamsvc.reason": answer.reason,
                "streamsvc.evidence": len(answer.evidence),
            }
            return _Part("answer.done", unit.arrived, unit.stages, said, last=True)
        case Reply(part=StreamsvcError() as error):
            said = {"streamsvc.error": error.code}
            return _Part("answer.done", unit.arrived, unit.stages, said, last=True, failed=True)
    return None
