"""Which language a question is in; short and sloppy English stays English."""

from __future__ import annotations

import pytest

from streamsvc.answers import language
from streamsvc.answers.intents import examples


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    language.prepare()


def test_every_example_is_english() -> None:
    assert {text for text in examples() if language.language_of(text) != "en"} == set()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "ok",
        "tl;dr",
        "recap pls",
        "y tho",
        "lol what",
        "who dat",
        "Miller?",
        "and Omar?",
        "color of car",
        "Who is J\u00fcrgen M\u00fcller?",
        "What does Schadenfreude mean?",
        "did Fran\u00e7ois Mitterrand win",
        "is it K\u00f6ln or D\u00fcsseldorf",
        "what is la dolce vita",
    ],
)
def test_short_english_stays_english(text: str) -> None:
    assert language.language_of(text) == "en"


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("de", "Warum ist der Zug stehen geblieben?"),
        ("de", "Was hat J\u00fcrgen M\u00fcller gesagt?"),
        ("fr", "combien de personnes y a-t-il"),
        ("es", "\u00bfCu\u00e1ntas personas hay?"),
        ("it", "perch\u00e9 il treno si \u00e8 fermato?"),
        ("pt", "quantas pessoas est\u00e3o na imagem"),
        ("nl", "hoeveel mensen zijn er"),
        ("pl", "ile os\u00f3b jest na obrazie"),
        ("tr", "ka\u00e7 ki\u015fi var"),
        ("ru", "\u0441\u043a\u043e\u043b\u044c\u043a\u043e \u043b\u044e\u0434\u0435\u0439"),
        ("ja", "\u4eca\u4f55\u3068\u8a00\u3044\u307e\u3057\u305f\u304b"),
        ("zh", "\u4ed6\u521a\u624d\u8bf4\u4e86\u4ec0\u4e48"),
    ],
)
def test_another_language_is_recognised(expected: str, text: str) -> None:
    assert language.language_of(text) == expected
