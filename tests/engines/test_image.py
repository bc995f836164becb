"""Pictures in requests are decoded to RGB; anything else is one error."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.image import decode_image
from streamsvc.core.errors import WorkerError


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_picture_is_decoded_to_rgb(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("L", (8, 4), 200).save(buffer, form)
    picture = decode_image({"jpeg": np.frombuffer(buffer.getvalue(), np.uint8)})
    assert (picture.mode, picture.size, picture.getpixel((1, 1))) == ("RGB", (8, 4), (200, 200, 200))


@pytest.mark.parametrize("payload", [{}, {"jpeg": None}, {"jpeg": np.frombuffer(b"no picture", np.uint8)}])
def test_an_unreadable_picture_is_an_error_of_its_request(payload: dict[str, Any]) -> None:
    with pytest.raises(WorkerError) as failure:
        decode_image(payload)
    assert failure.value.code == "bad_picture"
