"""The text of a continuation as it grows."""

from __future__ import annotations

from collections.abc import Iterator

from engines.continuation import MAX_TOKENS, generation_limits, increments


def bytes_of(text: str, taken: list[int]) -> Iterator[int]:
    """A token for each byte; `taken`: those that were asked for."""
    for byte in text.encode():
        taken.append(byte)
        yield byte


def decode(ids: list[int]) -> str:
    return bytes(ids).decode(errors="replace")


def test_each_increment_adds_to_the_text_and_half_a_character_waits() -> None:
    assert list(increments(bytes_of("aé b", []), decode, [])) == ["a", "é", " ", "b"]


def test_it_ends_before_the_first_stop_and_asks_for_no_token_after_it() -> None:
    taken: list[int] = []
    assert "".join(increments(bytes_of("one\ntwo. three", taken), decode, ["two.", "\n"])) == "one"
    assert len(taken) == 4


def test_generation_limits_are_bounded() -> None:
    assert generation_limits({}) == (32, [])
    assert generation_limits({"max_tokens": 100_000, "stop": ["\n", ""]}) == (MAX_TOKENS, ["\n"])
    assert generation_limits({"max_tokens": 0})[0] == 1
