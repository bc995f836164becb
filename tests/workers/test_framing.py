"""A frame round-trips, and its size is bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.errors import WorkerError
from streamsvc.workers import framing
from streamsvc.workers.framing import pack, unpack


@given(st.lists(st.integers(0, 255)), st.dictionaries(st.text(), st.text()))
def test_a_frame_round_trips(numbers: list[int], plain: dict[str, str]) -> None:
    payload: dict[str, Any] = {f"plain{key}": value for key, value in plain.items()} | {
        "a": np.array(numbers, np.uint8),
        "b": np.ones((2, 3), np.float32),
    }
    frame = pack({"id": 7, "kind": "call"}, payload)
    head, blob = framing.sizes(frame[:8])
    header, back = unpack(frame[8 : 8 + head], frame[8 + head : 8 + head + blob])
    assert header == {"id": 7, "kind": "call"}
    assert back.keys() == payload.keys()
    assert all(np.array_equal(back[key], payload[key]) for key in payload)


def test_a_frame_over_the_limit_is_refused() -> None:
    with pytest.raises(WorkerError, match="over the limit"):
        framing.sizes(b"\xff" * 8)
