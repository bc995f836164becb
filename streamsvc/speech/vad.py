"""Voice activity detection (VAD): speech probabilities to stretches of speech. Pure."""

from __future__ import annotations

from collections import deque

VAD_WINDOW = 512  # samples per probability: 32 ms
# Probability that starts speech, and below which it stops: Silero's own hysteresis.
VAD_THRESHOLD = 0.5
VAD_THRESHOLD_OFF = 0.35
ONSET_WINDOWS = 3  # consecutive windows of speech that start an utterance: 0.1 s; clicks are shorter
PREROLL = 0.3  # seconds of audio decoded before the onset: plosives begin before the voice
PAUSE = 0.3  # seconds of silence that separate two stretches of speech
SPLIT_SILENCE = 0.09  # seconds of silence at which speech can be cut: longer than the closure of a plosive
PAD_BEFORE = 0.1  # seconds that a word may begin before its stretch of speech
PAD_AFTER = 0.05  # seconds that it may end after it

Interval = tuple[float, float]  # start, end in session seconds


class VoiceActivity:
    """The last 2000 stretches of speech of one track (several minutes), with hysteresis."""

    def __init__(self) -> None:
        self._intervals: deque[Interval] = deque(maxlen=2000)
        self._run = 0  # consecutive windows of speech

    @property
    def onset(self) -> float | None:
        """Session time at which the present speech began; None if it is shorter than ONSET_WINDOWS."""
        return self._intervals[-1][0] if self._run >= ONSET_WINDOWS else None

    @property
    def end(self) -> float:
        """Session time of the end of the last speech; 0 if there was none."""
        return self._intervals[-1][1] if self._intervals else 0.0

    def add(self, probability: float, start: float, end: float) -> None:
        """Add the speech probability of the window from `start` to `end`, in session seconds."""
        if probability < (VAD_THRESHOLD_OFF if self._run else VAD_THRESHOLD):
            self._run = 0
            return
        self._run += 1
        if self._run > 1 and self._intervals:
            self._intervals[-1] = (self._intervals[-1][0], end)
        else:
            self._intervals.append((start, end))

    def reset(self) -> None:
        """End the present stretch: the next window needs VAD_THRESHOLD again."""
        self._run = 0

    def after(self, at: float) -> list[Interval]:
        """Speech after session time `at`; a stretch that contains it is cut there."""
        return [(max(start, at), end) for start, end in self._intervals if end > at]

    def stretches(self, at: float) -> list[Interval]:
        """Speech after session time `at`, joined where the silence between is shorter than SPLIT_SILENCE."""
        joined: list[Interval] = []
        for start, end in self.after(at):
            if joined and start - joined[-1][1] < SPLIT_SILENCE:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return joined

    def seconds(self, start: float, end: float) -> float:
        """Seconds of speech between two session times."""
        return sum(max(0.0, min(end, b) - max(start, a)) for a, b in self._intervals if b > start)

    def trim(self, start: float, end: float) -> Interval:
        """Times of a word without the silence that alignment adds to it."""
        inside = [(max(start, a), min(end, b)) for a, b in self._intervals if a < end and b > start]
        if not inside:
            return start, end
        first = last = max(range(len(inside)), key=lambda index: inside[index][1] - inside[index][0])
        while first > 0 and inside[first][0] - inside[first - 1][1] < PAUSE:
            first -= 1
        while last + 1 < len(inside) and inside[last + 1][0] - inside[last][1] < PAUSE:
            last += 1
        return max(start, inside[first][0] - PAD_BEFORE), min(end, inside[last][1] + PAD_AFTER)
