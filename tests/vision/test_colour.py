"""Colours are measured: known ones are named in any usual exposure, and what is mixed has no name."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from streamsvc.vision import colour

# A colour as people called it in the XKCD survey, one of each basic term.
PAINTS = {
    "black": "000000",
    "white": "ffffff",
    "gray": "929591",
    "red": "e50000",
    "orange": "f97306",
    "yellow": "ffff14",
    "green": "15b01a",
    "blue": "0343df",
    "purple": "7e1e9c",
    "pink": "ff81c0",
    "brown": "653700",
}
BOX = (0.25, 0.25, 0.5, 0.5)
Picture = NDArray[np.float64]  # sRGB in 0 to 1, (h, w, 3)


def paint(name: str) -> Picture:
    return np.array(list(bytes.fromhex(PAINTS.get(name, name)))) / 255


def plain(name: str) -> Picture:
    return np.ones((180, 320, 1)) * paint(name)


def with_thing(thing: str, ground: str, radius: float = 1.0) -> Picture:
    """An ellipse that fills BOX, or a part of it."""
    picture = plain(ground)
    y, x = np.mgrid[-2:2:180j, -2:2:320j]
    picture[x**2 + y**2 <= radius**2] = paint(thing)
    return picture


def jpeg(picture: Picture, exposure: float = 1.0, noise: float = 0.0) -> bytes:
    light = np.where(picture <= 0.04045, picture / 12.92, ((picture + 0.055) / 1.055) ** 2.4) * exposure
    light = np.clip(light, 0, 1)
    srgb = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    srgb = srgb * 255 + np.random.default_rng(1).normal(0, 1, srgb.shape) * noise
    buffer = io.BytesIO()
    Image.fromarray(np.clip(srgb, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


@pytest.mark.parametrize("name", colour.NAMES)
def test_each_basic_colour_has_its_name_under_noise(name: str) -> None:
    found = colour.measure(jpeg(plain(name), noise=8.0), [BOX])
    assert (found.picture, found.background, found.boxes) == ((name,), (name,), ((name,),))


@pytest.mark.parametrize("exposure", [0.6, 0.8, 1.25, 1.5])
@pytest.mark.parametrize("name", [name for name in colour.NAMES if name not in ("orange", "pink")])
def test_another_exposure_leaves_the_name(name: str, exposure: float) -> None:
    """But of orange and pink: dark orange is brown, and overexposed pink is white."""
    assert colour.measure(jpeg(plain(name), exposure, noise=8.0), []).picture == (name,)


@pytest.mark.parametrize("stripe", [160, 40, 16])
def test_two_colours_that_share_a_picture_are_both_told(stripe: int) -> None:
    picture = plain("red")
    picture[:, np.arange(320) // stripe % 2 == 0] = paint("blue")
    assert set(colour.measure(jpeg(picture), []).picture) == {"red", "blue"}


def test_a_mixed_picture_has_no_colour() -> None:
    picture = plain("red")
    for n, name in enumerate(("white", "blue", "yellow", "green")):
        picture[:, 64 * n : 64 * n + 64] = paint(name)
    assert colour.measure(jpeg(picture), []) == colour.Colours()
    ball = with_thing("red", "gray")
    ball[:90, :160], ball[90:, :160], ball[90:, 160:] = paint("green"), paint("blue"), paint("yellow")
    assert colour.measure(jpeg(ball), [BOX]).boxes == ((),)


def test_a_thing_has_its_own_colour_and_the_background_has_its() -> None:
    found = colour.measure(jpeg(with_thing("red", "green"), noise=8.0), [BOX])
    assert (found.boxes, found.background) == ((("red",),), ("green",))


def test_black_bars_around_a_picture_are_neither_it_nor_its_background() -> None:
    picture = plain("green")
    picture[:, :80] = picture[:, -80:] = picture[:30] = picture[-30:] = 0.0
    found = colour.measure(jpeg(picture), [])
    assert (found.picture, found.background) == (("green",), ("green",))
    assert colour.measure(jpeg(plain("black")), []).background == ("black",)


@pytest.mark.parametrize("barred", [False, True])
def test_black_at_one_end_is_a_part_of_the_picture(barred: bool) -> None:
    picture = plain("green")
    picture[:, :160] = 0.0
    if barred:
        picture[:, -40:] = 0.0
    assert set(colour.measure(jpeg(picture), []).picture) == {"green", "black"}


def test_what_shows_through_beside_a_small_thing_is_not_the_things_colour() -> None:
    found = colour.measure(jpeg(with_thing("purple", "yellow", radius=0.68)), [BOX])
    assert found.boxes == (("purple",),)


def test_shadow_glass_and_gleam_of_a_thing_are_not_its_colour() -> None:
    picture = with_thing("blue", "brown")
    picture[55:75, 110:210] = paint("black")
    picture[75:95, 90:160] = paint("gray")
    picture[105:122, 100:220] = paint("white")
    assert colour.measure(jpeg(picture), [BOX]).boxes == (("blue",),)


def test_a_thing_that_is_half_black_is_both() -> None:
    ladybird = with_thing("red", "green")
    ladybird[90:][np.all(ladybird[90:] == paint("red"), axis=-1)] = paint("black")
    assert set(colour.measure(jpeg(ladybird), [BOX]).boxes[0]) == {"red", "black"}


def test_the_shaded_side_of_a_surface_is_no_second_colour() -> None:
    lit = np.linspace(1.0, 0.65, 320)[None, :, None] * np.ones((180, 1, 1))
    assert colour.measure(jpeg(plain("yellow") * lit), []).picture == ("yellow",)
    half = plain("white")
    half[:, 160:] = paint("gray")
    assert set(colour.measure(jpeg(half), []).picture) == {"white", "gray"}, "two things"


def test_a_box_that_fills_the_picture_and_one_beside_it() -> None:
    found = colour.measure(jpeg(plain("red")), [(0, 0, 1, 1), (0.99, 0.99, 0.5, 0.5), (-0.1, -0.1, 0.5, 0.5)])
    assert found.boxes == (("red",), (), ("red",))
    assert found.background == (), "nothing is left behind a box that fills the picture"


@pytest.mark.parametrize("data", [b"", b"jpeg", b"\xff\xd8\xff\xe0 broken"])
def test_what_is_no_picture_has_no_colours(data: bytes) -> None:
    assert colour.measure(data, [BOX, BOX]) == colour.Colours((), (), ((), ()))


def test_a_large_picture_is_measured_small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, ...]] = []
    real = colour.measured

    def measured(pixels: Any, boxes: Any) -> colour.Colours:
        sizes.append(pixels.shape)
        return real(pixels, boxes)

    monkeypatch.setattr(colour, "measured", measured)
    large = Image.new("RGB", (3000, 1000), "red")
    for form in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        large.save(buffer, form)
        assert colour.measure(buffer.getvalue(), []).picture == ("red",)
    assert all(shape[1] < 2 * colour.WIDTH for shape in sizes)


def test_neighbours_are_mutual() -> None:
    assert set(colour.NEIGHBOURS) == set(colour.NAMES)
    for name, others in colour.NEIGHBOURS.items():
        assert all(name in colour.NEIGHBOURS[other] for other in others), name
