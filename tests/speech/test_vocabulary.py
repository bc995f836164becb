"""Names and rare words of the screen are terms while they stand there and a minute longer, at most twenty."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import TextLine
from streamsvc.speech import vocabulary
from streamsvc.speech.vocabulary import LINGER_SECONDS, TERMS_MAX, ScreenVocabulary, candidates
from tests.builders import units


def lines(*texts: str, score: float = 0.99) -> list[TextLine]:
    return [TextLine(text, score, 0.1, 0.1 * row, 0.5, 0.05) for row, text in enumerate(texts)]


def screen(*texts: str, at: float = 0.0) -> ScreenVocabulary:
    known = ScreenVocabulary()
    known.read(lines(*texts), at)
    return known


def numbered(count: int, first: str = "x") -> list[str]:
    """Rare words, all different."""
    return [f"{first}{chr(97 + n // 26)}{chr(97 + n % 26)}qqu" for n in range(count)]


# --- which words --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The history of the school", []),
        ("Silken curtains and golden tassels", ["Silken", "curtains", "tassels"]),
        ("we asked Helen about the room", ["Helen"]),
        ("Helen Asked About The Room", []),  # a title: every word is written like a name
        ("Thanks. Helen asked about the room", []),  # the start of a sentence tells nothing either
        ("the NumPy and the CUDA cores of a ResNet50 or H100", ["NumPy", "CUDA", "ResNet50"]),
        ("THE MOTIKATIKA STORY", ["Motikatika"]),
        ("MOTIKATIKA", ["Motikatika"]),
        ("UNESCO", ["UNESCO"]),
        ("Okafor's plan", ["Okafor"]),
        ("the stone-cutter", ["stone-cutter"]),
        ("pbx", []),
        ("write to finance@okafor.example or https://okafor.example/x", []),
        ("self.okafor_total = 3 -> okafor/okafor", []),
        ("themountain", []),  # OCR lost a blank
        ("walked walking schools", []),
        ("okaforokaforokaforokaforokafor", []),
        ("1234 12:30 2026-11-30 90kbps", []),
        ("", []),
    ],
)
def test_names_and_rare_words_of_a_line_are_candidates(text: str, found: list[str]) -> None:
    assert [word for word, _ in candidates(text)] == found


@given(st.text(max_size=80))
def test_any_text_gives_words_of_limited_length_that_stand_in_it(text: str) -> None:
    for word, _ in candidates(text):
        assert word.lower() in text.lower() or word in text.title()
        letters = sum(map(str.isalpha, word))
        assert vocabulary.LETTERS_MIN <= letters <= vocabulary.LETTERS_MAX
        assert not any(map(str.isspace, word))


def test_the_word_list_is_in_order_of_frequency() -> None:
    assert vocabulary.rank("With") == 0
    assert vocabulary.rank("mountain") < vocabulary.NAME_RANK < vocabulary.rank("Helen")
    assert vocabulary.rank("motikatika") == len(vocabulary.common_words()) == 6000


# --- when ---------------------------------------------------------------------------------------------------


def test_a_term_is_given_while_it_stands_there_and_a_minute_longer() -> None:
    known = screen("Okafor", at=5.0)
    assert known.terms(5.0) == ("Okafor",)
    assert known.terms(5000.0) == ("Okafor",)
    known.read(lines("Budget"), 100.0)
    assert known.terms(100.0 + LINGER_SECONDS - 0.1) == ("Okafor",)
    assert known.terms(100.0 + LINGER_SECONDS) == ()


def test_a_term_that_comes_back_stays() -> None:
    known = screen("Okafor")
    known.read(lines("Budget"), 100.0)
    known.read(lines("Okafor again"), 140.0)
    assert known.terms(500.0) == ("Okafor",)


def test_a_blank_picture_and_a_screen_without_text_begin_the_minute() -> None:
    for unit in (units.sight(10.0, blank=True), units.screen(10.0)):
        known = screen("Okafor")
        known.take(units.sight(5.0))
        assert known.terms(200.0) == ("Okafor",)
        known.take(unit)
        assert known.terms(69.0) == ("Okafor",)
        assert known.terms(70.0) == ()


def test_a_unit_s_text_is_of_the_second_at_which_it_was_first_seen() -> None:
    known = screen("Okafor")
    known.take(units.screen(30.0, "Budget", seen=20.0))
    assert known.terms(79.0) == ("Okafor",)
    assert known.terms(80.0) == ()


# --- how sure -----------------------------------------------------------------------------------------------


def test_a_word_of_a_doubtful_line_needs_a_second_reading() -> None:
    known = ScreenVocabulary()
    doubtful = lines("Okafor", score=0.9)
    known.read(doubtful, 0.0)
    assert known.terms(0.0) == ()
    known.read(doubtful, 1.0)  # the same reading, carried along
    assert known.terms(1.0) == ()
    known.read([replace(doubtful[0], score=0.91)], 2.0)
    assert known.terms(2.0) == ("Okafor",)


def test_a_line_that_is_hardly_readable_is_no_reading() -> None:
    known = ScreenVocabulary()
    for n in range(5):
        known.read(lines("Okafor", score=0.7 + n / 100), float(n))
    assert known.terms(5.0) == ()


# --- how many -----------------------------------------------------------------------------------------------


def test_there_are_at_most_twenty_and_the_newest_screen_goes_first() -> None:
    known = screen(*numbered(15, "x"))
    known.read(lines(*numbered(12, "y")), 10.0)
    terms = known.terms(11.0)
    assert len(terms) == TERMS_MAX
    assert set(numbered(12, "y")) <= set(terms)
    assert terms[:8] == tuple(numbered(8, "x")), "in reading order of the screens"


def test_names_go_before_other_words_of_a_screen() -> None:
    known = screen(*numbered(25), "it is by McAllister of the school")
    assert known.terms(0.0)[-1] == "McAllister"
    assert known.terms(0.0)[:19] == tuple(numbered(19))


def test_a_word_is_one_term_however_often_it_stands_there() -> None:
    assert screen("OKAFOR", "okafor Okafor").terms(0.0) == ("Okafor",)


def test_what_is_remembered_is_bounded() -> None:
    known = ScreenVocabulary()
    for n in range(100):
        known.read(lines(*(f"{word}{n}" for word in numbered(50))), float(n))
    assert len(known) == vocabulary.CANDIDATES_MAX
    assert len(known.terms(100.0)) == TERMS_MAX
    known.read(lines(*numbered(1000, "z")), 200.0)
    assert len(known) == vocabulary.CANDIDATES_MAX
    assert known.terms(200.0) == tuple(numbered(1000, "z")[:TERMS_MAX])
