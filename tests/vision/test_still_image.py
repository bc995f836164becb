"""A picture sent along is decoded with care, and seen and read at once."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engines import Engine, Op, Payload
from streamsvc.core.errors import InvalidRequest, WorkerError
from streamsvc.vision import still_image
from streamsvc.vision.still_image import glance, plain
from tests.builders import pages
from tests.fakes.local_role import LocalRole
from tests.fakes.see_engine import SETTINGS, Eyes


async def test_a_picture_is_seen_and_read_and_bears_the_time_of_its_question() -> None:
    eyes = Eyes()
    eyes.texts = ["INVOICE"]
    sight, text = await glance(
        pages.picture(pages.INVOICE, "PNG"), "s", 75.0, eyes.role(), SETTINGS, deadline_in_s=1.0
    )
    assert (sight.at, text.at, text.first_seen) == (75.0, 75.0, 75.0)
    assert [line.text for line in text.lines] == ["INVOICE"]
    assert sight.boxes[0].label == "cat"
    assert bytes(eyes.asked[0]["jpeg"].tobytes()).startswith(b"\xff\xd8\xff"), "the worker is sent a JPEG"


async def test_nothing_is_read_where_reading_is_off() -> None:
    eyes = Eyes()
    _, text = await glance(
        pages.picture(pages.TABLE), "s", 1.0, eyes.role(), SimpleNamespace(ocr=False), deadline_in_s=1.0
    )
    assert (text.lines, eyes.asked) == ((), [])


async def test_a_worker_that_fails_fails_the_question() -> None:
    eyes = Eyes()
    eyes.fail = True
    with pytest.raises(WorkerError):
        await glance(pages.picture(pages.TABLE), "s", 1.0, eyes.role(), SETTINGS, deadline_in_s=1.0)


async def test_both_are_asked_at_once() -> None:
    asked: list[str] = []

    def op(name: str) -> Op:
        def run(batch: list[Payload]) -> list[Payload | Exception]:
            asked.append(name)
            return [WorkerError("no") for _ in batch]

        return Op(run)

    with pytest.raises(WorkerError):
        await glance(
            pages.picture(pages.TABLE),
            "s",
            1.0,
            LocalRole(Engine({"look": op("look"), "read": op("read")})),
            SETTINGS,
            deadline_in_s=1.0,
        )
    assert sorted(asked) == ["look", "read"]


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n and no more",
        pages.picture(pages.TABLE)[:3000],
        b"GIF89a" + bytes(40),
    ],
)
def test_a_broken_picture_is_refused_by_name(image: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plain(image)
    assert caught.value.code == "bad_image"


def test_a_picture_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_image, "MOST_PIXELS", 1000)
    with pytest.raises(InvalidRequest, match="pixels"):
        plain(pages.picture(pages.TABLE))


def test_a_large_picture_is_made_smaller_and_a_transparent_one_lies_on_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4000, 1000), (0, 0, 0, 0)).save(buffer, "PNG")
    made = Image.open(io.BytesIO(plain(buffer.getvalue())))
    assert (made.format, made.size) == ("JPEG", (1600, 400))
    assert np.asarray(made).min() > 250


def test_a_photo_that_was_taken_sideways_is_turned_upright() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (200, 100), "white").save(buffer, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(plain(buffer.getvalue()))).size == (100, 200)
