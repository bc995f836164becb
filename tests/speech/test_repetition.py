"""Repeated speech is found, and cut in silences."""

from __future__ import annotations

import pytest

from streamsvc.core.types import Word
from streamsvc.speech.repetition import PIECE_MAX, Pieces, repeats, resume_at, without_echo
from streamsvc.speech.vad import PREROLL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, please. Yes, please.", True),
        ("so I want to go home, I want to go home", True),
        ("No, no, no.", True),
        ("that that is", False),
        ("it was the best of times, it was the worst of times", False),
        ("ask not what your country can do for you, ask what you can do for your country", False),
        ("", False),
    ],
)
def test_a_phrase_twice_or_a_word_three_times_in_a_row_is_a_repetition(text: str, expected: bool) -> None:
    assert repeats(text.split()) == expected


SPEECH = [(1.0, 2.0), (2.4, 3.4), (3.8, 4.8), (5.2, 6.2)]


def test_a_piece_ends_in_the_last_silence_that_fits() -> None:
    pieces = Pieces()
    cut = pieces.cut(SPEECH, ended=False)
    assert cut is not None and cut.silent
    assert (cut.start, cut.end) == (1.0 - PREROLL, 5.0)
    assert cut.force_before == float("inf")
    assert cut.end - SPEECH[0][0] <= PIECE_MAX
    assert pieces.cut(SPEECH[:1], ended=False) is None, "the stretch goes on"
    last = pieces.cut(SPEECH[:1], ended=True)
    assert last is not None and last.end == pytest.approx(2.2)
    assert pieces.cut([], ended=True) is None


def test_a_rejected_piece_becomes_one_stretch_and_is_then_given_up() -> None:
    pieces = Pieces()
    assert pieces.shorten()
    cut = pieces.cut(SPEECH, ended=False)
    assert cut is not None and cut.end == pytest.approx(2.2), "one stretch"
    assert not pieces.shorten()
    pieces.add(repeating=True)
    longer = pieces.cut(SPEECH, ended=False)
    assert longer is not None and longer.end == 5.0


def test_speech_without_silence_is_cut_in_time_with_its_last_words_open() -> None:
    cut = Pieces().cut([(1.0, 9.0)], ended=True)
    assert cut is not None and not cut.silent
    assert cut.end == 1.0 + PIECE_MAX
    assert cut.force_before < cut.end


def test_pieces_begin_with_a_repetition_or_with_rejections() -> None:
    pieces = Pieces()
    assert not pieces.begins(repeating=False, rejected=True, pause=False), "the next step may succeed"
    assert pieces.begins(repeating=False, rejected=True, pause=False)
    assert Pieces().begins(repeating=False, rejected=True, pause=True), "no step comes after a pause"
    assert Pieces().begins(repeating=True, rejected=False, pause=False)
    pieces.add(repeating=False)
    assert not pieces.active


def test_the_first_piece_starts_with_the_stretch_that_is_not_stable() -> None:
    yes = Word("Yes,", 2.4, 2.8, 0.9)
    assert resume_at((), SPEECH, 0.7) == 0.7
    assert resume_at([yes], SPEECH, 0.7) == pytest.approx(2.2), "amid its sentence: from the silence before"
    please = Word("please.", 2.8, 3.38, 0.9)
    assert resume_at([yes, please], SPEECH, 0.7) == pytest.approx(3.6)
    assert resume_at([yes, please], SPEECH[:2], 0.7) == 3.38
    assert resume_at([Word("x", 8.0, 8.4, 0.9)], [(1.0, 12.0)], 0.7) == 8.0, (
        "a long stretch: from its last word"
    )


def test_a_phrase_that_repeats_the_one_before_in_silence_is_an_echo() -> None:
    def heard(start: float, end: float) -> float:
        return max(0.0, min(end, 2.0) - start)

    said = [Word("Yes,", 1.0, 1.4, 0.9), Word("please.", 1.4, 2.0, 0.9)]
    echo = [Word("Yes,", 2.0, 2.02, 0.7), Word("please.", 2.02, 2.2, 0.8)]
    assert without_echo([*said, *echo], heard) == said
    assert without_echo(said, heard) == said
    other = [*said, Word("Thanks.", 2.02, 2.2, 0.8)]
    assert without_echo(other, heard) == other
