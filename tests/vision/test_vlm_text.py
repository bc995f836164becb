"""Clauses, refusals and talk about words are recognised in a VLM's text."""

from __future__ import annotations

import pytest

from streamsvc.vision.vlm_text import clause_end, clean, is_about_words, is_refusal


def test_clauses_end_where_a_blank_follows_and_what_says_nothing_is_none() -> None:
    assert clause_end("It is 3.5 m") == 0
    text = "A red car. It"
    assert text[: clause_end(text)] == "A red car."
    assert "one\ntwo"[: clause_end("one\ntwo")].strip() == "one"
    assert clean("** A *red*\x07 car **") == "A red car"
    assert clean("[3] 0:03 picture: a car") == clean("Answer: a car") == "a car"
    assert clean(" ?! ") == ""


@pytest.mark.parametrize(
    "text", ["I cannot tell.", "It does not show a car.", "I haven’t seen it.", "The colour is not visible."]
)
def test_a_model_that_does_not_know_is_understood(text: str) -> None:
    assert is_refusal(text)
    assert not is_refusal("A man in a red coat walks by.")


def test_clauses_about_words_are_told_from_those_about_the_picture() -> None:
    assert is_about_words("The speaker mentions a budget")
    assert is_about_words('The sign shows "Exit"')
    assert is_about_words("He smiles because he has won")
    assert not is_about_words("Two men in red coats talk in front of a white screen")
