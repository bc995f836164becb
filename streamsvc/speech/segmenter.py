"""Audio to utterances and decode windows. Pure.

`Segmenter` takes audio, VAD probabilities and hypotheses, and decides what to decode next and where an
utterance ends. Rules:

  - nothing is decoded without speech, so silence costs nothing and produces no hallucinations;
  - during speech, the window since the last trim is decoded every `step` seconds of audio; words on which
    consecutive hypotheses agree become stable (`StableWords`);
  - a pause is decoded once, with its silence at the end of the window, and its likely words become stable; if
    the silence reaches the hangover, the utterance ends with all its words, without another decode;
  - what the hypothesis of a pause leaves out at its end is decoded once more, alone;
  - speech that repeats itself is decoded in pieces between two silences (`repetition`);
  - the window is trimmed at a stable word, so that CONTEXT seconds of stable audio remain; earlier words are
    passed to the model as text (prompt).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Word, Words
from streamsvc.speech.audio_buffer import GAP_MIN, VAD_BATCH, AudioBuffer, Samples
from streamsvc.speech.hypothesis import OVERLAP, DecodeWindow, Hypothesis, beyond_context, rest_start
from streamsvc.speech.repetition import Pieces, resume_at, without_echo
from streamsvc.speech.stable_words import CONTEXT, FORCE_AFTER, FORCE_OPEN, StableWords, Update
from streamsvc.speech.vad import ONSET_WINDOWS, PAUSE, PREROLL, VAD_WINDOW, VoiceActivity

SpeechUnit = Words | Speech | Gap

SHORT_SILENCE = 0.2  # seconds of silence that defer a step: to the next speech, or to the decode of the pause
CONTEXT_SILENCE = 2.0  # seconds of silence after which earlier words are no context any more
TRIM_AFTER = 5.0  # seconds of window after which it is trimmed
WINDOW_MAX = 12.0  # seconds in one decode
UTTERANCE_MAX = 25.0  # seconds of speech without a pause after which an utterance ends between two words


class Segmenter:
    """Segments one audio track.

    `step`, `hangover` and `language` may be changed at any time.

    Args:
        session: id that the units carry.
        track: name of the track that they carry.
        step: seconds of audio between decoding steps.
        hangover: seconds of silence that end an utterance.

    Attributes:
        language: of the words; None: not known yet.
        speaking: an utterance is open.
    """

    def __init__(self, session: str, track: str = "main", *, step: float, hangover: float) -> None:
        self.session = session
        self.track = track
        self.step = step
        self.hangover = hangover
        self.language: str | None = None
        self.speaking = False
        self._audio = AudioBuffer(session, track)
        self._activity = VoiceActivity()
        self._words = StableWords()
        self._pieces = Pieces()
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

    @property
    def undecoded(self) -> float:
        """Seconds of audio from the start of the window on."""
        return self._audio.end - self._window_start if self.speaking else 0.0

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
        keep_context = last is not None and onset - last.end <= CONTEXT_SILENCE and not self._pieces.active
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
        if self._pieces.active:
            return self._piece(ended=closing or silence >= pause)
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

    def _piece(self, *, ended: bool) -> DecodeWindow | None:
        """The next piece of repeated speech. `ended`: silence or the end of the input follows."""
        cut = self._pieces.cut(self._activity.stretches(self._window_start), ended=ended)
        if cut is None:
            return None
        start, end = max(self._window_start, cut.start), min(cut.end, self._audio.end)
        return DecodeWindow(self._audio.slice(start, end), start, end, cut.silent, cut.force_before, "")

    def skip(self, window: DecodeWindow) -> None:
        """A window was not decoded. The next step covers it; the decode of a pause is due again."""
        if not window.at_pause:
            self._decoded_until = max(self._decoded_until, window.end)

    def add_hypothesis(self, window: DecodeWindow, hypothesis: Hypothesis) -> list[Words | Gap]:
        """Add the result of a window; returns the words that it makes stable or changes, or what is lost."""
        self._decoded_until = max(self._decoded_until, window.end)
        placed = hypothesis.placed(window, self._activity)
        repeating = self._words.repeating(placed, window.start)
        if self._pieces.active:
            return self._add_piece(window, placed, rejected=hypothesis.rejected, repeating=repeating)
        if self._pieces.begins(repeating=repeating, rejected=hypothesis.rejected, pause=window.at_pause):
            speech = self._activity.stretches(self._window_start)
            self._window_start = resume_at(self._words.in_window, speech, self._window_start)
            self._words.begin(keep_context=True)
            return []
        update = self._words.update(placed, window, self._activity.seconds)
        rest = rest_start(placed, window, self._activity) if window.at_pause else None
        if rest is not None:
            self._window_start = rest
            update = self._words.commit_until(rest, update)
        elif window.at_pause:
            self._settled_until = window.end
        self._trim()
        if rest is None and update.empty:
            before = self._window_start
            self._window_start = beyond_context(self._words.last, before, self._activity)
            self._audio.discard(self._window_start)
            if self._window_start > before and not window.at_pause:
                self._decoded_until = self._window_start  # decode again at once: it is late already
        return [*self._changed(update, window)]

    def _add_piece(
        self, window: DecodeWindow, words: Sequence[Word], *, rejected: bool, repeating: bool
    ) -> list[Words | Gap]:
        """Add the words of a piece of repeated speech: all of them become stable."""
        if rejected and self._pieces.shorten():
            return []
        heard = self._activity.seconds
        update = self._words.update(without_echo(words, heard), window, heard)
        last = self._words.last
        cut = not window.at_pause and last is not None and last.end > window.start + OVERLAP
        self._window_start = self._settled_until = resumes = last.end if last and cut else window.end
        self._words.discard(resumes)
        self._audio.discard(resumes)
        self._pieces.add(repeating=rejected or repeating)
        units: list[Words | Gap] = [*self._changed(update, window)]
        if rejected:
            arrived = self._audio.arrival(window.end)
            gap = window.start, arrived, window.start, window.end, "unrecognised"
            units.append(Gap(self.session, self.track, *gap))
        return units

    def _changed(self, update: Update, window: DecodeWindow) -> Iterator[Words]:
        """The units of an update."""
        if update.changed:
            words = (*update.stable, *update.shown)
            yield self._unit(words, len(update.stable))
        last = self._words.last
        if last is not None and update.stable and window.end - self._utterance_start > UTTERANCE_MAX:
            yield self._unit((), 0, final=True)
            self._utterance_start = last.end

    def _trim(self, longest: float = TRIM_AFTER) -> None:
        """Start a window of over `longest` seconds at a stable word, leaving CONTEXT seconds."""
        self._window_start = self._words.trimmed(self._window_start, self._decoded_until, longest)
        self._words.discard(self._window_start)
        self._audio.discard(self._window_start)

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

    def _unit(self, words: tuple[Word, ...], stable: int, *, final: bool = False) -> Words:
        """Words that carry the arrival of the last stable one, or of the last one."""
        newest = (words[:stable] or words)[-1] if words else self._words.last
        at = newest.end if newest is not None else self._decoded_until
        head = self.session, self.track, words[0].start if words else at, self._audio.arrival(at)
        return Words(*head, words, stable, final, self.language or "en")
