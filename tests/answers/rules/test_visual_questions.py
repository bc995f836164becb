"""Which questions are asked of the pictures, which of the words, and which of neither."""

from __future__ import annotations

import pytest

from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.visual_questions import ask_target, asks_about_action


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("What colour is the car?", "look"),
        ("Is she wearing a hat?", "look"),
        ("What's the man doing?", "look"),
        ("What is on the table?", "look"),
        ("Describe the picture", "look"),
        ("Is the woman smiling?", "look"),
        ("What is going on?", "look"),
        ("Is the cat's collar red?", "look"),
        ("Why did the king leave?", "text"),
        ("Why does the woman wear a hat?", "text"),
        ("What did she say about the harvest?", "text"),
        ("What colour did he say the car was?", None),
        ("When does the red car appear?", None),
        ("How many people wear hats?", None),
        ("What colour was the car after the bus?", None),
        ("What does the title say?", None),
        ("What music is playing?", None),
        ("Who is the man in the picture?", None),
        ("Is he sad?", None),
    ],
)
def test_exact_questions_sounds_and_names_of_people_never_go_to_the_model(
    question: str, wanted: str | None
) -> None:
    assert ask_target(parse(question)) == wanted


def test_what_somebody_does_now_is_looked_at_first() -> None:
    assert asks_about_action(parse("What is the man holding?"))
    assert asks_about_action(parse("Is the dog running?"))
    assert not asks_about_action(parse("What colour is the dog?"))
    assert not asks_about_action(parse("What did the man carry?"))
    assert not asks_about_action(parse("Is he saying that the man is walking?"))
