"""A still image that came with a question: decoded safely, then perceived and read."""

from __future__ import annotations

import asyncio
import io

import numpy as np
from PIL import Image, ImageOps

from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.roles import Role
from streamsvc.core.types import Keyframe, ScreenText, Sight, TextLine, VideoFrame
from streamsvc.vision.frame_difference import WHOLE
from streamsvc.vision.perception import Settings, lines_of, perceive, title

PIXELS_MAX = 50_000_000  # security limit: larger pictures are not decoded
SIDE = 1600  # pixels of the longer side; more costs time and does not improve OCR


async def analyse(
    image: bytes, session: str, at: float, see: Role, settings: Settings, *, deadline_in_s: float
) -> tuple[Sight, ScreenText]:
    """Run detector, tagger and OCR on an image.

    Args:
        image: JPEG or PNG.
        session: id of the session that it was sent to.
        at: session seconds that the results carry.
        see: the role with the ops "look" and "read".
        settings: OCR is skipped without `ocr`.
        deadline_in_s: seconds.

    Raises:
        InvalidRequest: the image cannot be decoded, or is too large ("bad_image").
        WorkerError: of the role.
        DeadlineMissed: of the role.
        CapacityError: of the role.
    """
    start = clock.now()
    jpeg = await asyncio.to_thread(normalised_jpeg, image)
    frame = VideoFrame(session, "main", at, start, None, 0, 0)
    keyframe = Keyframe(session, "main", at, start, frame, "question")
    left = deadline_in_s - (clock.now() - start)

    async def read() -> ScreenText:
        lines: tuple[TextLine, ...] = ()
        if settings.ocr:
            payload = {"jpeg": np.frombuffer(jpeg, dtype=np.uint8), "region": list(WHOLE)}
            lines = lines_of(await see.call("read", payload, deadline_in_s=left, affinity=session))
        return ScreenText(session, "main", at, start, title(lines), lines, at)

    sight, text = await asyncio.gather(
        perceive(keyframe, jpeg, see, deadline_in_s=left), read(), return_exceptions=True
    )
    if isinstance(sight, BaseException):
        raise sight
    if isinstance(text, BaseException):
        raise text
    return sight, text


def normalised_jpeg(image: bytes) -> bytes:
    """An image as a JPEG: upright, at most SIDE pixels, transparent parts white.

    Raises:
        InvalidRequest: as for `analyse`.
    """
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > PIXELS_MAX:
                raise InvalidRequest(f"the image has more than {PIXELS_MAX:,} pixels", code="bad_image")
            picture.draft("RGB", (SIDE, SIDE))
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    # What Pillow raises on broken files:
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):
        raise InvalidRequest("the image cannot be decoded", code="bad_image") from None
    upright.thumbnail((SIDE, SIDE))
    page = Image.new("RGB", upright.size, "white")
    page.paste(upright, mask=upright.getchannel("A"))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
