"""Decoding of the pictures in requests."""

from __future__ import annotations

import io

from PIL import Image

from engines import Payload
from streamsvc.core.errors import WorkerError


def decode_image(payload: Payload) -> Image.Image:
    """The picture in payload["jpeg"] (uint8 bytes of a JPEG or PNG) as RGB.

    Raises:
        WorkerError: code "bad_picture": it is missing or cannot be decoded.
    """
    try:
        return Image.open(io.BytesIO(payload["jpeg"].tobytes())).convert("RGB")
    except (OSError, ValueError, KeyError, AttributeError, Image.DecompressionBombError):
        raise WorkerError("the picture cannot be read", code="bad_picture") from None
