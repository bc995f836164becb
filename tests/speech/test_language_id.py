"""A language is believed when there is enough speech to go by, and what was said in another one misleads nobody."""

from __future__ import annotations

import pytest

from streamsvc.core.types import Word
from streamsvc.speech.language_id import Language


def test_a_fixed_language_asks_nothing() -> None:
    language = Language("de")
    language.began(10.0)
    language.doubt(-5.0, 20.0)
    assert not language.waits
    assert language.asks(20.0, settle=True) is None
    assert language.code == "de"


def test_too_little_speech_is_not_asked_about_unless_a_pause_follows_it() -> None:
    language = Language(None)
    language.began(10.0)
    assert language.waits
    assert language.asks(10.5, settle=False) is None
    assert language.asks(10.5, settle=True) == pytest.approx(9.7)
    assert language.asks(10.8, settle=False) == pytest.approx(9.7)


@pytest.mark.parametrize(
    ("known", "code", "probability", "seconds", "wanted"),
    [
        (None, "de", 0.95, 0.8, "de"),  # sure
        (None, "de", 0.7, 0.8, None),  # wait for more
        (None, "de", 0.4, 2.0, "de"),  # there is nothing better to go by
        ("de", "de", 0.85, 0.8, None),  # another one may sound like it at first
        ("de", "fr", 0.7, 2.0, "fr"),
        ("de", "fr", 0.5, 2.0, "de"),  # no reason to change
    ],
)
def test_how_sure_one_must_be_depends_on_how_much_was_heard_and_what_was_known(
    known: str | None, code: str, probability: float, seconds: float, wanted: str | None
) -> None:
    language = Language(None)
    if known is not None:
        language.began(0.0)
        assert language.found(known, 1.0, 2.0, settle=False)
    language.began(10.0)
    decided = language.found(code, probability, 10.0 + seconds, settle=False)
    assert decided == (wanted is not None)
    assert language.waits == (not decided)
    assert language.code == (wanted if decided else known)


def test_a_short_remark_is_decoded_on_a_guess_and_asked_about_again() -> None:
    language = Language(None)
    language.began(10.0)
    assert language.found("de", 0.3, 10.5, settle=True)
    assert (language.code, language.waits) == ("de", True)


def test_a_change_leaves_the_words_of_the_other_language_behind() -> None:
    language = Language(None)
    language.began(0.0)
    assert language.found("de", 1.0, 1.0, settle=False)
    assert language.before("eins zwei", 5.0) == "eins zwei"
    language.said([Word("eins", 0.0, 1.0), Word("zwei", 1.0, 2.0)])
    language.began(3.0)
    assert language.found("fr", 1.0, 4.0, settle=False)
    assert language.since == pytest.approx(2.7)
    assert language.before("eins zwei", 3.0) == ""
    language.said([Word("un", 3.0, 4.0), Word("deux", 4.0, 5.0)])
    assert language.before("eins zwei un", 4.0) == "un"


def test_doubt_asks_again_but_seldom() -> None:
    language = Language(None)
    language.began(0.0)
    assert language.found("de", 1.0, 1.0, settle=False)
    language.doubt(-0.3, 10.0)
    assert language.asks(10.0, settle=True) is None
    language.doubt(-2.0, 10.0)
    assert language.asks(10.0, settle=False) == pytest.approx(4.7), (
        "what was said last, not what was said first"
    )
    assert language.found("de", 1.0, 10.0, settle=False)
    language.doubt(-2.0, 12.0)
    assert language.asks(12.0, settle=True) is None


def test_a_language_fixed_later_holds_from_then_on_and_may_be_left_to_detection_again() -> None:
    language = Language(None)
    language.fix("fr")
    assert (language.code, language.waits) == ("fr", False)
    language.began(5.0)
    assert not language.waits
    language.fix(None)
    assert language.waits
