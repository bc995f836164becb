from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from engines import Engine, Op, Payload
from streamsvc.core.errors import WorkerError
from streamsvc.core.types import Keyframe, TextLine, VideoFrame
from streamsvc.vision.perception import (
    ScreenReader,
    changed_region,
    likely_text,
    lines_of,
    merged,
    normalised,
    perceive,
    title,
    widened,
)
from tests.fakes.local_role import LocalRole
from tests.fakes.see_engine import SETTINGS, Eyes


def line(text: str, y: float, h: float = 0.06, x: float = 0.1, w: float = 0.5) -> TextLine:
    return TextLine(text, 0.99, x, y, w, h)


def screen(*texts: str) -> tuple[bytes, np.ndarray[Any, np.dtype[np.uint8]]]:
    """A slide as a JPEG of 1280x720, and its thumbnail."""
    picture = Image.new("RGB", (1280, 720), "white")
    draw = ImageDraw.Draw(picture)
    for number, text in enumerate(texts):
        draw.text((80, 60 + 120 * number), text, "black", ImageFont.load_default(48))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG")
    return buffer.getvalue(), np.asarray(picture.convert("L").resize((160, 90), Image.Resampling.BOX))


def keyframe(at: float) -> Keyframe:
    return Keyframe(
        "s", "main", at, 100.0 + at, VideoFrame("s", "main", at, 100.0 + at, None, 1280, 720), "scene"
    )


async def test_a_sight_carries_the_time_of_its_keyframe() -> None:
    sight = await perceive(keyframe(3.0), b"jpeg", Eyes().role(), deadline_in_s=1.0)
    assert (sight.at, sight.arrived) == (3.0, 103.0)
    assert sight.tags[0].label == "cat"
    assert sight.boxes[0].w == pytest.approx(0.3)
    assert sight.embedding.dtype == np.float32


async def test_the_embedding_of_a_vision_text_model_is_stored_as_float16() -> None:
    def clip(batch: list[Payload]) -> list[Payload | Exception]:
        return [
            {**answer, "clip": np.array([0.25, -3.0], np.float32)}
            for answer in Eyes().look(batch)
            if isinstance(answer, dict)
        ]

    sight = await perceive(keyframe(3.0), b"jpeg", LocalRole(Engine({"look": Op(clip)})), deadline_in_s=1.0)
    assert sight.clip is not None
    assert (sight.clip.dtype, sight.clip.tolist()) == (np.dtype(np.float16), [0.25, -3.0])
    assert (await perceive(keyframe(3.0), b"jpeg", Eyes().role(), deadline_in_s=1.0)).clip is None


async def test_text_is_read_once_and_then_only_in_the_changed_region() -> None:
    eyes, reader = Eyes(), ScreenReader(SETTINGS)
    eyes.texts = ["A title of some length", "and one more line"]
    jpeg, gray = screen(*eyes.texts)
    first = await reader.read(keyframe(1.0), jpeg, gray, eyes.role(), deadline_in_s=1.0)
    assert first is not None
    assert [item.text for item in first.lines] == eyes.texts
    assert first.first_seen == 1.0
    assert await reader.read(keyframe(2.0), jpeg, gray, eyes.role(), deadline_in_s=1.0) is None
    assert len(eyes.asked) == 1, "an unchanged screen was read again"
    jpeg, gray = screen(*eyes.texts, "", "a line that is new here")
    eyes.texts = []
    assert await reader.read(keyframe(3.0), jpeg, gray, eyes.role(), deadline_in_s=1.0) is None
    _x, y, _w, h = eyes.asked[-1]["region"]
    assert y > 0.4 and h < 0.5, "only the new line is read"


async def test_a_small_change_is_deferred_while_only_whole_screens_are_read() -> None:
    eyes, reader = Eyes(), ScreenReader(SETTINGS)
    eyes.texts = ["Agenda"]
    for at, whole, texts in (
        (1.0, True, ("Agenda",)),
        (2.0, True, ("Agenda", "Budget")),
        (3.0, False, ("Agenda", "Budget")),
    ):
        reader.whole = whole
        await reader.read(keyframe(at), *screen(*texts), eyes.role(), deadline_in_s=1.0)
        assert (len(eyes.asked), reader.skipped) == {1.0: (1, 0), 2.0: (1, 1), 3.0: (2, 1)}[at]


async def test_pictures_without_text_are_not_read() -> None:
    eyes, reader = Eyes(), ScreenReader(SETTINGS)
    jpeg, gray = screen()
    assert await reader.read(keyframe(1.0), jpeg, gray, eyes.role(), deadline_in_s=1.0) is None
    assert eyes.asked == []
    assert reader.skipped == 1


async def test_text_that_disappears_is_reported() -> None:
    eyes, reader = Eyes(), ScreenReader(SETTINGS)
    eyes.texts = ["Something written here"]
    await reader.read(
        keyframe(1.0), *screen("Something written here", "and here as well"), eyes.role(), deadline_in_s=1.0
    )
    gone = await reader.read(keyframe(2.0), *screen(), eyes.role(), deadline_in_s=1.0)
    assert gone is not None
    assert gone.lines == ()
    assert gone.title is None


async def test_a_change_that_could_not_be_read_is_read_with_the_next_keyframe() -> None:
    eyes, reader = Eyes(), ScreenReader(SETTINGS)
    eyes.fail = True
    jpeg, gray = screen("Some words are here", "and more of them")
    with pytest.raises(WorkerError):
        await reader.read(keyframe(1.0), jpeg, gray, eyes.role(), deadline_in_s=1.0)
    eyes.fail, eyes.texts = False, ["Some words are here"]
    assert await reader.read(keyframe(2.0), jpeg, gray, eyes.role(), deadline_in_s=1.0) is not None


def test_an_edge_that_looks_like_a_letter_is_no_text() -> None:
    read = {"texts": ["C", "7", "Go", "stop"], "scores": [0.77, 0.97, 0.6, 0.6], "corners": np.zeros((4, 4))}
    assert [item.text for item in lines_of(read)] == ["7", "stop"]


async def test_a_sight_has_the_colours_that_were_measured() -> None:
    buffer = io.BytesIO()
    picture = Image.new("RGB", (320, 180), (20, 60, 220))
    ImageDraw.Draw(picture).rectangle((32, 36, 128, 108), (210, 20, 20))
    picture.save(buffer, "JPEG")
    sight = await perceive(keyframe(3.0), buffer.getvalue(), Eyes().role(), deadline_in_s=1.0)
    assert (sight.boxes[0].colours, sight.colours, sight.background) == (("red",), ("blue",), ("blue",))
    assert (await perceive(keyframe(3.0), b"jpeg", Eyes().role(), deadline_in_s=1.0)).boxes[0].colours == ()


def test_the_title_is_the_largest_line_of_the_upper_half() -> None:
    assert (
        title([line("The mountain spirit", 0.1, 0.1), line("a spirit", 0.3), line("Slide 2", 0.9, 0.04)])
        == "The mountain spirit"
    )
    assert title([line("all", 0.1), line("the same", 0.2), line("height", 0.3)]) is None
    assert title([line("at the bottom", 0.8, 0.2)]) is None
    assert (
        title([line("Two", 0.1, 0.1, 0.1, 0.2), line("parts", 0.1, 0.1, 0.4, 0.2), line("below", 0.4)])
        == "Two parts"
    )
    assert title([]) is None


def test_a_changed_region_is_bounded_and_a_large_one_is_the_whole_screen() -> None:
    gray = np.full((90, 160), 200, np.uint8)
    other = gray.copy()
    other[40:50, 80:120] = 0
    assert changed_region(gray, gray) is None
    assert changed_region(other, None) == (0, 0, 1, 1)
    assert changed_region(255 - gray, gray) == (0, 0, 1, 1)
    region = changed_region(other, gray)
    assert region is not None
    assert region[0] <= 0.5 <= 0.75 <= region[0] + region[2]
    assert region[2] * region[3] < 0.2


def test_a_region_grows_to_whole_lines_and_replaces_them() -> None:
    known = [line("first", 0.1), line("second", 0.3), line("third", 0.8)]
    region = widened((0.3, 0.28, 0.1, 0.1), known)
    assert region[0] < 0.1 and region[0] + region[2] > 0.6
    assert [item.text for item in merged(known, [line("2nd", 0.3)], region)] == ["first", "2nd", "third"]


def test_rows_of_letters_are_distinguished_from_a_plain_photo() -> None:
    picture = (
        Image.open(io.BytesIO(screen("Some words of a text", "in two lines")[0]))
        .convert("L")
        .resize((640, 360))
    )
    assert likely_text(np.asarray(picture))
    smooth = np.add.outer(np.linspace(0, 120, 360), np.linspace(0, 120, 640)).astype(np.uint8)
    assert not likely_text(smooth)


def test_readings_of_a_line_are_compared_without_case_blanks_and_punctuation() -> None:
    assert normalised("• The Stone-Cutter") == normalised("the stonecutter ")
