"""Control characters become blanks; the format characters that words need stay."""

from __future__ import annotations

import pytest

from streamsvc.core.printable import is_extender, printable


@pytest.mark.parametrize(
    "char", ["\u200c", "\u200d", "\u200f", "\u00ad", "\u2066", "\u00a0", "\u3000", "\U000e0067", "é"]
)
def test_format_characters_and_blanks_stay(char: str) -> None:
    assert printable(f"a{char}b") == f"a{char}b"


@pytest.mark.parametrize("char", ["\n", "\r", "\0", "\x1b", "\x85", "\u2028", "\u2029", "\ud800", "\t"])
def test_controls_become_blanks(char: str) -> None:
    assert printable(f"a{char}b") == "a b"


def test_marks_and_joiners_belong_to_the_character_before() -> None:
    assert all(map(is_extender, ("\u0301", "\u094d", "\u200d", "\ufe0f", "\U0001f3fd")))
    assert not any(map(is_extender, "a中 -"))
