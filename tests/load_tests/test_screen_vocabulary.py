"""Slides are made of a transcript, words of slides are counted where nobody said them."""

from __future__ import annotations

import numpy as np

from load_tests.screen_vocabulary import Recording, Result, Slides, alike, inventions, rows_of, slides_of

SEGMENTS = tuple((float(n), n + 1.0, text) for n, text in enumerate(["the Okafor pier", "is", "an Umbrella"]))


def test_every_other_sentence_is_a_line_of_a_slide() -> None:
    assert slides_of(SEGMENTS) == ((0.0, ("the Okafor pier", "an Umbrella")),)
    many = slides_of([(float(n), n + 1.0, str(n)) for n in range(11)])
    assert many == ((0.0, ("0", "2", "4", "6")), (8.0, ("8", "10")))


def test_words_that_sound_alike_differ_in_their_first_letter_alone() -> None:
    assert alike([(1.0, ("the Tassels, Umbrella pier",))]) == ((1.0, ("the Dassels, Umbrella pier",)),)


def test_a_term_is_an_invention_where_the_transcript_does_not_have_it() -> None:
    assert inventions(["a", "peer"], ["a", "pier"], {"pier"}) == ["pier"]
    assert inventions(["a", "peer"], ["a", "pier"], {"okafor"}) == []
    assert inventions(["a", "pier"], ["a", "pier", "a", "pier"], {"pier"}) == []  # said twice is no invention
    far = ["b"] * 30
    assert inventions(["pier", *far], ["pier", *far, "pier"], {"pier"}) == ["pier"]


def test_a_row_tells_what_the_terms_of_the_slides_change() -> None:
    recording = Recording("talk", np.zeros(16_000, np.float32), SEGMENTS, slides_of(SEGMENTS))

    def recognise(_: Recording, slides: Slides, plain: Result | None) -> Result:
        """A recogniser that writes a term for the last word, where it has one."""
        terms = slides.terms(3.0)
        return Result([f"The Okafor pier is an {terms[-1] if terms else 'ombrella'}."], 1.0, 2.0)

    rows = list(rows_of(recording, {"of other": ((0.0, ("Motikatika",)),)}, recognise))
    assert [row[1:5] for row in rows] == [
        ("none", "1/6", "2/3", "0 (0)"),
        ("own", "0/6", "3/3", "0 (0)"),
        ("alike", "0/6", "3/3", "0 (0)"),
        ("of other", "1/6", "2/3", "1 (0) motikatika"),
    ]
