"""Language identification: the evidence needed, and the effect of a change of language."""

from __future__ import annotations

import pytest

from streamsvc.core.types import Word
from streamsvc.speech.language_id import LanguageDetector


def test_a_fixed_language_is_not_detected() -> None:
    detector = LanguageDetector("de")
    detector.start_utterance(10.0)
    detector.note_log_probability(-5.0, 20.0)
    assert not detector.pending
    assert detector.detection_start(20.0, at_pause=True) is None
    assert detector.code == "de"


def test_too_little_speech_is_not_judged_unless_a_pause_follows() -> None:
    detector = LanguageDetector(None)
    detector.start_utterance(10.0)
    assert detector.pending
    assert detector.detection_start(10.5, at_pause=False) is None
    assert detector.detection_start(10.5, at_pause=True) == pytest.approx(9.7)
    assert detector.detection_start(10.8, at_pause=False) == pytest.approx(9.7)


@pytest.mark.parametrize(
    ("known", "code", "probability", "seconds", "expected"),
    [
        (None, "de", 0.95, 0.8, "de"),  # certain
        (None, "de", 0.7, 0.8, None),  # wait for more
        (None, "de", 0.4, 2.0, "de"),  # no better evidence
        ("de", "de", 0.85, 0.8, None),  # another language may resemble it at first
        ("de", "fr", 0.7, 2.0, "fr"),
        ("de", "fr", 0.5, 2.0, "de"),  # no reason to change
    ],
)
def test_the_probability_needed_depends_on_the_amount_of_speech_and_the_known_language(
    known: str | None, code: str, probability: float, seconds: float, expected: str | None
) -> None:
    detector = LanguageDetector(None)
    if known is not None:
        detector.start_utterance(0.0)
        assert detector.accept(known, 1.0, 2.0, at_pause=False)
    detector.start_utterance(10.0)
    accepted = detector.accept(code, probability, 10.0 + seconds, at_pause=False)
    assert accepted == (expected is not None)
    assert detector.pending == (not accepted)
    assert detector.code == (expected if accepted else known)


def test_a_short_utterance_is_decoded_on_a_guess_and_detected_again() -> None:
    detector = LanguageDetector(None)
    detector.start_utterance(10.0)
    assert detector.accept("de", 0.3, 10.5, at_pause=True)
    assert (detector.code, detector.pending) == ("de", True)


def test_a_change_removes_words_of_the_other_language_from_the_prompt() -> None:
    detector = LanguageDetector(None)
    detector.start_utterance(0.0)
    assert detector.accept("de", 1.0, 1.0, at_pause=False)
    assert detector.prompt("eins zwei", 5.0) == "eins zwei"
    detector.add_stable([Word("eins", 0.0, 1.0), Word("zwei", 1.0, 2.0)])
    detector.start_utterance(3.0)
    assert detector.accept("fr", 1.0, 4.0, at_pause=False)
    assert detector.since == pytest.approx(2.7)
    assert detector.prompt("eins zwei", 3.0) == ""
    detector.add_stable([Word("un", 3.0, 4.0), Word("deux", 4.0, 5.0)])
    assert detector.prompt("eins zwei un", 4.0) == "un"


def test_improbable_decodes_start_detection_again_at_an_interval() -> None:
    detector = LanguageDetector(None)
    detector.start_utterance(0.0)
    assert detector.accept("de", 1.0, 1.0, at_pause=False)
    detector.note_log_probability(-0.3, 10.0)
    assert detector.detection_start(10.0, at_pause=True) is None
    detector.note_log_probability(-2.0, 10.0)
    assert detector.detection_start(10.0, at_pause=False) == pytest.approx(4.7), "the newest speech is judged"
    assert detector.accept("de", 1.0, 10.0, at_pause=False)
    detector.note_log_probability(-2.0, 12.0)
    assert detector.detection_start(12.0, at_pause=True) is None


def test_a_language_fixed_later_holds_until_detection_is_enabled_again() -> None:
    detector = LanguageDetector(None)
    detector.fix("fr")
    assert (detector.code, detector.pending) == ("fr", False)
    detector.start_utterance(5.0)
    assert not detector.pending
    detector.fix(None)
    assert detector.pending
