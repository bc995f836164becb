"""Watches: the checks of a condition evaluated on sights, screen text and speech. Pure.

Checks are edge-triggered: one fires when an object appears, when words are said, when the slide changes, and
not again while that lasts. Presence is debounced (ABSENCE). All times are session seconds unless stated
otherwise.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from streamsvc.answers.topic_score import ON_TOPIC
from streamsvc.answers.watch_conditions import Check, CheckKind
from streamsvc.core.types import Evidence, ScreenText, Sight, Word
from streamsvc.timeline.text import terms
from streamsvc.vision import labels, scenes

ABSENCE = 2.5  # seconds without a detection after which an object is gone
PHRASE_SPAN = 8.0  # seconds within which all words of a phrase are said
PHRASE_GAP = 2  # other words that may stand between those of a phrase
# A phrase of so many letters is heard too where it was written down otherwise, as "ice cream" for "I scream":
# its letters and those of as many words, one more or one less, are alike (share of equal ones, difflib).
ALIKE_LETTERS = 12
ALIKE = 0.86
TOPIC_HOLD = 3  # passages after the last one on topic that still belong to the same mention


@dataclass(frozen=True, slots=True)
class Alert:
    """A watch that fired.

    `arrived`: monotonic seconds, of the media that made it fire. `kind`: of the check that found it;
    `by_meaning`: by what is talked about rather than by the words.
    """

    text: str
    at: float
    arrived: float
    evidence: tuple[Evidence, ...]
    kind: CheckKind
    by_meaning: bool = False


@dataclass(slots=True)
class _Presence:
    """Debounced presence: one missed detection does not end it."""

    present: bool = False
    last_seen: float = -inf
    last_missed: float = inf
    misses: int = 0  # in a row

    def update(self, seen: bool, at: float) -> bool:
        """Update with one observation; whether presence has just begun."""
        if seen:
            begins = not self.present
            self.present = True
            self.last_seen = at
            self.misses = 0
            return begins
        self.misses += 1
        self.last_missed = at
        if self.misses >= 2 and at - self.last_seen >= ABSENCE:
            self.present = False
        return False

    def ends_by(self, now: float) -> bool:
        """Whether presence ends because it was missed and nothing has changed since: a still picture."""
        if not (self.present and self.misses and now - self.last_missed >= ABSENCE):
            return False
        self.present = False
        return True


@dataclass(slots=True)
class Watch:
    """One watch of a session. `fired`: number of alerts; `cooldown`: minimum seconds between two."""

    id: str
    when: str
    checks: tuple[Check, ...]
    cooldown: float
    fired: int = 0
    _last_alert: float = -inf
    _presence: dict[int, _Presence] = field(default_factory=dict)  # by number of the check
    _recent: deque[tuple[Word, tuple[str, ...]]] = field(default_factory=lambda: deque(maxlen=24))
    _sight: Sight | None = None  # the newest
    _screen: tuple[str, ...] = ()  # lines of the last screen text
    _reported_silence: float = -inf  # start of the last silence that fired
    _held: bool = False  # what the model has said last
    _topic_hold: dict[str, int] = field(default_factory=dict)  # passages until a topic may fire again

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that speech is compared with."""
        return tuple(check.topic for check in self.checks if check.topic)

    def on_sight(self, sight: Sight) -> Alert | None:
        """Update all checks with the sight of a keyframe; the alert of the first that fires."""
        alert: Alert | None = None
        self._sight = sight
        for number, check in self._checks("object", "gone", "blank"):
            presence = self._presence.setdefault(number, _Presence())
            was_present, last_seen = presence.present, presence.last_seen
            count = 0 if sight.blank or check.kind == "blank" else scenes.count_shown(sight, check.label)
            seen = sight.blank if check.kind == "blank" else check.min_count <= count <= check.max_count
            begins = presence.update(seen, sight.at)
            if check.kind == "gone":
                if was_present and not presence.present:
                    text = f"No {labels.plain(check.label)} is shown any more"
                    alert = alert or self._alert(
                        text, sight.at, sight.arrived, _sighted(last_seen, sight), "gone"
                    )
            elif begins:
                text = _shown(sight, count)
                alert = alert or self._alert(
                    text, sight.at, sight.arrived, _sighted(sight.at, sight), check.kind
                )
        return alert

    def on_still(self, now: float, arrived: float) -> Alert | None:
        """Time passes: what the newest sight did not show is gone, though no other sight has come since."""
        alert: Alert | None = None
        for number, check in self._checks("object", "gone", "blank"):
            presence = self._presence.get(number)
            if self._sight is None or presence is None or not presence.ends_by(now):
                continue
            if check.kind == "gone":
                text = f"No {labels.plain(check.label)} is shown any more"
                evidence = _sighted(presence.last_seen, self._sight)
                alert = alert or self._alert(text, self._sight.at, arrived, evidence, "gone")
        return alert

    def on_screen_text(self, page: ScreenText) -> Alert | None:
        """Update all checks with the text of a screen; the alert of the first that fires."""
        alert: Alert | None = None
        lines = tuple(line.text for line in page.lines)
        before, self._screen = self._screen, lines
        for number, check in self._checks("slide", "written"):
            if check.kind == "slide":
                fires = bool(lines) and bool(before) and _is_other_slide(before, lines)
                text, quote = "Another slide is shown", page.title or " ".join(lines)
            else:
                present = check.stems <= set(terms(" ".join(lines)))
                presence = self._presence.setdefault(number, _Presence())
                fires = presence.update(present, page.at)
                presence.present = present  # screen text does not flicker: no debounce
                matching = [line for line in lines if check.stems & set(terms(line))]
                text, quote = "On the screen", " ".join(matching)
            if fires:
                quote = _truncated(quote)
                evidence = Evidence(page.at, page.at, "screen", quote, page.at)
                alert = alert or self._alert(
                    f'{text}: "{quote}"', page.at, page.arrived, evidence, check.kind
                )
        return alert

    def on_words(self, words: Sequence[Word], arrived: float) -> Alert | None:
        """Update with newly stable words; the alert of the first phrase that is complete."""
        checks = self._checks("said")
        for word in words if checks else ():
            # A compound may be written down in two words.
            joined = f"{self._recent[-1][0].text}{word.text}" if self._recent else word.text
            stems = (*terms(word.text), *terms(joined))
            self._recent.append((word, stems))
            for _, check in checks:
                if near := self._heard(check, word, stems):
                    self._recent.clear()
                    quote = _truncated(" ".join(other.text for other in near))
                    evidence = Evidence(near[0].start, word.end, "speech", quote)
                    return self._alert(f'Said: "{quote}"', word.end, arrived, evidence, "said")
        return None

    def _heard(self, check: Check, word: Word, stems: Sequence[str]) -> list[Word]:
        """The words, up to a new one, that hold the phrase of a check; empty: they do not."""
        near = [
            (other, other_stems)
            for other, other_stems in list(self._recent)[-(_length(check) + PHRASE_GAP) :]
            if word.start - other.start <= PHRASE_SPAN
        ]
        is_of_it = bool(set(stems) & check.stems)
        if is_of_it and check.stems <= {stem for _, other_stems in near for stem in other_stems}:
            return [other for other, _ in near]
        words = [other for other, _ in near]
        wanted, count = _letters(check.text), len(check.text.split())
        for start in range(max(0, len(words) - count - 1), len(words) - max(1, count - 1) + 1):
            if len(wanted) >= ALIKE_LETTERS and _is_alike(wanted, _letters(*(w.text for w in words[start:]))):
                return words[start:]
        return []

    def on_topic(self, similarity: Mapping[str, float], passage: Evidence, arrived: float) -> Alert | None:
        """Update with the score of a passage for each topic (`topic_score`).

        A passage that fired by words does not fire again.
        """
        for topic in self.topics:
            on_topic = similarity.get(topic, 0.0) >= ON_TOPIC
            hold = self._topic_hold.get(topic, 0)
            self._topic_hold[topic] = TOPIC_HOLD if on_topic else max(0, hold - 1)
            if on_topic and not hold and self._last_alert < passage.start:
                text = f'About {topic}: "{_truncated(passage.quote)}"'
                alert = self._alert(text, passage.end, arrived, passage, "said")
                return alert and replace(alert, by_meaning=True)
        return None

    def on_speech(self, at: float, arrived: float) -> Alert | None:
        """Speech begins."""
        if self._checks("speech"):
            return self._alert(
                "Somebody speaks", at, arrived, Evidence(at, at, "timeline", "speech began"), "speech"
            )
        return None

    def on_silence(self, since: float, now: float, arrived: float) -> Alert | None:
        """There has been no speech since `since`. Each silence fires once."""
        for _, check in self._checks("silence"):
            if now - since >= check.seconds and since > self._reported_silence:
                self._reported_silence = since
                text = f"Nobody has spoken for {now - since:.0f} seconds"
                return self._alert(
                    text, now, arrived, Evidence(since, now, "timeline", "no speech"), "silence"
                )
        return None

    def on_model(self, holds: bool, candidate: Alert) -> Alert | None:
        """The model says whether the condition holds; the alert where it begins to.

        What has fired by the rules does not fire again.
        """
        begins = holds and not self._held
        self._held = holds
        (evidence,) = candidate.evidence
        if not begins or self._last_alert >= evidence.start:
            return None
        return self._alert(candidate.text, candidate.at, candidate.arrived, evidence, "model")

    def take_back(self, alert: Alert) -> None:
        """The last alert is not told: the model has said that it is none. The next look may find it again."""
        self.fired -= 1
        self._last_alert = -inf  # its cooldown was over, or there had been none
        for number, _ in self._checks(alert.kind):
            self._presence.pop(number, None)

    def _checks(self, *kinds: str) -> list[tuple[int, Check]]:
        return [(number, check) for number, check in enumerate(self.checks) if check.kind in kinds]

    def _alert(
        self, text: str, at: float, arrived: float, evidence: Evidence, kind: CheckKind
    ) -> Alert | None:
        """An alert, counted; None within the cooldown."""
        if at - self._last_alert < self.cooldown:
            return None
        self._last_alert = at
        self.fired += 1
        return Alert(text if text.endswith('"') else f"{text}.", at, arrived, (evidence,), kind)


def _length(check: Check) -> int:
    """Words of a phrase, those that carry no stem too."""
    return max(len(check.stems), len(check.text.split()))


def _letters(*texts: str) -> str:
    return "".join(sign for text in texts for sign in text.casefold() if sign.isalnum())


def _is_alike(wanted: str, heard: str) -> bool:
    """Whether two spellings are of the same sounds, as far as letters tell."""
    if heard[:1] != wanted[:1] or abs(len(heard) - len(wanted)) > (1 - ALIKE) * 2 * len(wanted):
        return False
    return difflib.SequenceMatcher(None, wanted, heard, autojunk=False).ratio() >= ALIKE


def _is_other_slide(before: Iterable[str], now: Iterable[str]) -> bool:
    """Whether the lines of two screens share less than half of their stems."""
    old, new = ({stem for line in lines for stem in terms(line)} for lines in (before, now))
    return len(old & new) < 0.5 * max(len(old), len(new), 1)


def _shown(sight: Sight, count: int) -> str:
    """What a sight shows, as a sentence without its full stop."""
    text = scenes.phrase(sight) or "the picture is blank"
    verb = "" if sight.blank else " is shown" if count == 1 else " are shown"
    return f"{text[:1].upper()}{text[1:]}{verb}"


def _sighted(start: float, sight: Sight) -> Evidence:
    return Evidence(start, sight.at, "sight", scenes.quote(sight), sight.at)


def _truncated(text: str) -> str:
    return text if len(text) <= 120 else text[:119].rsplit(" ", 1)[0] + "…"
