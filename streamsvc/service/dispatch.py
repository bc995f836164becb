"""The one place where each unit of a session goes: timeline, latency, watches, event log, traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from streamsvc.answers.reading import Reading
from streamsvc.answers.watches import Watches
from streamsvc.core.compact_words import NO_STAGES
from streamsvc.core.context import SessionContext
from streamsvc.core.types import (
    Cue,
    Event,
    Gap,
    Keyframe,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Translation,
    Words,
)
from streamsvc.core.units import Reply, Unit
from streamsvc.events.hls_captions import OpenSpeech
from streamsvc.events.log import EventLog
from streamsvc.events.replay import LoggedUnit
from streamsvc.events.serialize import event_draft
from streamsvc.service.latency_report import LatencyReport
from streamsvc.service.load_controller import levels_of
from streamsvc.service.load_policy import described
from streamsvc.service.question_history import QuestionHistory
from streamsvc.service.traces import Traces
from streamsvc.speech.caption_history import CaptionHistory
from streamsvc.speech.captions import compact
from streamsvc.timeline.timeline import Timeline


class Dispatcher:
    """Hands each unit of one session to everything that uses it.

    Args:
        context: of the session.
        timeline: what is known; filled here.
        reading: the window that a language model is shown; None: none reads.
        log: where events are published.
        frame_url: where the keyframe of a session second can be loaded.
        sight: the window of pictures, where another model sees; None: there is none.

    `cues`, `translations`: the closed ones, oldest first; at most `settings.store.events` of each.
    `questions`: those that were answered. `open_speech`: what is said and in no closed cue yet.
    """

    def __init__(
        self,
        context: SessionContext,
        timeline: Timeline,
        reading: Reading | None,
        log: EventLog,
        frame_url: Callable[[float], str],
        sight: Reading | None = None,
    ) -> None:
        self.cues = CaptionHistory(context.settings.store.events)
        self.translations: list[Translation] = []
        self.questions = QuestionHistory()
        self.open_speech = OpenSpeech()
        self.latency = LatencyReport()
        self.watches = Watches(context, reading)
        self._traces = Traces(context.session, context.spans)
        self._context = context
        self._timeline = timeline
        self._readings = [one for one in (reading, sight) if one is not None]
        self._log = log
        self._frame_url = frame_url

    def dispatch(self, unit: Unit) -> Event | None:
        """Hand a unit on. Returns the published event.

        None: units of its kind are not published, or not at this level.
        """
        self._keep(unit)
        self.open_speech.take(unit)
        for reading in self._readings:
            reading.take(unit)
        self.latency.note_unit(unit)
        self.watches.take(unit)
        event = self._publish(unit) if self._is_published(unit) else None
        self._traces.take(unit, event, self._context.degradation.level)
        return event

    def tick(self, *, ended: bool = False) -> None:
        """Count coverage that is settled, and end traces that are over; `ended`: all. Every few seconds."""
        self.latency.count_coverage(ended=ended)
        self._traces.tick(ended=ended)

    def restore(self, units: Iterable[LoggedUnit | Translation], *, going_on: bool = False) -> None:
        """Keep units that an earlier run or another node has published: nobody is told of them again.

        `going_on`: the session goes on here, so models read them too.
        """
        for unit in units:
            self._keep(unit)
            self.open_speech.take(unit)
            self.latency.restore(unit)
            for reading in self._readings if going_on else ():
                reading.take(unit)

    def report(self, backlog: float) -> dict[str, Any]:
        """The body of latency.report: ages, coverage, backlog (seconds), and the level in words."""
        degradation = self._context.degradation
        in_words = described(degradation.level, degradation.reason, levels_of(self._context.settings))
        return self.latency.body(backlog, degradation.level) | in_words

    def _keep(self, unit: Unit) -> None:
        """Keep closed captions, and put what the stream said and showed on the timeline.

        A model's scene caption cannot be checked, and stays off the timeline.
        """
        match unit:
            case Cue(final=True):
                cue = compact(unit)
                self.cues.append(cue)
                self._timeline.add(cue)
            case Cue():
                self._timeline.set_open_words(unit.words[: unit.stable])
            case Translation():
                self.translations.append(unit)
                del self.translations[: -self._context.settings.store.events]
            case Reply():
                self.questions.add(unit)
            case Scene(by="model"):
                pass
            case Gap():
                self._timeline.add(unit)
            case Speech() | Keyframe() | Sight() | ScreenText() | Scene():
                self._timeline.add(replace(unit, stages=NO_STAGES))  # published soon; not to be kept

    def _is_published(self, unit: Unit) -> bool:
        if isinstance(unit, Cue) and not unit.final:
            return self._context.degradation.fidelity.partials
        return not isinstance(unit, Words)

    def _publish(self, unit: Unit) -> Event:
        draft = event_draft(unit, self._frame_url)
        event = self._log.emit(
            draft.type,
            draft.body,
            at=draft.at,
            arrived=draft.arrived,
            stages=draft.stages,
            audience=draft.audience,
        )
        self.latency.note_event(event, aged=draft.arrived is not None)
        return event
