"""AudioChunk -> Words through the hear worker: `run` feeds the `Transcriber` (transcriber.py) and asks what that wants decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Words
from streamsvc.speech.language_id import Language
from streamsvc.speech.segmenter import LONG_HOLE, TICK, VAD_WINDOW, Ask, Transcriber, Unit

LONG_STEP = 1.5  # seconds between steps where nobody waits: a third of the work, and more to go by
FOGGY_STEP = 0.9  # seconds between steps where speech is hard to hear
# Mean log probability of a token above which speech is heard well, above which words need not wait long to be certain, and below which it
# is hard to hear; and the newest decode's weight in it.
CLEAR, DISTINCT, FOGGY, FRESH = -0.33, -0.4, -0.45, 0.3
BEHIND = 0.3  # seconds of arrived audio beyond the next step at which a live source is behind
VAD_DEADLINE, DECODE_DEADLINE = 2.0, 4.0  # seconds
RETRY_FIRST, RETRY_MOST = 0.25, 2.0  # seconds between tries while the worker is away
GIVE_UP = 15.0  # seconds of tries without new audio after which what is left is given up


@dataclass(frozen=True, slots=True)
class Flush:
    """A seam in the audio: what came before it is understood and its utterance closed, then `done` is called; what follows goes on.

    Without the worker, `done` is called after GIVE_UP seconds at most, and a gap says what was not understood.

    Attributes:
        done: called once, after the last unit before the seam was emitted; must not block.
        vocabulary: names and terms to expect from here on.
        hangover: seconds of silence that end an utterance from here on.
    """

    done: Callable[[], None]
    vocabulary: Sequence[str]
    hangover: float


async def run(
    chunks: Ring[AudioChunk] | Ring[AudioChunk | Flush],
    hear: Role,
    emit: Callable[[Unit], None],
    settings: Hear,
    *,
    session: str,
    track: str = "main",
    vocabulary: Sequence[str] = (),
    step: Callable[[], float] | None = None,
    language: Callable[[], str | None] | None = None,
    lossless: bool = False,
) -> None:
    """Transcribe a track until its ring is closed and everything is flushed.

    The language, where none is fixed, is detected anew in each utterance, on its own first seconds: nothing is decoded before.

    At most one request is in flight. A live source that gets ahead of the worker is caught up with by longer steps; one that is
    read faster than it was recorded is stepped through by audio time, so that the result does not depend on the machine.

    Args:
        chunks: the audio, and flushes in it; it should hold at least `settings.backlog_seconds`, for it is the buffer while the worker
            is away, and must not drop a flush.
        hear: the worker role of engines/asr.py.
        emit: takes every unit, in order; must not block.
        settings: of the room.
        session: id that the units carry.
        track: name of the track that they carry.
        vocabulary: names and terms to expect.
        step: seconds between decode steps as the budget allows now; None: `settings.step`.
        language: of the speech, as fixed now, or None: it is detected. Without it: `settings.language`.
        lossless: the source waits for us and nobody waits for captions: nothing is skipped, and steps are long.
    """
    await _Run(
        chunks, hear, emit, settings, session, track, " ".join(vocabulary), step, language, lossless
    ).go()


class _Run:
    """The state of one `run`."""

    def __init__(
        self,
        chunks: Ring[AudioChunk] | Ring[AudioChunk | Flush],
        hear: Role,
        emit: Callable[[Unit], None],
        settings: Hear,
        session: str,
        track: str,
        hotwords: str,
        step: Callable[[], float] | None,
        language: Callable[[], str | None] | None,
        lossless: bool,
    ) -> None:
        self.chunks, self.hear, self.emit, self.settings, self.session = chunks, hear, emit, settings, session
        self.hotwords, self.step, self.lossless = hotwords, step, lossless
        self.core = Transcriber(settings, session=session, track=track)
        self._listen(settings.hangover)
        self.fixed = language or (lambda: self.settings.language)
        self.language = Language(self.core.language)
        self.taken: deque[AudioChunk | Flush] = (
            deque()
        )  # from the ring, behind the flush that is to be done first
        self.flush: Flush | None = None  # behind what waits
        self.patience = 0.0  # monotonic seconds up to which it waits for the worker
        self.forlorn = False  # something was given up in the present trouble
        self.waiting: deque[AudioChunk] = deque()
        self.trouble = ""  # why audio waits: the reason of the gap if some must be skipped
        self.blame = ""  # the last trouble
        self.since, self.until = 0.0, 0.0  # monotonic seconds at which it began, and at which it was last met
        self.pause = RETRY_FIRST
        self.clarity = 0.0  # mean log probability of a token, over the last decodes
        self.vad_seconds = 0.0  # since the last decode

    async def go(self) -> None:
        while await self._more() or await self._left():
            self._bound()
            whole = self._live() and self._seconds() > self.core.step + BEHIND
            while self.waiting and (self.core.unjudged() is None or (whole and not self.trouble)):
                if self.core.speaking and self.core.hole(self.waiting[0]) > LONG_HOLE:
                    await self._close(clock.now() + GIVE_UP)
                chunk = self.waiting.popleft()
                self._tell(self.core.feed(chunk, blame=self._reason(chunk, "packet_loss")))
            if self.flush is not None and (not self.waiting or self._hopeless()):
                await self._flushed(self.flush)
                continue
            self.core.step = self._step()
            while await self._judge():
                pass
            await self._decode()
            self._tell(self.core.ended())

    def _step(self) -> float:
        """Seconds between steps now: where speech is hard to hear, words need more audio behind them to be right."""
        wanted = self.settings.step if self.step is None else self.step()
        return max(wanted, LONG_STEP if self.lossless else 0.0, 0.0 if self.clarity > FOGGY else FOGGY_STEP)

    async def _left(self) -> bool:
        """Close at the end; whether there is audio after all: it waited for the worker, which came back meanwhile."""
        await self._close(clock.now() + GIVE_UP)
        return bool(self.waiting)

    def _hopeless(self) -> bool:
        """Whether the flush at hand has waited long enough for the worker, and has asked it in vain."""
        return self.flush is not None and bool(self.trouble) and self.until >= self.patience

    async def _flushed(self, flush: Flush) -> None:
        """Close the utterance at once: the decode that closes it takes the place of the step that may be due."""
        await self._close(self.patience)
        if self.waiting:
            return  # the worker came back when all that was to be given up
        self.flush = None
        self.hotwords = " ".join(flush.vocabulary)
        self._listen(flush.hangover)
        flush.done()

    def _listen(self, hangover: float) -> None:
        """Let so many seconds of silence end an utterance."""
        self.core.settings = self.settings.model_copy(update={"hangover": hangover})

    def _tell(self, units: Sequence[Unit]) -> None:
        for unit in units:
            if isinstance(unit, Speech) and unit.active:
                self.language.began(unit.at)
            elif isinstance(unit, Words):
                self.language.said(unit.words[: unit.stable])
            self.emit(unit)

    async def _more(self) -> bool:
        """Wait for audio if there is none; take what there is if the source is live. False: the end."""
        if self.core.unjudged() is not None and self.trouble and not self._hopeless():
            await self._pause()
            if self.flush is None and not len(self.chunks) and self.until - self.since > GIVE_UP:
                return False  # no worker and no audio: nobody will miss us
        if self.flush is not None:
            return True
        try:
            if not self.taken and (
                (not self.waiting and self.core.unjudged() is None) or (len(self.chunks) and self._live())
            ):
                self.taken.extend(await self.chunks.take())
        except Closed:
            return False
        while self.taken and self.flush is None:
            item = self.taken.popleft()
            if isinstance(item, Flush):
                self.flush, self.patience = item, clock.now() + (0.0 if self.forlorn else GIVE_UP)
            else:
                self.waiting.extend(_pieces(item))
        return True

    def _seconds(self) -> float:
        return self.waiting[-1].end - self.waiting[0].at if self.waiting else 0.0

    def _live(self) -> bool:
        """Whether what waits came no faster than it was spoken."""
        if self.lossless:
            return False
        return (
            not self.waiting
            or self._seconds() <= 1.5 * (self.waiting[-1].arrived - self.waiting[0].arrived) + 0.5
        )

    def _bound(self) -> None:
        """Skip the oldest audio beyond the backlog of a live source."""
        if not self._live() or self._seconds() <= self.settings.backlog_seconds:
            return
        start, reason = self.waiting[0].at, self._reason(self.waiting[0], "overload")
        while self._seconds() > self.settings.backlog_seconds:
            last = self.waiting.popleft()
        self.emit(Gap(self.session, self.core.track, start, last.arrived, start, last.end, reason))
        self.core.skipped(last.end)

    def _reason(self, chunk: AudioChunk, usual: str) -> str:
        """Why audio before a chunk is missing: the last trouble, if the chunk came in it."""
        return self.blame if self.blame and chunk.arrived <= self.until else usual

    async def _pause(self) -> None:
        await clock.sleep(self.pause)
        self.pause = min(2 * self.pause, RETRY_MOST)

    async def _call(self, op: str, payload: dict[str, Any], deadline: float) -> dict[str, Any] | None:
        """One request; None: it could not be done, and `trouble` says why."""
        try:
            result = await self.hear.call(op, payload, deadline_in_s=deadline, affinity=self.session)
        except (WorkerError, DeadlineMissed, CapacityError) as error:
            self.until = clock.now()
            if not self.trouble:
                self.since = self.until
            self.trouble = self.blame = (
                "worker_restart" if isinstance(error, WorkerError) else self.trouble or "overload"
            )
            return None
        if self.trouble:
            self.trouble, self.pause, self.until, self.forlorn = "", RETRY_FIRST, clock.now(), False
        return result

    async def _judge(self) -> bool:
        samples = self.core.unjudged()
        if samples is None:
            return False
        began = clock.now()
        payload: dict[str, Any] = {"samples": samples}
        if self.core.vad_state is not None:
            payload["state"] = self.core.vad_state
        result = await self._call("vad", payload, VAD_DEADLINE)
        if result is None:
            return False
        self.vad_seconds += clock.now() - began
        self.core.vad_state = result["state"]
        self._tell(self.core.judged(result["probability"]))
        return True

    async def _decode(self, *, closing: bool = False) -> bool:
        """Do the decode that is due. False: nothing was due, or it failed."""
        ask = self.core.due(closing=closing)
        if ask is None:
            return False
        began = clock.now()
        if not await self._language(ask):
            return False
        cut = min(
            max(0.0, self.language.since - ask.start), (ask.end - ask.start) / 2
        )  # what another language spoke goes along with none
        samples, before = ask.samples[round(cut * SAMPLE_RATE) :], self.language.before(ask.before, ask.start)
        payload = {
            "samples": samples,
            "language": self.core.language,
            "before": before,
            "beam": self.settings.beam,
        }
        # What comes of a step is heard again with the next one; but where speech is hard to hear, less effort costs too many words.
        payload["quick"] = not ask.settle and not self.lossless and self.clarity > CLEAR
        if self.hotwords:
            payload["hotwords"] = self.hotwords
        result = await self._call("transcribe", payload, DECODE_DEADLINE)
        if result is None:
            self.core.missed(ask)
            return False
        if result["words"]:
            self.clarity += FRESH * (result["log_probability"] - self.clarity)
            self.core.clear = self.clarity > DISTINCT
            self.language.doubt(result["log_probability"], ask.end)
        if cut:
            result["words"] = [
                [text, start + cut, end + cut, probability]
                for text, start, end, probability in result["words"]
            ]
        stages = {
            "vad": self.vad_seconds,
            "queue": max(0.0, clock.now() - began - result.get("seconds", 0.0)),
            "asr": result.get("seconds", 0.0),
        }
        self.vad_seconds = 0.0
        self._tell(self.core.heard(ask, result, stages))
        return True

    async def _language(self, ask: Ask) -> bool:
        """See to it that the language is known. False: it is not yet, or it could not be asked for."""
        if not self.settings.model.endswith(".en"):
            self.language.fix(self.fixed())
        if self.language.waits:
            first = self.language.asks(ask.end, settle=ask.settle)
            if first is None:
                self.core.missed(ask)
                return False
            samples = ask.samples[round(max(0.0, first - ask.start) * SAMPLE_RATE) :]
            found = await self._call("detect_language", {"samples": samples}, DECODE_DEADLINE)
            if found is None:
                return False
            if not self.language.found(
                str(found["language"]), float(found["probability"]), ask.end, settle=ask.settle
            ):
                self.core.missed(ask)
                return False
        self.core.language = self.language.code
        return True

    async def _close(self, patience: float) -> None:
        """Decode what is left and end the utterance; what no worker has taken by `patience` (monotonic seconds) is given up."""
        while True:
            while await self._judge() or await self._decode(closing=True):
                pass
            if not self.trouble or (
                self.core.unjudged() is None and self.core.due(closing=True) is None and not self.waiting
            ):
                break
            if self.until >= patience or clock.now() >= patience + RETRY_MOST:
                while self.waiting:
                    self._tell(self.core.feed(self.waiting.popleft(), blame=self.blame))
                self._tell(self.core.abandoned(self.trouble))
                while (
                    rest := self.core.unjudged(VAD_WINDOW)
                ) is not None:  # that it will not be heard has been told
                    self.core.judged([0.0] * (len(rest) // VAD_WINDOW))
                self.forlorn = True
                return
            await self._pause()
        self._tell(self.core.ended(closing=True))


def _pieces(chunk: AudioChunk) -> Iterator[AudioChunk]:
    """A chunk in pieces of at most a tick: whoever hands over seconds at once is stepped through as finely as anybody."""
    for first in range(0, len(chunk.samples), TICK):
        yield replace(chunk, at=chunk.at + first / SAMPLE_RATE, samples=chunk.samples[first : first + TICK])
