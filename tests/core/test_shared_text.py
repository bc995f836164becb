"""A shared text is the text, and its frame is what a WebSocket server would send for it."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from streamsvc.core.shared_text import SharedText


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_its_frame_is_that_of_the_protocol(size: int) -> None:
    text = "x" * size
    assert SharedText(text).frame == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def test_its_size_is_that_of_its_bytes() -> None:
    text = "ä" * 100
    assert SharedText(text).frame == Frame(Opcode.TEXT, text.encode()).serialize(mask=False)


def test_the_frame_is_made_once() -> None:
    text = SharedText("hallo")
    assert text == "hallo" and text.frame is text.frame
