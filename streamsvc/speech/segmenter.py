"""Audio to utterances and decode windows. Pure.

`Segmenter` takes audio, VAD probabilities and hypotheses, and decides what to decode next and where an
utterance ends. Rules:

  - nothing is decoded without speech, so silence costs nothing and produces no hallucinations;
  - during speech, the window since the last trim is decoded every `step` seconds of audio; words on which
    consecutive hypotheses agree become stable (`StableWords`);
  - a pause is decoded once, with its silence at the end of the window, and its likely words become stable; if
    the silence reaches the hangover, the utterance ends with all its words, without another decode;
  - the window is trimmed at a stable word, so that CONTEXT seconds of stable audio remain; earlier words are
    passed to the model as text (prompt).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Stages, Word, Words
from streamsvc.speech.audio_buffer import GAP_MIN, VAD_BATCH, AudioBuffer, Samples
from streamsvc.speech.hypothesis import DecodeWindow, Hypothesis
from streamsvc.speech.stable_words import OVERLAP, StableWords
from streamsvc.speech.vad import ONSET_WINDOWS, PAUSE, PREROLL, VAD_WINDOW, VoiceActivity

SpeechUnit = Words | Speech | Gap

SHORT_SILENCE = 0.2  # seconds of silence that defer a step: to the next speech, or to the decode of the pause
CONTEXT = 2.25  # seconds of stable audio before the new
CONTEXT_SILENCE = 2.0  # seconds of silence after which earlier words are no context any more
TRIM_AFTER = 5.0  # seconds of window after which it is trimmed
WINDOW_MAX = 12.0  # seconds in one decode
FORCE_AFTER = 8.0  # seconds of window without agreement after which all but the last words become stable
FORCE_OPEN = 2.0  # seconds of them that stay tentative
UTTERANCE_MAX = 25.0  # seconds of speech without a pause after which an utterance ends between two words
UNRECOGNISED_SPEECH = 0.8  # seconds of speech after the stable words without a word: the context is dropped


class Segmenter:
    """Segments one audio track.

    `step`, `hangover`, `clear` and `language` may be changed at any time.

    Args:
        session: id that the units carry.
        track: name of the track that they carry.
        step: seconds of audio between decoding steps.
        hangover: seconds of silence that end an utterance.

    Attributes:
        clear: the speech is clear; where it is not, words become stable later.
        language: of the words; None: not known yet.
        speaking: an utterance is open.
    """

    def __init__(self, session: str, track: str = "main", *, step: float, hangover: float) -> None:
        self.session = session
        self.track = track
        self.step = step
        self.hangover = hangover
        self.clear = True
        self.language: str | None = None
        self.speaking = False
        self._audio = AudioBuffer(session, track)
        self._activity = VoiceActivity()
        self._words = StableWords()
        # Session seconds:
        self._utterance_start = 0.0
        self._window_start = 0.0
        self._decoded_until = 0.0  # end of the last decode
        self._settled_until = 0.0  # everything before is stable

    # --- audio and voice activity

    @property
    def end(self) -> float:
        """Session time of the end of the audio so far."""
        return self._audio.end

    def hole(self, chunk: AudioChunk) -> float:
        """Seconds without audio between the audio so far and a chunk; negative where they overlap."""
        return self._audio.hole(chunk)

    def add_audio(self, chunk: AudioChunk, *, reason: str = "packet_loss") -> list[Gap]:
        """Add audio; returns the losses to report. `reason`: of a hole before the chunk."""
        return self._audio.append(chunk, reason=reason, speaking=self.speaking)

    def end_loss(self) -> list[Gap]:
        """The loss that is not over at the end of the input, to report."""
        return self._audio.end_loss()

    def mark_reported(self, end: float) -> None:
        """The loss of audio up to session time `end` has been reported."""
        self._audio.mark_reported(end)

    def vad_samples(self, least: int = VAD_BATCH) -> Samples | None:
        """Samples of whole windows that wait for VAD, at most 10 s; None below `least` samples."""
        return self._audio.pending(least)

    def add_vad(self, probabilities: Sequence[float] | NDArray[np.float32]) -> list[Speech]:
        """Add the speech probabilities of the windows that `vad_samples` returned."""
        units: list[Speech] = []
        for probability in probabilities:
            start, end = self._audio.advance()
            self._activity.add(probability, start, end)
            onset = self._activity.onset
            if not self.speaking and onset is not None:
                self._begin(onset)
                units.append(Speech(self.session, self.track, onset, self._audio.arrival(end), True))
        last = self._words.last
        cursor = self._audio.cursor
        if not self.speaking and (last is None or cursor - last.end > CONTEXT_SILENCE + 0.5):
            self._audio.discard(max(0.0, cursor - PREROLL - ONSET_WINDOWS * VAD_WINDOW / SAMPLE_RATE))
        return units

    def _begin(self, onset: float) -> None:
        self.speaking = True
        self._utterance_start = onset
        self._decoded_until = onset
        last = self._words.last
        keep_context = last is not None and onset - last.end <= CONTEXT_SILENCE
        self._words.begin(keep_context=keep_context)
        if keep_context:
            self._trim(CONTEXT)
        else:
            self._window_start = max(onset - PREROLL, self._settled_until, self._audio.start)

    # --- decoding

    def due(self, *, closing: bool = False) -> DecodeWindow | None:
        """The window to decode now, or None. Idempotent until audio or a result is added.

        Args:
            closing: the input ends here: decode all that is left.
        """
        if not self.speaking:
            return None
        cursor = self._audio.cursor
        silence = cursor - self._activity.end
        pause = min(PAUSE, self.hangover)
        if (silence >= pause or closing) and self._settled_until < self._activity.end:
            return self._window(self._audio.end if closing else cursor, at_pause=True)
        if silence < min(SHORT_SILENCE, pause) and cursor - self._decoded_until >= self.step - 1e-6:
            return self._window(cursor, at_pause=False)
        return None

    def _window(self, end: float, *, at_pause: bool) -> DecodeWindow:
        start = self._window_start
        if end - start > WINDOW_MAX:
            end = start + WINDOW_MAX
            at_pause = False
        force_before = end - FORCE_OPEN if not at_pause and end - start > FORCE_AFTER else float("-inf")
        samples = self._audio.slice(start, end)
        return DecodeWindow(samples, start, end, at_pause, force_before, self._words.prompt(start))

    def skip(self, window: DecodeWindow) -> None:
        """A window was not decoded. The next step covers it; the decode of a pause is due again."""
        if not window.at_pause:
            self._decoded_until = max(self._decoded_until, window.end)

    def add_hypothesis(self, window: DecodeWindow, hypothesis: Hypothesis, stages: Stages) -> list[Words]:
        """Add the result of a window; returns the words that it makes stable or changes."""
        self._decoded_until = max(self._decoded_until, window.end)
        placed = hypothesis.placed(window, self._activity)
        update = self._words.update(placed, window, clear=self.clear)
        if window.at_pause:
            self._settled_until = window.end
        self._trim()
        if update.empty and self._drop_context() and not window.at_pause:
            self._decoded_until = self._window_start  # decode again at once: it is late already
        units: list[Words] = []
        if update.changed:
            words = (*update.stable, *update.shown)
            units.append(self._unit(words, len(update.stable), stages))
        last = self._words.last
        if last is not None and update.stable and window.end - self._utterance_start > UTTERANCE_MAX:
            units.append(self._unit((), 0, stages, final=True))
            self._utterance_start = last.end
        return units

    def _trim(self, longest: float = TRIM_AFTER) -> None:
        """Start a window of over `longest` seconds at a stable word, leaving CONTEXT seconds."""
        last = self._words.last
        if self._decoded_until - self._window_start > longest and last is not None:
            start = self._words.start_before(last.end - CONTEXT)
            if start is not None:
                self._window_start = max(self._window_start, start)
        if self._decoded_until - self._window_start > FORCE_AFTER:
            # No stable word to trim at: speech that the model does not recognise must not grow the window.
            tail = self._words.tail
            tail_start = tail[0].start - PREROLL if tail else self._decoded_until
            latest = self._decoded_until - FORCE_OPEN
            self._window_start = max(self._window_start, min(tail_start, latest))
        self._words.discard(self._window_start)
        self._audio.discard(self._window_start)

    def _drop_context(self) -> bool:
        """Start the window after the stable words if unrecognised speech follows.

        Returns whether it moved. The model may stop at the end of a sentence in the context.
        """
        last = self._words.last
        if last is None:
            return False
        before = self._window_start
        context_end = last.end + OVERLAP
        speech = self._activity.after(context_end)
        if sum(end - start for start, end in speech) >= UNRECOGNISED_SPEECH:
            self._window_start = max(before, context_end, speech[0][0] - PREROLL)
            self._audio.discard(self._window_start)
        return self._window_start > before

    # --- end of the utterance

    def end_utterance(self, *, closing: bool = False) -> list[SpeechUnit]:
        """End the utterance if its silence reached the hangover and nothing is left to decode.

        Args:
            closing: end it whatever the silence.
        """
        if not self.speaking or self.due(closing=closing) is not None:
            return []
        end = self._activity.end
        if self._audio.cursor - end < self.hangover and not closing:
            return []
        self.speaking = False
        self._activity.reset()
        self._settled_until = max(self._settled_until, end)
        units: list[SpeechUnit] = []
        if tail := self._words.commit_tail():
            units.append(self._unit(tail, len(tail)))
        last = self._words.last
        if last is not None and last.end > self._utterance_start:
            units.append(self._unit((), 0, final=True))
        units.append(Speech(self.session, self.track, end, self._audio.arrival(end), False))
        return units

    def abandon(self, reason: str) -> list[SpeechUnit]:
        """Give up what is not decoded: report it as a gap and end the utterance."""
        if self._audio.empty:
            return []
        start = self._audio.cursor
        if self.speaking:
            last = self._words.last
            start = max(self._settled_until, last.end if last is not None else self._utterance_start)
        units: list[SpeechUnit] = []
        end = self._audio.end
        if end - start >= GAP_MIN:
            arrived = self._audio.last_arrival
            units.append(Gap(self.session, self.track, start, arrived, start, end, reason))
        self._settled_until = end
        return units + self.end_utterance(closing=True)

    def _unit(
        self, words: tuple[Word, ...], stable: int, stages: Stages | None = None, *, final: bool = False
    ) -> Words:
        """Words that carry the arrival of the last stable one, or of the last one."""
        newest = (words[:stable] or words)[-1] if words else self._words.last
        at = newest.end if newest is not None else self._decoded_until
        return Words(
            self.session,
            self.track,
            words[0].start if words else at,
            self._audio.arrival(at),
            words,
            stable,
            final,
            self.language or "en",
            stages or {},
        )
