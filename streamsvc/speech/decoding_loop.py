"""AudioChunk -> Words through the hear worker: VAD, language detection, decoding steps.

At most one request is in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.latency import WAIT, WorkLog
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Payload, Role
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Stages, Words
from streamsvc.speech.audio_buffer import HOLE_MAX
from streamsvc.speech.backlog import Backlog
from streamsvc.speech.captions import SECONDS_MAX
from streamsvc.speech.hypothesis import DecodeWindow, Hypothesis
from streamsvc.speech.language_id import LanguageDetector
from streamsvc.speech.recognizer import RETRY_MAX, Recognizer
from streamsvc.speech.segmenter import WINDOW_MAX, Segmenter, SpeechUnit
from streamsvc.speech.vad import VAD_WINDOW

LOSSLESS_STEP = 1.5  # seconds between steps of a lossless source: a third of the work, and more context
UNCLEAR_STEP = 0.9  # seconds between steps where speech is unclear
# Thresholds of the smoothed mean log probability of a token:
QUICK_LOG_PROBABILITY = -0.33  # above: a cheap decode is good enough between pauses
CLEAR_LOG_PROBABILITY = -0.4  # above: words may become stable early
UNCLEAR_LOG_PROBABILITY = -0.45  # at or below: steps are longer
SMOOTHING = 0.3  # weight of the newest decode
LAG_MAX = 0.3  # seconds of waiting audio beyond the next step at which a live source lags behind
GIVE_UP = 15.0  # seconds of tries without new audio after which the remaining audio is given up


@dataclass(frozen=True, slots=True)
class Flush:
    """A marker in the audio: everything before it is decoded and its utterance closed.

    While the worker is away, `done` is called after GIVE_UP seconds at most; a gap reports what was not
    decoded.

    Attributes:
        done: called once, after the last unit before the marker; must not block.
        vocabulary: names and terms to expect from here on.
        hangover: seconds of silence that end an utterance from here on.
    """

    done: Callable[[], None]
    vocabulary: Sequence[str]
    hangover: float


def no_terms(at: float) -> Sequence[str]:
    """Terms of a screen without text, at any session second."""
    return ()


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """How one track is transcribed.

    Attributes:
        settings: the hear group.
        session: id that the units carry.
        track: name of the track that they carry.
        vocabulary: names and terms to expect.
        step: returns the seconds between decoding steps at the present load; None: `settings.step`.
        language: returns the fixed language, or None to detect it; without it: `settings.language`.
        lossless: the source can wait: nothing is skipped, and steps are long.
        new_vocabulary: returns the terms that replace `vocabulary` once they are another object than before;
            None: none yet. A later flush brings its own.
        screen_terms: returns the terms that the screen showed lately, at a session second; asked for English
            speech alone.
        tape: of the session.
    """

    settings: Hear
    session: str
    track: str = "main"
    vocabulary: Sequence[str] = ()
    step: Callable[[], float] | None = None
    language: Callable[[], str | None] | None = None
    lossless: bool = False
    new_vocabulary: Callable[[], Sequence[str] | None] = lambda: None
    screen_terms: Callable[[float], Sequence[str]] = no_terms
    tape: Tape = LIVE


async def run(
    chunks: Ring[AudioChunk] | Ring[AudioChunk | Flush],
    hear: Role,
    emit: Callable[[SpeechUnit], None],
    options: DecodingOptions,
) -> None:
    """Transcribe a track until its ring is closed and empty.

    A language that is not fixed is detected in each utterance, before its first decode. Where the worker lags
    behind a live source, steps become longer; a source that is read faster than real time is stepped through
    by audio time, so that the result does not depend on the machine.

    Args:
        chunks: audio and flushes; the buffer while the worker is away, so it should hold at least
            `settings.backlog_seconds`. It must not drop a flush.
        hear: the worker role of engines/asr.py.
        emit: called with every unit, in order; must not block.
        options: how to transcribe.
    """
    await _DecodingLoop(chunks, hear, emit, options).run()


class _DecodingLoop:
    """State of one `run`."""

    def __init__(
        self,
        chunks: Ring[AudioChunk] | Ring[AudioChunk | Flush],
        hear: Role,
        emit: Callable[[SpeechUnit], None],
        options: DecodingOptions,
    ) -> None:
        self.chunks: Ring[Any] = chunks
        self.emit = emit
        self.options = options
        self.settings = options.settings
        self.hotwords = " ".join(options.vocabulary)
        self.new_vocabulary = options.new_vocabulary()  # taken over already, in `vocabulary`
        self.recognizer = Recognizer(hear, options.session)
        self.segmenter = Segmenter(
            options.session, options.track, step=self.settings.step, hangover=self.settings.hangover
        )
        self.multilingual = not self.settings.model.endswith(".en")
        self.language = LanguageDetector(self.settings.language or (None if self.multilingual else "en"))
        self.backlog = Backlog(self.settings.backlog_seconds, lossless=options.lossless)
        self.taken: deque[AudioChunk | Flush] = deque()  # from the ring, after the flush in progress
        self.flush: Flush | None = None  # in progress; comes after the backlog
        self.flush_deadline = 0.0  # monotonic seconds until which it waits for the worker
        self.log_probability = 0.0  # smoothed mean of a token
        self.work = WorkLog()

    async def run(self) -> None:
        while await self._receive() or await self._finish():
            self._drop_excess()
            await self._fill_segmenter()
            if self.flush is not None and (not self.backlog or self._flush_expired()):
                await self._complete(self.flush)
                continue
            self.segmenter.step = self._step()
            while await self._detect_speech():
                pass
            await self._decode()
            self._publish(self.segmenter.end_utterance())

    def _publish(self, units: Sequence[SpeechUnit]) -> None:
        for unit in units:
            if isinstance(unit, Speech) and unit.active:
                self.language.start_utterance(unit.at)
            elif isinstance(unit, Words):
                self.language.add_stable(unit.words[: unit.stable])
            self.emit(unit if isinstance(unit, Gap) else replace(unit, stages=self._stages(unit)))

    def _stages(self, unit: Words | Speech) -> Stages:
        """What the time since a unit's last sample arrived went to."""
        # A cue may close behind its last word. Without a worker the time is spent waiting.
        return (*self.work.since(unit.arrived - SECONDS_MAX), (WAIT, clock.now()))

    # --- input

    async def _receive(self) -> bool:
        """Wait for audio if there is none; take all of a live source. False at the end."""
        if self.segmenter.vad_samples() is not None and self.recognizer.outage and not self._flush_expired():
            await self.recognizer.wait()
            outage_seconds = self.recognizer.until - self.recognizer.since
            if self.flush is None and not len(self.chunks) and outage_seconds > GIVE_UP:
                return False
        if self.flush is not None:
            return True
        idle = not self.backlog and self.segmenter.vad_samples() is None
        try:
            wanted = not self.taken and (idle or bool(len(self.chunks) and self.backlog.live))
            self.taken.extend(await self.options.tape.take("chunks", self.chunks, wanted=wanted))
        except Closed:
            return False
        while self.taken and self.flush is None:
            item = self.taken.popleft()
            if isinstance(item, Flush):
                self.flush = item
                self.flush_deadline = clock.now() + (0.0 if self.recognizer.abandoned else GIVE_UP)
            else:
                self.backlog.add(item)
        return True

    async def _fill_segmenter(self) -> None:
        """Move waiting audio to the segmenter: enough for a VAD request, or all if the worker lags."""
        lagging = self.backlog.live and self.backlog.seconds > self.segmenter.step + LAG_MAX
        while self.backlog and (
            self.segmenter.vad_samples() is None
            or (lagging and not self.recognizer.outage and self.segmenter.undecoded < WINDOW_MAX)
        ):
            if self.segmenter.speaking and self.segmenter.hole(self.backlog.first) > HOLE_MAX:
                await self._close(clock.now() + GIVE_UP)
                if not self.backlog:
                    return  # given up with the rest
            chunk = self.backlog.pop()
            reason = self.recognizer.gap_reason(chunk.arrived, "packet_loss")
            self._publish(self.segmenter.add_audio(chunk, reason=reason))

    def _drop_excess(self) -> None:
        """Report the audio of a live source that exceeds the backlog as a gap."""
        dropped = self.backlog.drop_excess()
        if not dropped:
            return
        start = dropped[0].at
        last = dropped[-1]
        reason = self.recognizer.gap_reason(dropped[0].arrived, "overload")
        self.emit(Gap(self.options.session, self.options.track, start, last.arrived, start, last.end, reason))
        self.segmenter.mark_reported(last.end)

    def _step(self) -> float:
        """Seconds between steps now: unclear speech needs more audio after a word."""
        wanted = self.settings.step if self.options.step is None else self.options.step()
        lossless = LOSSLESS_STEP if self.options.lossless else 0.0
        unclear = 0.0 if self.log_probability > UNCLEAR_LOG_PROBABILITY else UNCLEAR_STEP
        return max(wanted, lossless, unclear)

    # --- flushes and the end

    async def _finish(self) -> bool:
        """Close the input; returns whether audio is left: the worker came back meanwhile."""
        await self._close(clock.now() + GIVE_UP)
        if self.backlog:
            return True
        self._publish(self.segmenter.end_loss())
        return False

    def _flush_expired(self) -> bool:
        """Whether the flush in progress waited for the worker until its deadline, in vain."""
        waiting = self.flush is not None and bool(self.recognizer.outage)
        return waiting and self.recognizer.until >= self.flush_deadline

    async def _complete(self, flush: Flush) -> None:
        """Close the utterance now, by one decode that replaces the step that may be due."""
        await self._close(self.flush_deadline)
        if self.backlog:
            return  # the worker came back
        self.flush = None
        self.hotwords = " ".join(flush.vocabulary)
        self.segmenter.hangover = flush.hangover
        flush.done()

    async def _close(self, deadline: float) -> None:
        """Decode what is left and end the utterance; give it up at `deadline` (monotonic seconds)."""
        while True:
            while await self._detect_speech() or await self._decode(closing=True):
                pass
            if not self.recognizer.outage or self._decoded():
                break
            if self.recognizer.until >= deadline or clock.now() >= deadline + RETRY_MAX:
                self._give_up()
                return
            await self.recognizer.wait()
        self._publish(self.segmenter.end_utterance(closing=True))

    def _decoded(self) -> bool:
        """Whether nothing is left to decode."""
        segmenter = self.segmenter
        return segmenter.vad_samples() is None and segmenter.due(closing=True) is None and not self.backlog

    def _give_up(self) -> None:
        """Report all audio that is not decoded as a gap."""
        while self.backlog:
            self._publish(self.segmenter.add_audio(self.backlog.pop(), reason=self.recognizer.last_outage))
        self._publish(self.segmenter.abandon(self.recognizer.outage))
        while (samples := self.segmenter.vad_samples(VAD_WINDOW)) is not None:
            self.segmenter.add_vad([0.0] * (len(samples) // VAD_WINDOW))
        self.recognizer.abandon()

    # --- requests

    async def _detect_speech(self) -> bool:
        """One VAD request. False: too little audio, or it failed."""
        samples = self.segmenter.vad_samples()
        if samples is None:
            return False
        began = clock.now()
        probabilities = await self.recognizer.vad(samples)
        if probabilities is None:
            return False
        self.work.add("vad", began, clock.now())
        self._publish(self.segmenter.add_vad(probabilities))
        return True

    async def _decode(self, *, closing: bool = False) -> bool:
        """One decoding step, if one is due. False: none was due, or it failed."""
        window = self.segmenter.due(closing=closing)
        if window is None:
            return False
        began = clock.now()
        if not await self._detect_language(window):
            return False
        # Speech of another language at the start of the window is left out.
        offset = min(max(0.0, self.language.since - window.start), (window.end - window.start) / 2)
        result = await self.recognizer.transcribe(self._request(window, offset))
        if result is None:
            self.segmenter.skip(window)
            return False
        hypothesis = Hypothesis.from_result(result, offset)
        if hypothesis.words:
            self._note_log_probability(hypothesis.log_probability, window.end)
        decode_seconds = result.get("seconds", 0.0)
        decode_began = max(began, clock.now() - decode_seconds)
        self.work.add("queue", began, decode_began)
        self.work.add("asr", decode_began, clock.now())
        self._publish(self.segmenter.add_hypothesis(window, hypothesis))
        return True

    def _request(self, window: DecodeWindow, offset: float) -> Payload:
        """Payload of the op "transcribe". `offset`: seconds at the start of the window to leave out."""
        payload: Payload = {
            "samples": window.samples[round(offset * SAMPLE_RATE) :],
            "language": self.segmenter.language,
            "before": self.language.prompt(window.prompt, window.start),
            "beam": self.settings.beam,
            # The next step decodes the same audio again. Unclear speech needs the full effort.
            "quick": not window.at_pause
            and not self.options.lossless
            and self.log_probability > QUICK_LOG_PROBABILITY,
        }
        terms = self.options.new_vocabulary()
        if terms is not None and terms is not self.new_vocabulary:
            self.new_vocabulary = terms
            self.hotwords = " ".join(terms)
        if self.hotwords:
            payload["hotwords"] = self.hotwords
        if self.segmenter.language == "en" and (terms := self.options.screen_terms(window.end)):
            known = set(self.hotwords.lower().split())
            payload["screen_terms"] = [term for term in terms if term.lower() not in known]
        return payload

    def _note_log_probability(self, log_probability: float, end: float) -> None:
        self.log_probability += SMOOTHING * (log_probability - self.log_probability)
        self.segmenter.clear = self.log_probability > CLEAR_LOG_PROBABILITY
        self.language.note_log_probability(log_probability, end)

    async def _detect_language(self, window: DecodeWindow) -> bool:
        """Set the language of a window. False: it is not known yet, or the request failed."""
        if self.multilingual:
            language = self.options.language
            self.language.fix(self.settings.language if language is None else language())
        if self.language.pending:
            start = self.language.detection_start(window.end, at_pause=window.at_pause)
            if start is None:
                self.segmenter.skip(window)
                return False
            samples = window.samples[round(max(0.0, start - window.start) * SAMPLE_RATE) :]
            detected = await self.recognizer.detect_language(samples)
            if detected is None:
                return False
            code, probability = detected
            if not self.language.accept(code, probability, window.end, at_pause=window.at_pause):
                self.segmenter.skip(window)
                return False
        self.segmenter.language = self.language.code
        return True
