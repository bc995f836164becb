from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from streamsvc.core.orientation import UPRIGHT, Orientation
from streamsvc.ingest.display_matrix import from_matrix, orientation, shown_size


def corners(*, swapped: bool = False) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A picture with another gray level in each quarter, 64 wide and 32 high (or 32 wide and 64 high)."""
    quarters = np.array([[20, 90], [160, 230]], np.uint8).repeat(16, 0).repeat(32, 1)
    return quarters.T if swapped else quarters


def film(path: Path, codec: str, pixels: np.ndarray[Any, np.dtype[np.uint8]], **rotation: Any) -> Any:
    """The first picture of a clip whose container asks for a rotation."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=5)
        stream.height, stream.width = pixels.shape
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(**rotation)
        frame = av.VideoFrame.from_ndarray(np.stack([pixels] * 3, axis=2), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 5)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(str(path), "r") as written:
        return next(written.decode(video=0))


@pytest.mark.parametrize("codec", ["libx264", "libvpx"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_display_matrix_of_a_container_is_undone(
    tmp_path: Path, codec: str, degrees: int, mirrored: bool
) -> None:
    stored = corners()  # what a player makes of it, by Pillow's own turns:
    image = Image.fromarray(stored).rotate(degrees, expand=True)
    shown = np.asarray(ImageOps.mirror(image) if mirrored else image)
    picture = film(tmp_path / "a.mkv", codec, stored, degrees=degrees, hflip=mirrored)
    gray = picture.to_ndarray(format="gray")
    turned = orientation(picture).apply(gray)
    assert turned.shape == shown.shape
    assert np.abs(turned.astype(int) - shown.astype(int)).mean() < 8


def test_a_matrix_that_shows_nothing_is_ignored_and_any_angle_goes_to_the_nearest_quarter() -> None:
    assert from_matrix(0, 0, 0, 0) == UPRIGHT
    assert from_matrix(65536, 65536, 65536, 65536) == UPRIGHT
    assert from_matrix(65000, 8000, -8000, 65000) == UPRIGHT
    assert from_matrix(8000, 65000, -65000, 8000) == Orientation(swapped=True, right_to_left=True)


@pytest.mark.parametrize("tag", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    stored = Image.fromarray(np.stack([corners()] * 3, axis=2))
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", exif=exif, quality=95)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(buffer)).convert("L"))
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        picture: Any = next(container.decode(video=0))
    turned = orientation(picture, buffer.getvalue()).apply(picture.to_ndarray(format="gray"))
    assert turned.shape == shown.shape
    assert np.abs(turned.astype(int) - shown.astype(int)).mean() < 8
    blind = orientation(picture)  # PyAV cannot list the side data of such a picture
    assert blind.swapped == (tag >= 5)
    assert orientation(picture, buffer.getvalue()[:200]) == UPRIGHT, "damaged"


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (None, (720, 576)),
        (1.0, (720, 576)),
        (64 / 45, (1024, 576)),
        (0.5, (720, 1152)),
        (100.0, (720, 576)),
        (0.0, (720, 576)),
    ],
)
def test_pixels_become_square_and_no_side_shrinks(aspect: float | None, size: tuple[int, int]) -> None:
    assert shown_size(720, 576, aspect) == size
