"""The decisions of transcription: what to decode next, which words are stable, where an utterance ends. Pure.

`Transcriber` is fed audio, voice-activity probabilities and hypotheses, and says what to decode next. The rules:

  - nothing is decoded without speech (Silero), so silence costs nothing and invents nothing;
  - while somebody speaks, the window since the last trim is decoded every `step` seconds of audio; words on which consecutive
    hypotheses agree are stable (LocalAgreement, Machacek et al. 2023), improbable ones later, evident ones at once (`certain`);
  - a pause settles: the window with the pause at its end is decoded once, and its likely words are stable; if the pause lasts
    for the hangover, the utterance ends there with all its words, without further work;
  - the window is trimmed at a stable word so that CONTEXT seconds of stable audio stay; the words before it go along as text;
    what is stable already is cut off the next hypothesis by text and time together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.config import Hear
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Stages, Word, Words
from streamsvc.speech.agreement import agreed, certain, known, presentable, sentence_case, sound

Unit = Words | Speech | Gap

VAD_WINDOW = 512  # samples per voice-activity probability: 32 ms
TICK = 4 * VAD_WINDOW  # samples judged at a time: 0.13 s; steps are whole ticks
SPEECH_ON, SPEECH_OFF = 0.5, 0.35  # probabilities; Silero's own hysteresis
ONSET_WINDOWS = 3  # consecutive windows of speech that open an utterance: 0.1 s; clicks are shorter
PREROLL = 0.3  # seconds of audio decoded before the onset: plosives begin before the voice
PASSED_OVER = 0.8  # seconds of speech after the stable words without one word heard: the context is dropped
CARRY = 2.0  # seconds of silence over which the words before it still are context
LULL = 0.2  # seconds of silence at which a step waits: for what is said next, or for the pause, which is decoded anyway
PAUSE = 0.3  # ... after which the window is settled
CONTEXT = 2.25  # seconds of stable audio kept before the new
BEFORE_WORDS, BEFORE_SECONDS = (
    40,
    60.0,
)  # words spoken before the window that go along as text, and how old they may be
TRIM_AT = 5.0  # seconds of window at which it is trimmed
WINDOW_MAX = 12.0  # seconds in one decode, whatever happens
FORCE_AFTER = (
    8.0  # seconds of window without agreement after which all but the last words are taken as they are
)
FORCE_KEEP = 2.0  # ... seconds of them kept open
UTTERANCE_MAX = 25.0  # seconds of speech without a pause after which an utterance ends between two words
GAP_LEAST = 0.3  # seconds of lost audio worth telling
LONG_HOLE = 2.0  # seconds of nothing that end any utterance
SHIFT = 0.3  # seconds by which the times of one word differ between hypotheses: what ends earlier than stable words is none after them
JITTER = 0.05  # seconds that timestamps may differ from the count of samples


@dataclass(frozen=True, slots=True)
class Ask:
    """A window to decode.

    `settle`: it ends in a pause. `keep_before`: words ending before this session time need no agreement. `before`: the words spoken
    before it.
    """

    samples: NDArray[np.float32]
    start: float  # session seconds
    end: float
    settle: bool
    keep_before: float
    before: str


class Transcriber:
    """The decisions of one audio track.

    Args:
        settings: the hear group.
        session, track: stamped on every unit.
    """

    def __init__(self, settings: Hear, *, session: str, track: str = "main") -> None:
        self.settings, self.session, self.track = settings, session, track
        self.step = settings.step  # seconds between steps; may be changed at any time (degradation)
        self.clear = True  # whether speech is heard well; where it is not, words wait longer (`certain`)
        self.language: str | None = settings.language or ("en" if settings.model.endswith(".en") else None)
        self.vad_state: NDArray[np.float32] | None = None  # opaque; travels with each request
        self.speaking = False
        self._base: float | None = None  # session time of _audio[0]
        self._audio = np.zeros(0, np.float32)
        self._judged = 0  # samples of _audio with a probability
        self._speech: deque[tuple[float, float]] = deque(
            maxlen=2000
        )  # stretches of speech; 2000 hold several minutes
        self._run = 0  # consecutive windows of speech
        self._chunk_ends: list[float] = []
        self._chunk_arrivals: list[float] = []
        self._lost: float | None = None  # where the running gap began
        self._told = 0.0  # session time up to which holes have been told
        self._utterance = 0.0  # session time at which the utterance began
        self._start = 0.0  # session time at which the window begins
        self._asked = 0.0  # session time of the end of the last decode
        self._settled = 0.0  # session time up to which everything is stable
        self._stable: list[Word] = []  # stable words that may lie in the window
        self._past: deque[Word] = deque(
            maxlen=2 * BEFORE_WORDS
        )  # the last stable words, in the window or before it
        self._tail: tuple[Word, ...] = ()
        self._steps: list[int] = []  # of each word of the tail, how many steps before had heard the same
        self._shown: tuple[str, ...] = ()  # the tail as it was last told

    # --- audio in

    @property
    def end(self) -> float:
        """Session time of the end of the audio so far."""
        return (self._base or 0.0) + len(self._audio) / SAMPLE_RATE

    @property
    def judged_end(self) -> float:
        """Session time up to which voice activity is known."""
        return (self._base or 0.0) + self._judged / SAMPLE_RATE

    def hole(self, chunk: AudioChunk) -> float:
        """Seconds of nothing between the audio so far and a chunk; negative where they overlap."""
        return 0.0 if self._base is None else chunk.at - self.end

    def feed(self, chunk: AudioChunk, *, blame: str = "packet_loss") -> list[Unit]:
        """Take audio. Holes between chunks become silence; those worth telling come back as gaps, with the reason `blame`."""
        if self._base is None:
            self._base = chunk.at
        samples, hole = chunk.samples, self.hole(chunk)
        units: list[Unit] = []
        if hole < -JITTER:
            samples = samples[min(len(samples), round(-hole * SAMPLE_RATE)) :]
        elif hole > JITTER:
            if hole >= GAP_LEAST and chunk.at - self._told > JITTER:
                units.append(
                    Gap(self.session, self.track, self.end, chunk.arrived, self.end, chunk.at, blame)
                )
            if (
                hole > LONG_HOLE and not self.speaking
            ):  # nobody speaks: let time jump instead of building silence
                self._base += hole - LONG_HOLE
                hole = LONG_HOLE
            samples = np.concatenate([np.zeros(round(hole * SAMPLE_RATE), np.float32), samples])
        if chunk.gap and self._lost is None:
            self._lost = chunk.at
        elif not chunk.gap and self._lost is not None:
            if chunk.at - self._lost >= GAP_LEAST:
                units.append(
                    Gap(
                        self.session,
                        self.track,
                        self._lost,
                        chunk.arrived,
                        self._lost,
                        chunk.at,
                        "packet_loss",
                    )
                )
            self._lost = None
        self._audio = np.concatenate([self._audio, samples])
        self._chunk_ends.append(self.end)
        self._chunk_arrivals.append(chunk.arrived)
        return units

    def unjudged(self, least: int = TICK) -> NDArray[np.float32] | None:
        """Whole voice-activity windows not judged yet, at most 10 s of them; None while there are fewer than `least` samples."""
        count = min(
            (len(self._audio) - self._judged) // VAD_WINDOW * VAD_WINDOW,
            10 * SAMPLE_RATE // VAD_WINDOW * VAD_WINDOW,
        )
        return self._audio[self._judged : self._judged + count] if count >= max(least, VAD_WINDOW) else None

    def judged(self, probabilities: Sequence[float] | NDArray[np.float32]) -> list[Unit]:
        """Take the probabilities of the windows that `unjudged` gave."""
        units: list[Unit] = []
        for probability in probabilities:
            start = self.judged_end
            self._judged += VAD_WINDOW
            end = self.judged_end
            if probability < (SPEECH_OFF if self._run else SPEECH_ON):
                self._run = 0
                continue
            self._run += 1
            if self._run > 1 and self._speech:
                self._speech[-1] = (self._speech[-1][0], end)
            else:
                self._speech.append((start, end))
            if not self.speaking and self._run >= ONSET_WINDOWS:
                self._begin(self._speech[-1][0])
                units.append(Speech(self.session, self.track, self._speech[-1][0], self._arrived(end), True))
        if not self.speaking and not (self._stable and self.judged_end - self._stable[-1].end <= CARRY + 0.5):
            self._forget(max(0.0, self.judged_end - PREROLL - ONSET_WINDOWS * VAD_WINDOW / SAMPLE_RATE))
        return units

    def _begin(self, onset: float) -> None:
        self.speaking = True
        self._utterance = onset
        self._asked, self._tail, self._steps, self._shown = onset, (), [], ()
        if self._stable and onset - self._stable[-1].end <= CARRY:
            self._trim(CONTEXT)
        else:
            self._start, self._stable = max(onset - PREROLL, self._settled, self._base or 0.0), []

    # --- decisions

    @property
    def _speech_end(self) -> float:
        return self._speech[-1][1] if self._speech else 0.0

    def due(self, *, closing: bool = False) -> Ask | None:
        """What is to be decoded now, or None. The same until `heard` or `missed` is called or audio comes."""
        if not self.speaking:
            return None
        silence = self.judged_end - self._speech_end
        pause = min(PAUSE, self.settings.hangover)
        if (silence >= pause or closing) and self._settled < self._speech_end:
            return self._ask(self.judged_end if not closing else self.end, settle=True)
        if silence < min(LULL, pause) and self.judged_end - self._asked >= self.step - 1e-6:
            return self._ask(self.judged_end, settle=False)
        return None

    def _ask(self, end: float, *, settle: bool) -> Ask:
        base = self._base or 0.0
        keep_before = float("-inf")
        if end - self._start > WINDOW_MAX:
            end, settle = self._start + WINDOW_MAX, False
        if not settle and end - self._start > FORCE_AFTER:
            keep_before = end - FORCE_KEEP
        first, last = round((self._start - base) * SAMPLE_RATE), round((end - base) * SAMPLE_RATE)
        spoken = [
            word.text for word in self._past if self._start - BEFORE_SECONDS < word.end <= self._start + 0.1
        ]
        return Ask(
            self._audio[first:last], self._start, end, settle, keep_before, " ".join(spoken[-BEFORE_WORDS:])
        )

    def missed(self, ask: Ask) -> None:
        """The decode was not done in time: the next step takes its audio too. A settling decode is asked for again."""
        if not ask.settle:
            self._asked = max(self._asked, ask.end)

    def heard(self, ask: Ask, hypothesis: dict[str, Any], stages: Stages) -> list[Unit]:
        """Take what the model heard in a window, and say what is new."""
        self._asked = max(self._asked, ask.end)
        words = self._placed(ask, hypothesis)
        words = words[known([word for word in self._stable if word.end > ask.start + 0.1], words) :]
        while words and self._stable and words[0].end < self._stable[-1].end - SHIFT:
            del words[0]
        words = sentence_case(words, self._past[-1].text if self._past else ".")
        same = agreed(self._tail, words)
        steps = [(self._steps[place] + 1 if place < same else 0) for place in range(len(words))]
        count = certain(words, steps, ask.end, pause=ask.settle, clear=self.clear)
        while count < len(words) and words[count].end <= ask.keep_before:
            count += 1
        new, tail = tuple(words[:count]), tuple(words[count:])
        self._tail, self._steps = tail, steps[count:]
        self._keep(new)
        if ask.settle:
            self._settled = ask.end
        self._trim()
        if not words and self._drop_context() and not ask.settle:
            self._asked = self._start  # at once again: what was passed over is late already
        units: list[Unit] = []
        told = tail if ask.settle else tail[: presentable(tail, self._steps, ask.end)]
        texts = tuple(word.text for word in told)
        if new or texts != self._shown:
            units.append(self._words((*new, *told), len(new), stages, final=False))
        self._shown = texts
        if self._stable and ask.end - self._utterance > UTTERANCE_MAX and new:
            units.append(self._words((), 0, stages, final=True))
            self._utterance = self._stable[-1].end
        return units

    def ended(self, *, closing: bool = False) -> list[Unit]:
        """The end of the utterance, when its pause has lasted for the hangover and all of it is settled."""
        if not self.speaking or self.due(closing=closing) is not None:
            return []
        if self.judged_end - self._speech_end < self.settings.hangover and not closing:
            return []
        self.speaking = False
        self._run = 0
        end, self._settled = self._speech_end, max(self._settled, self._speech_end)
        units: list[Unit] = []
        if self._tail:
            self._keep(self._tail)
            units.append(self._words(self._tail, len(self._tail), {}, final=False))
            self._tail = ()
        if self._stable and self._stable[-1].end > self._utterance:
            units.append(self._words((), 0, {}, final=True))
        units.append(Speech(self.session, self.track, end, self._arrived(end), False))
        return units

    def skipped(self, end: float) -> None:
        """Audio up to a session time will not come: that hole has been told."""
        self._told = end

    def abandoned(self, reason: str) -> list[Unit]:
        """What is not decoded yet will never be: say so, and end the utterance."""
        if self._base is None:
            return []
        start = self.judged_end
        if self.speaking:
            start = max(self._settled, self._stable[-1].end if self._stable else self._utterance)
        units: list[Unit] = []
        if self.end - start >= GAP_LEAST:
            units.append(
                Gap(self.session, self.track, start, self._chunk_arrivals[-1], start, self.end, reason)
            )
        self._settled = self.end
        return units + self.ended(closing=True)

    # --- helpers

    def _keep(self, words: tuple[Word, ...]) -> None:
        self._stable += words
        self._past.extend(words)

    def _placed(self, ask: Ask, hypothesis: dict[str, Any]) -> list[Word]:
        """The hypothesis in session time; nothing if it is no speech."""
        raw = hypothesis["words"]
        if not raw or (hypothesis["no_speech"] > 0.6 and hypothesis["log_probability"] < -1.0):
            return []
        words: list[Word] = []
        for text, start, end, probability in raw:
            begin, finish = ask.start + start, min(ask.start + end, ask.end)
            begin, finish = self._snapped(begin, finish)
            begin = max(begin, words[-1].end if words else ask.start)
            words.append(Word(text, round(begin, 3), round(max(finish, begin + 0.02), 3), probability))
        return words[: sound([start for _, start, _, _ in raw], raw[-1][2])]

    def _snapped(self, start: float, end: float) -> tuple[float, float]:
        """A word's times without the silence before and after it: alignment gives pauses to a neighbour."""
        inside = [(max(start, a), min(end, b)) for a, b in self._speech if a < end and b > start]
        if not inside:
            return start, end
        first = last = max(range(len(inside)), key=lambda place: inside[place][1] - inside[place][0])
        while first > 0 and inside[first][0] - inside[first - 1][1] < PAUSE:
            first -= 1
        while last + 1 < len(inside) and inside[last + 1][0] - inside[last][1] < PAUSE:
            last += 1
        return max(start, inside[first][0] - 0.1), min(end, inside[last][1] + 0.05)

    def _words(self, words: tuple[Word, ...], stable: int, stages: Stages, *, final: bool) -> Words:
        shown = words[:stable] or words or self._stable[-1:]
        last = (
            shown[-1].end if shown else self._asked
        )  # a tail that was taken back before anything was stable
        return Words(
            self.session,
            self.track,
            words[0].start if words else last,
            self._arrived(last),
            words,
            stable,
            final,
            self.language or "en",
            stages,
        )

    def _arrived(self, at: float) -> float:
        """When the chunk that holds a time arrived."""
        place = min(bisect_left(self._chunk_ends, at - 1e-6), len(self._chunk_arrivals) - 1)
        return self._chunk_arrivals[place]

    def _trim(self, least: float = TRIM_AT) -> None:
        """Let the window begin at a stable word that leaves CONTEXT seconds of stable audio before the new."""
        if self._asked - self._start > least and self._stable:
            target = self._stable[-1].end - CONTEXT
            starts = [word.start for word in self._stable if word.start <= target]
            if starts:
                self._start = max(self._start, starts[-1])
        if (
            self._asked - self._start > FORCE_AFTER
        ):  # nothing to hold on to: speech that the model cannot hear must not hold the window
            opens = self._tail[0].start - PREROLL if self._tail else self._asked
            self._start = max(self._start, min(opens, self._asked - FORCE_KEEP))
        self._stable = [word for word in self._stable if word.end > self._start] or self._stable[-1:]
        self._forget(self._start)

    def _drop_context(self) -> bool:
        """Let the window begin after the stable words if speech follows that the model passes over: it may stop at a sentence's end.

        Returns:
            Whether the window is another one now.
        """
        if not self._stable:
            return False
        began, end = self._start, self._stable[-1].end + 0.1
        after = [(max(a, end), b) for a, b in self._speech if b > end]
        if sum(b - a for a, b in after) >= PASSED_OVER:
            self._start = max(began, end, after[0][0] - PREROLL)
            self._forget(self._start)
        return self._start > began

    def _forget(self, before: float) -> None:
        """Drop audio before a session time."""
        count = round((before - (self._base or 0.0)) * SAMPLE_RATE)
        count = min(count, self._judged)
        if count > 0 and self._base is not None:
            self._audio = self._audio[count:]
            self._judged -= count
            self._base += count / SAMPLE_RATE
            place = max(0, bisect_left(self._chunk_ends, self._base - 1.0) - 1)
            del self._chunk_ends[:place], self._chunk_arrivals[:place]
