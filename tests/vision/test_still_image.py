"""A still image is decoded safely, and perceived and read concurrently."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engines import Engine, Op, Payload
from streamsvc.core.errors import InvalidRequest, WorkerError
from streamsvc.vision import still_image
from streamsvc.vision.still_image import analyse, normalised_jpeg
from tests.builders import pages
from tests.fakes.local_role import LocalRole
from tests.fakes.see_engine import SETTINGS, Eyes


async def test_an_image_is_perceived_and_read_and_has_the_time_of_its_question() -> None:
    eyes = Eyes()
    eyes.texts = ["INVOICE"]
    sight, text = await analyse(
        pages.picture(pages.INVOICE, "PNG"), "s", 75.0, eyes.role(), SETTINGS, deadline_in_s=1.0
    )
    assert (sight.at, text.at, text.first_seen) == (75.0, 75.0, 75.0)
    assert [line.text for line in text.lines] == ["INVOICE"]
    assert sight.boxes[0].label == "cat"
    assert bytes(eyes.asked[0]["jpeg"].tobytes()).startswith(b"\xff\xd8\xff"), "the worker is sent a JPEG"


async def test_nothing_is_read_without_ocr() -> None:
    eyes = Eyes()
    _, text = await analyse(
        pages.picture(pages.TABLE), "s", 1.0, eyes.role(), SimpleNamespace(ocr=False), deadline_in_s=1.0
    )
    assert (text.lines, eyes.asked) == ((), [])


async def test_a_failure_of_the_worker_is_raised() -> None:
    eyes = Eyes()
    eyes.fail = True
    with pytest.raises(WorkerError):
        await analyse(pages.picture(pages.TABLE), "s", 1.0, eyes.role(), SETTINGS, deadline_in_s=1.0)


async def test_both_ops_run_concurrently() -> None:
    asked: list[str] = []

    def op(name: str) -> Op:
        def run(batch: list[Payload]) -> list[Payload | Exception]:
            asked.append(name)
            return [WorkerError("no") for _ in batch]

        return Op(run)

    with pytest.raises(WorkerError):
        await analyse(
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
def test_a_broken_image_is_refused_with_its_code(image: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        normalised_jpeg(image)
    assert caught.value.code == "bad_image"


def test_an_image_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_image, "PIXELS_MAX", 1000)
    with pytest.raises(InvalidRequest, match="pixels"):
        normalised_jpeg(pages.picture(pages.TABLE))


def test_a_large_image_is_scaled_and_transparent_parts_are_white() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (4000, 1000), (0, 0, 0, 0)).save(buffer, "PNG")
    made = Image.open(io.BytesIO(normalised_jpeg(buffer.getvalue())))
    assert (made.format, made.size) == ("JPEG", (1600, 400))
    assert np.asarray(made).min() > 250


def test_a_photo_with_an_orientation_is_turned_upright() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new("RGB", (200, 100), "white").save(buffer, "JPEG", exif=exif)
    assert Image.open(io.BytesIO(normalised_jpeg(buffer.getvalue()))).size == (100, 200)
