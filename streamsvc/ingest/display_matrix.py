"""How a decoded picture is shown: turned and mirrored by its display matrix, with square pixels.

Phones store pictures as the sensor sees them, with a display matrix (ISO 14496-12, 8.3.2; H.264 display
orientation SEI; EXIF). Nothing after the decoder should know that.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from streamsvc.core.orientation import UPRIGHT, Orientation

PIXEL_ASPECT_MAX = 4.0  # wider or narrower pixels are damage
_EXIF_ORIENTATION = 0x0112
_EXIF_WITHIN = 64  # bytes from the start of a JPEG in which its EXIF segment begins


QUARTERS = {  # by PyAV's rotation, degrees counterclockwise
    0: UPRIGHT,
    90: Orientation(swapped=True, bottom_up=True),
    180: Orientation(right_to_left=True, bottom_up=True),
    270: Orientation(swapped=True, right_to_left=True),
}
EXIF = {  # by tag 0x0112 (JEITA CP-3451)
    2: Orientation(right_to_left=True),
    3: QUARTERS[180],
    4: Orientation(bottom_up=True),
    5: Orientation(swapped=True),
    6: QUARTERS[270],
    7: Orientation(swapped=True, right_to_left=True, bottom_up=True),
    8: QUARTERS[90],
}


def from_matrix(a: float, b: float, c: float, d: float) -> Orientation:
    """The nearest orientation of a display matrix: x' = a x + c y, y' = b x + d y; y grows downwards."""
    if a * d == b * c:  # shows nothing: damage
        return UPRIGHT
    if abs(a * d) >= abs(b * c):
        return Orientation(right_to_left=a < 0, bottom_up=d < 0)
    return Orientation(swapped=True, right_to_left=c < 0, bottom_up=b < 0)


def orientation(picture: Any, payload: bytes = b"") -> Orientation:
    """How an av.VideoFrame is to be shown. `payload`: of the picture; only JPEG is looked into."""
    if has_exif(payload):
        return _from_exif(payload)
    try:
        matrices = [bytes(data) for data in picture.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # PyAV 18 knows no name for newer kinds of side data, such as those of EXIF, and stops
        return QUARTERS.get(round(picture.rotation / 90) * 90 % 360, UPRIGHT)
    if not matrices or len(matrices[-1]) < 20:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("=5i", matrices[-1])  # 16.16 fixed point
    return from_matrix(a, b, c, d)


def has_exif(payload: bytes) -> bool:
    """Whether this is a JPEG with EXIF."""
    return b"Exif\0\0" in payload[:_EXIF_WITHIN] and payload.startswith(b"\xff\xd8")


def _from_exif(payload: bytes) -> Orientation:
    from PIL import Image  # lazy: a caption-only process does not need it

    try:
        with Image.open(io.BytesIO(payload), formats=("JPEG",)) as image:
            return EXIF.get(image.getexif().get(_EXIF_ORIENTATION, 1), UPRIGHT)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return UPRIGHT


def shown_size(width: int, height: int, pixel_aspect: float | None) -> tuple[int, int]:
    """A stored size with square pixels; no side shrinks.

    Args:
        width: in pixels, as stored.
        height: the same.
        pixel_aspect: width of a pixel divided by its height; None: not known.
    """
    if not pixel_aspect or not 1 / PIXEL_ASPECT_MAX <= pixel_aspect <= PIXEL_ASPECT_MAX:
        return width, height
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)
