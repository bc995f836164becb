"""JSON of clients: one kind of error, and no half of a surrogate pair."""

from __future__ import annotations

import json

import pytest

from streamsvc.core import json_input


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "9" * 5000,
        b"\xff\xfe{",
        r'"\ud800"',
        rb'{"\udc00": 1}',
        r'["\ud83d", "\ude00"]',
    ],
)
def test_what_cannot_be_read_stored_or_sent_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        json_input.parse(text)


def test_whole_pairs_and_plain_values_are_read() -> None:
    assert json_input.parse(r'{"a": "\ud83d\ude00 \u00e9"}') == {"a": "😀 é"}
    assert json_input.parse(json.dumps([1, None, 2.5]).encode()) == [1, None, 2.5]
