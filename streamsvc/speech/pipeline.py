"""The speech pipeline of a session: encoded audio to words, cues and translations.

    audio ring -> decode -> chunks -> decoding loop -> replacements -> captions (-> translation)

A flush travels through the rings as a marker between two frames, so what it brings out covers exactly the
audio before it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

from streamsvc.core import metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import CapacityError, Conflict
from streamsvc.core.options import SpeechOptions
from streamsvc.core.queues import Ring
from streamsvc.core.types import (
    SAMPLE_RATE,
    AudioChunk,
    EncodedFrame,
    Gap,
    MediaTrack,
    Speech,
    Translation,
    Words,
)
from streamsvc.core.units import Flushed
from streamsvc.ingest import decode
from streamsvc.ingest.decode import AudioDecoder, TrackFrame
from streamsvc.ingest.decoders import Decoders, audio_decoder, threads
from streamsvc.speech import decoding_loop
from streamsvc.speech.captions import Cues
from streamsvc.speech.decoding_loop import Flush, no_terms
from streamsvc.speech.replacements import Replacer
from streamsvc.speech.translation import Translator
from streamsvc.speech.vocabulary import ScreenVocabulary

MAX_FLUSHES = 8  # under way at once in one session
# Bytes of payload that are decoded at once: a packet takes 0.1 ms, handing it to a thread three times that.
_SMALL = 1024
_CHUNK_SECONDS = 24.0  # of decoded audio that wait for the decoding loop, while its worker is away
# Seconds that one frame counts for in the ring: time stamps may stand still or jump, and memory is bounded.
_FRAME_SECONDS = (0.002, 2.5)


class SpeechPipeline:
    """Recognises the speech of one session.

    `audio`: the ring that encoded frames are put into; full, it drops the oldest, counted as `dropped_audio`.
    `screen_vocabulary`: the terms of the screen; the session tells it what was read there.
    """

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._options = context.options.speech
        self._next_options: SpeechOptions | None = None  # takes effect at the next flush
        self._new_vocabulary: tuple[str, ...] | None = None  # of the last `use` that changed it
        self.audio: Ring[TrackFrame | Flush] = Ring(
            context.settings.ingest.audio_seconds,
            self._frame_dropped,
            self._seconds_of_frame,
        )
        self._chunks: Ring[AudioChunk | Flush] = Ring(
            _CHUNK_SECONDS, lambda item: metrics.count_dropped("chunks"), _seconds_of_chunk
        )
        self.screen_vocabulary = ScreenVocabulary()
        self._cues = Cues(context.session)
        self._replacer = Replacer(self._options.replace)
        self._translator = Translator(
            context.roles.hear,
            self._translated,
            wanted=bool(self._options.translate),
            beam=context.settings.hear.beam,
            lossless=context.options.lossless,
        )
        self._newest = 0.0  # session seconds of the newest frame in the ring
        self._frames_missing = False  # frames were dropped before the next one
        self._all_decoded = False
        self._closed = False
        self._flushes: set[asyncio.Future[None]] = set()

    def _frame_dropped(self, item: TrackFrame | Flush) -> None:
        metrics.count_dropped("audio")
        self._frames_missing = True

    def _seconds_of_frame(self, item: TrackFrame | Flush) -> float:
        """The share of a frame in the ring's limit: the time since the frame before it."""
        if isinstance(item, Flush):
            return 0.0
        step = item[1].at - self._newest
        self._newest = item[1].at
        return min(max(step, _FRAME_SECONDS[0]), _FRAME_SECONDS[1])

    @property
    def backlog(self) -> float:
        """Seconds of audio that have come in and wait for recognition."""
        return self.audio.load + self._chunks.load

    # --- control ---

    @property
    def options(self) -> SpeechOptions:
        """How speech is recognised now."""
        return self._options

    def use(self, options: SpeechOptions) -> None:
        """Recognise with these options from the next decoding step on; the hangover stays as it is.

        Words that are stable are not changed; cues closed before are not translated.
        """
        if options.vocabulary != self._options.vocabulary:
            self._new_vocabulary = options.vocabulary
        self._options = replace(options, hangover=self._options.hangover)
        self._replacer.use(options.replace)
        self._translator.want(bool(options.translate))

    def reconfigure(self, options: SpeechOptions) -> None:
        """Use another language, vocabulary and hangover from the next flush on.

        Raises:
            InvalidRequest: the hangover is not within the limits.
        """
        options.check()
        self._context.tape.note("reconfigure", options)
        hear = self._context.settings.hear
        filled = options.with_defaults(hear)
        self._next_options = replace(
            self._options, language=filled.language, vocabulary=filled.vocabulary, hangover=filled.hangover
        )

    async def flush(self, audience: str | None = None) -> None:
        """Recognise all audio that has come in, and close its captions; the session goes on.

        Returns when `session.flushed` is in the log, behind all of that. With the worker away, what is left
        becomes a `caption.gap` after `decoding_loop.GIVE_UP` seconds, and the flush completes all the same.

        Args:
            audience: the one subscriber that is to have the event; None: all.

        Raises:
            Conflict: the session has ended, or ends before the flush is done. CapacityError: MAX_FLUSHES are
                under way.
        """
        if self._closed:
            raise Conflict("this session has ended", code="session_ended")
        if len(self._flushes) >= MAX_FLUSHES:
            raise CapacityError(
                f"{MAX_FLUSHES} flushes of this session are under way",
                retry_after=1.0,
                code="too_many_flushes",
            )
        self._context.tape.note("flush", audience)
        flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        changed, self._next_options = self._next_options, None
        options = changed or self._options

        def done() -> None:
            self._flushes.discard(flushed)
            if changed is not None:
                self._options = replace(self._options, language=changed.language)
            self._context.host.dispatch(Flushed(audience))
            if not flushed.done():
                flushed.set_result(None)

        self._options = replace(self._options, vocabulary=options.vocabulary, hangover=options.hangover)
        self._flushes.add(flushed)
        self.audio.put(Flush(done, options.vocabulary, options.hangover or 0.0))
        await flushed

    def close(self) -> None:
        """Close the input; queued audio is still recognised, and flushes under way complete. Idempotent."""
        self._closed = True
        self.audio.close()

    def abandon(self) -> None:
        """Fail the flushes under way: nothing recognises their audio any more."""
        self.close()
        for flushed in self._flushes:
            if not flushed.done():
                flushed.set_exception(Conflict("this session has ended", code="session_ended"))
        self._flushes.clear()

    # --- stages ---

    async def run(self) -> None:
        """Run all stages until the input is closed and everything is recognised."""
        async with asyncio.TaskGroup() as stages:
            stages.create_task(self._decode())
            stages.create_task(self._recognise())
            stages.create_task(self._translator.run())

    async def _decode(self) -> None:
        """Decode frames to chunks of samples until the ring is closed and empty."""
        media = self._context.media
        with Decoders(self._context.session, audio_decoder) as decoders:
            async for batch in self._context.tape.batches("audio", self.audio):
                if self._frames_missing:
                    self._frames_missing = False
                    batch = _after_drop(batch)
                for track, frames in _runs(batch):
                    if isinstance(track, Flush):
                        # The decoder is not flushed: it holds back a millisecond at most, and flushing it
                        # would click.
                        self._chunks.put(track)
                        continue
                    decoder, before = decoders.of(track)
                    if before is not None:
                        await self._pass_on(await decode.on_thread(threads(before, media), before.flush))
                        before.close()
                    if frames[0].joint:
                        self._chunks.put(self._utterance_end())
                    if (
                        isinstance(decoder, AudioDecoder)
                        and sum(len(one.payload) for one in frames) <= _SMALL
                    ):
                        chunks = decoder.decode(frames)
                    else:
                        chunks = await decode.on_thread(threads(decoder, media), decoder.decode, frames)
                    metrics.audio_processed.inc(sum(len(chunk.samples) for chunk in chunks) / SAMPLE_RATE)
                    await self._pass_on(chunks)
            if decoders.present is not None:
                await self._pass_on(
                    await decode.on_thread(threads(decoders.present, media), decoders.present.flush)
                )
        self._all_decoded = True
        self._chunks.close()

    def _utterance_end(self) -> Flush:
        """A marker that ends the utterance: what follows was spoken elsewhere, or at another time."""
        options = self._options
        return Flush(lambda: None, options.vocabulary, options.hangover or 0.0)

    async def _pass_on(self, chunks: Sequence[AudioChunk]) -> None:
        for chunk in chunks:
            await self._translator.add_audio(chunk)
            if self._context.options.lossless:
                await self._chunks.put_when_space(chunk)
            else:
                self._chunks.put(chunk)

    async def _recognise(self) -> None:
        """Run the decoding loop, again when audio comes after it has given up.

        `decoding_loop.run` gives up after GIVE_UP seconds with neither worker nor audio.
        """
        hear = self._context.settings.hear
        lossless = self._context.options.lossless
        while not self._all_decoded or len(self._chunks):
            await decoding_loop.run(
                self._chunks,
                self._context.roles.hear,
                self._recognised,
                decoding_loop.DecodingOptions(
                    hear.model_copy(update={"hangover": self._options.hangover}),
                    session=self._context.session,
                    vocabulary=self._options.vocabulary,
                    language=lambda: self._options.language,
                    new_vocabulary=lambda: self._new_vocabulary,
                    screen_terms=self.screen_vocabulary.terms if hear.screen_vocabulary else no_terms,
                    step=None if lossless else self._step,
                    lossless=lossless,
                    tape=self._context.tape,
                ),
            )
        self._translator.close()

    def _step(self) -> float:
        """Seconds between decode steps now."""
        return max(self._context.settings.hear.step, self._context.degradation.fidelity.step or 0.0)

    def _recognised(self, unit: Words | Speech | Gap) -> None:
        """Hand on what the decoding loop has found; words become cues on the way."""
        dispatch = self._context.host.dispatch
        if not isinstance(unit, Words):
            dispatch(unit)
            return
        words = self._replacer.take(unit)
        if words.stable:
            dispatch(words)
        for cue in self._cues.push(words):
            event = dispatch(cue)
            if cue.final and event is not None:
                self._translator.put(cue, event.id)

    def _translated(self, unit: Translation) -> None:
        self._context.host.dispatch(unit)


def _runs(batch: Sequence[TrackFrame | Flush]) -> Iterator[tuple[MediaTrack | Flush, list[EncodedFrame]]]:
    """Consecutive frames of one track, cut before each joint, and each flush in its place, without frames."""
    for is_flush, items in itertools.groupby(batch, key=lambda item: isinstance(item, Flush)):
        if is_flush:
            yield from ((item, []) for item in items if isinstance(item, Flush))
        else:
            for track, frames in decode.by_track([item for item in items if not isinstance(item, Flush)]):
                starts = [0, *(at for at, frame in enumerate(frames) if at and frame.joint), len(frames)]
                yield from ((track, frames[first:end]) for first, end in itertools.pairwise(starts))


def _after_drop(batch: Sequence[TrackFrame | Flush]) -> list[TrackFrame | Flush]:
    """A batch whose first frame tells why those before it are missing."""
    first = next((item for item in batch if not isinstance(item, Flush)), None)
    return [
        (item[0], replace(item[1], loss="overload"))
        if item is first and not isinstance(item, Flush)
        else item
        for item in batch
    ]


def _seconds_of_chunk(item: AudioChunk | Flush) -> float:
    return 0.0 if isinstance(item, Flush) else len(item.samples) / SAMPLE_RATE
