"""The hearing half of a session: its audio ring, decoded, transcribed, made captions of, published; and flushed where somebody asks.

    audio ring -> decode -> chunks -> transcribe -> replace -> captions (-> translate) -> timeline, log

A flush is a seam in the audio: it goes through the rings in its place between two frames, and what comes out of it is an event,
`session.flushed`, after everything that was heard before the seam.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from streamsvc.core import clock, metrics
from streamsvc.core.config import Settings
from streamsvc.core.degradation import Fidelity
from streamsvc.core.errors import CapacityError, Conflict, InvalidRequest
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import (
    SAMPLE_RATE,
    AudioChunk,
    Cue,
    EncodedFrame,
    Gap,
    MediaTrack,
    Speech,
    Translation,
    Word,
    Words,
)
from streamsvc.events.log import EventLog
from streamsvc.events.serialize import event_body
from streamsvc.ingest import decode
from streamsvc.ingest.decode import TrackFrame, count_dropped
from streamsvc.service.latency_report import LatencyReport
from streamsvc.speech import decoding_loop
from streamsvc.speech.captions import Cues, light
from streamsvc.speech.decoding_loop import Flush
from streamsvc.speech.replacements import Replacer
from streamsvc.speech.translation import Translator
from streamsvc.timeline.timeline import Timeline

HANGOVER = (0.1, 5.0)  # seconds of silence that may end an utterance: at least, at most
FLUSHES = 8  # that may be under way at once, per session
_CHUNKS = 24.0  # seconds of audio that wait for the transcriber, its buffer while the worker is away
_SHORTEST, _LONGEST = (
    0.002,
    2.5,
)  # seconds that one frame counts for in the ring: time may stand still or jump, and memory is bounded


class SpeechPipeline:
    """What a session hears.

    Args:
        session: its id.
        settings: of the service.
        hear: the model.
        media: the threads that decode.
        log, timeline, report: where captions go.
        lossless: the source can wait, so nothing is ever dropped.
        language: of the speech; None: as the model's settings say.
        vocabulary: names and terms to expect.
        hangover: seconds of silence that end an utterance, within HANGOVER; None: as the settings say.
        translate: captions in English too; the model is multilingual.
        replace: phrases of captions that are written otherwise.

    Raises:
        InvalidRequest: the hangover is not within HANGOVER.
    """

    def __init__(
        self,
        session: str,
        settings: Settings,
        hear: Role,
        media: ThreadPoolExecutor,
        log: EventLog,
        timeline: Timeline,
        report: LatencyReport,
        *,
        lossless: bool = False,
        language: str | None = None,
        vocabulary: Sequence[str] = (),
        hangover: float | None = None,
        translate: bool = False,
        replace: Mapping[str, str] | None = None,
    ) -> None:
        self.language = language or settings.hear.language  # None: detected; may be set at any time
        self.cues: list[Cue] = []  # closed ones, oldest first; bounded by settings.store.events
        self.translations: list[Translation] = []  # oldest first; bounded as the cues
        self.audio: Ring[TrackFrame | Flush] = Ring(
            settings.ingest.audio_seconds, lambda sent: count_dropped("audio"), self._seconds
        )
        self._chunks: Ring[AudioChunk | Flush] = Ring(
            _CHUNKS, lambda chunk: count_dropped("chunks"), _seconds_of
        )
        self._session, self._settings, self._hear, self._media = session, settings, hear, media
        self._log, self._timeline, self._report, self._lossless = log, timeline, report, lossless
        self._captions, self._replacer = Cues(session), Replacer(replace or {})
        self._translator = Translator(
            hear, self._translated, wanted=translate, beam=settings.hear.beam, lossless=lossless
        )
        self.translate = self._translator.run  # a room too
        self.speaking = False  # somebody, as last heard
        self.on_words: Callable[[tuple[Word, ...], float], None] = lambda words, arrived: (
            None
        )  # newly stable ones, and when they arrived
        self.on_speech: Callable[[Speech], None] = lambda speech: None
        self.spent = Fidelity()  # what the ladder leaves; may be set at any time
        self._at = 0.0  # session seconds of the newest frame in the ring
        self._deaf = False  # all audio has been decoded
        self._over = False
        self._flushes: set[asyncio.Future[None]] = set()
        self.tune(language, vocabulary, hangover)
        self._tuned = False  # ... since the last flush

    # --- audio in ---

    def _seconds(self, item: TrackFrame | Flush) -> float:
        """What a frame counts for in the ring: the time since the one before it."""
        if isinstance(item, Flush):
            return 0.0
        step, self._at = item[1].at - self._at, item[1].at
        return min(max(step, _SHORTEST), _LONGEST)

    def tune(self, language: str | None, vocabulary: Sequence[str], hangover: float | None) -> None:
        """Listen for something else: all three as in the constructor, from the next flush on."""
        self._next_language = language or self._settings.hear.language
        self._vocabulary = tuple(vocabulary)
        self._hangover = hangover_of(hangover, self._settings.hear.hangover)
        self._tuned = True

    async def flush(self, client: str | None = None) -> None:
        """Have all audio that came in before understood, and its captions closed; the session goes on.

        Ends when `session.flushed` is in the log, behind all of that. With the worker away, what is left becomes a `caption.gap`
        after `transcribe.GIVE_UP` seconds, and the flush is done all the same.

        Args:
            client: the one subscriber that is to have the event; None: all.

        Raises:
            Conflict: the session has ended, or ends before it is done. CapacityError: FLUSHES are under way.
        """
        if self._over:
            raise Conflict("this session has ended", code="session_ended")
        if len(self._flushes) >= FLUSHES:
            raise CapacityError(
                f"{FLUSHES} flushes of this session are under way", retry_after=1.0, code="too_many_flushes"
            )
        out: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        language, tuned, self._tuned = self._next_language, self._tuned, False

        def done() -> None:
            self._flushes.discard(out)
            if tuned:
                self.language = language
            self._log.emit("session.flushed", {}, audience=client)
            if not out.done():
                out.set_result(None)

        self._flushes.add(out)
        self.audio.put(Flush(done, self._vocabulary, self._hangover))
        await out

    def close(self) -> None:
        """Take nothing more in; what is in is still understood, and flushes under way are done. May be called twice."""
        self._over = True
        self.audio.close()

    def backlog(self) -> float:
        """Seconds of audio that have come in and wait."""
        return self.audio.load + self._chunks.load

    def abandon(self) -> None:
        """Tell those who wait for a flush that it will never be done: the rooms have stopped."""
        self.close()
        for out in self._flushes:
            if not out.done():
                out.set_exception(Conflict("this session has ended", code="session_ended"))
        self._flushes.clear()

    # --- the rooms ---

    async def decode(self) -> None:
        """Encoded frames -> chunks, until the ring is closed and empty."""
        decoder: decode.AudioDecoder | None = None
        track: MediaTrack | None = None
        async for batch in self.audio.batches():
            for fresh, frames in _by_seam(batch):
                if isinstance(
                    fresh, Flush
                ):  # the decoder is not flushed: it holds back a millisecond at most, and would click
                    self._chunks.put(fresh)
                    continue
                chunks: list[AudioChunk] = []
                if decoder is None or fresh is not track:
                    if decoder is not None:
                        chunks += await decode.on_thread(self._media, decoder.flush)
                    track, decoder = fresh, decode.AudioDecoder(fresh, self._session)
                chunks += await decode.on_thread(self._media, decoder.decode, frames)
                metrics.audio_processed.inc(sum(len(chunk.samples) for chunk in chunks) / SAMPLE_RATE)
                await self._pass_on(chunks)
        if decoder is not None:
            await self._pass_on(await decode.on_thread(self._media, decoder.flush))
        self._deaf = True
        self._chunks.close()

    async def transcribe(self) -> None:
        """The transcriber gives up when it has neither worker nor audio for long; whoever speaks after that is heard again."""
        while not self._deaf or len(self._chunks):
            await decoding_loop.run(
                self._chunks,
                self._hear,
                lambda unit: self._heard(unit),
                self._settings.hear.model_copy(update={"hangover": self._hangover}),
                session=self._session,
                vocabulary=self._vocabulary,
                language=lambda: self.language,
                step=None if self._lossless else self._step,
                lossless=self._lossless,
            )
        self._translator.close()

    def _step(self) -> float:
        """Seconds between decode steps now."""
        return max(self._settings.hear.step, self.spent.step or 0.0)

    def _heard(self, unit: Words | Speech | Gap) -> None:
        """Publish what the transcriber found."""
        if isinstance(unit, Words):
            self._captioned(unit)
        elif isinstance(unit, Speech):
            self.speaking = unit.active
            self._timeline.add(unit)
            self.on_speech(unit)
            self._log.emit(
                "speech.started" if unit.active else "speech.stopped", {}, at=unit.at, arrived=unit.arrived
            )
        else:
            self._timeline.add(unit)
            self._report.gap(unit.end - unit.start)
            self._log.emit(
                "caption.gap",
                {"start": round(unit.start, 3), "end": round(unit.end, 3), "reason": unit.reason},
                at=unit.at,
            )

    def _captioned(self, words: Words) -> None:
        words = self._replacer.take(words)
        if words.stable:
            self._report.stable(clock.now() - words.arrived)
            self.on_words(words.words[: words.stable], words.arrived)
        for cue in self._captions.push(words):
            if cue.final:
                event = self._log.emit(
                    "caption.final", event_body(cue), at=cue.start, arrived=cue.arrived, stages=cue.stages
                )
                kept = light(cue)
                self.cues.append(kept)
                del self.cues[: -self._settings.store.events]
                self._timeline.add(kept)
                self._translator.put(cue, event.id)
            else:
                if self.spent.partials:
                    self._log.emit(
                        "caption.partial",
                        event_body(cue),
                        at=cue.start,
                        arrived=cue.arrived,
                        stages=cue.stages,
                    )
                self._timeline.tail(cue.words[: cue.stable])

    def _translated(self, unit: Translation) -> None:
        self.translations.append(unit)
        del self.translations[: -self._settings.store.events]
        self._log.emit(
            "caption.translation", event_body(unit), at=unit.start, arrived=unit.arrived, stages=unit.stages
        )

    async def _pass_on(self, chunks: Sequence[AudioChunk]) -> None:
        for chunk in chunks:
            await self._translator.hear(chunk)
            if self._lossless:
                await self._chunks.put_when_space(chunk)
            else:
                self._chunks.put(chunk)


def hangover_of(seconds: float | None, usual: float) -> float:
    """The silence that ends an utterance, in seconds. `seconds`: as asked for, None: not; `usual`: then.

    Raises:
        InvalidRequest: it is not within HANGOVER.
    """
    if seconds is None:
        return usual
    if not HANGOVER[0] <= seconds <= HANGOVER[1]:
        raise InvalidRequest(
            f"hangover is between {HANGOVER[0]:g} and {HANGOVER[1]:g} seconds", code="bad_hangover"
        )
    return seconds


def _by_seam(batch: Sequence[TrackFrame | Flush]) -> Iterator[tuple[MediaTrack | Flush, list[EncodedFrame]]]:
    """Frames that follow each other with the same track, and the track; flushes in their places, without frames."""
    for seam, group in itertools.groupby(batch, key=lambda item: isinstance(item, Flush)):
        if seam:
            yield from ((item, []) for item in group if isinstance(item, Flush))
        else:
            yield from decode.by_track([item for item in group if not isinstance(item, Flush)])


def _seconds_of(item: AudioChunk | Flush) -> float:
    return 0.0 if isinstance(item, Flush) else len(item.samples) / SAMPLE_RATE
