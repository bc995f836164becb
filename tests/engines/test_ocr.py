from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from engines.ocr import load, pixels, reading_order
from streamsvc.core.errors import WorkerError
from streamsvc.core.types import TextLine
from streamsvc.vision.perception import title
from tests.builders.clips import shot


@pytest.fixture(scope="module")
def read() -> Iterator[Any]:
    engine: Any = load({})
    yield lambda **payload: engine.ops["read"].run([payload])[0]


def test_lines_are_ordered_top_to_bottom_and_left_to_right() -> None:
    lines = [("c", 1.0, 0.1, 0.5, 0.2, 0.1), ("b", 1.0, 0.5, 0.11, 0.2, 0.1), ("a", 1.0, 0.1, 0.1, 0.2, 0.1)]
    assert [line[0] for line in reading_order(lines)] == ["a", "b", "c"]


def test_a_region_becomes_pixels_inside_the_picture_and_narrow_ones_are_extended() -> None:
    assert pixels([0, 0, 1, 1], (1280, 720)) == (0, 0, 1280, 720)
    left, top, right, bottom = pixels([0.5, 0.99, 0.7, 0.01], (1280, 720))
    assert (left, right, bottom) == (640, 1280, 720)
    assert 0 <= top < 700


def test_only_the_region_is_read_and_placed_in_the_whole_picture(read: Any) -> None:
    picture = Image.new("RGB", (1280, 720), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((80, 60), "Upper words", "black", ImageFont.load_default(48))
    draw.text((80, 500), "Lower words", "black", ImageFont.load_default(48))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    result = read(jpeg=np.frombuffer(buffer.getvalue(), np.uint8), region=[0.0, 0.6, 1.0, 0.4])
    assert result["texts"] == ["Lower words"]
    x, y, _w, h = result["corners"][0]
    assert x == pytest.approx(80 / 1280, abs=0.02)
    assert y <= 510 / 720 <= 540 / 720 <= y + h + 0.02


def test_an_unreadable_picture_fails_alone(read: Any) -> None:
    assert isinstance(read(jpeg=np.frombuffer(b"no picture", np.uint8)), WorkerError)


@pytest.mark.media
def test_all_titles_of_the_lecture_are_read_exactly(read: Any, media: Path) -> None:
    truth = json.loads((media / "scenarios" / "lecture_stone_cutter.json").read_text())["intervals"]
    for interval in truth:
        result = read(jpeg=shot(media / "scenarios" / "lecture_stone_cutter.mp4", interval["start"] + 1))
        lines = [
            TextLine(t, s, *b)
            for t, s, b in zip(result["texts"], result["scores"], result["corners"].tolist(), strict=True)
        ]
        assert title(lines) == interval["title"]
