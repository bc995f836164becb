"""A picture that came with a question: seen and read by the see role, both at once, within the question's time."""

from __future__ import annotations

import asyncio
import io

import numpy as np
from PIL import Image, ImageOps

from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.roles import Role
from streamsvc.core.types import Keyframe, ScreenText, Sight, VideoFrame
from streamsvc.vision.perception import WHOLE, Settings, lines_of, look, title

MOST_PIXELS = 50_000_000  # security limit: a picture of more is not decoded
SIDE = 1600  # pixels of the longer side: more costs time, and reads no better


async def glance(
    image: bytes, session: str, at: float, see: Role, settings: Settings, *, deadline_in_s: float
) -> tuple[Sight, ScreenText]:
    """What is seen and read in a picture.

    Args:
        image: JPEG or PNG.
        session: id of the session that it was sent to.
        at: session seconds that the results bear.
        see: the role with the ops "look" and "read".
        settings: without `ocr` nothing is read.
        deadline_in_s: seconds.

    Raises:
        InvalidRequest: it cannot be decoded, or is too large ("bad_image").
        WorkerError, DeadlineMissed, CapacityError: of the role.
    """
    start = clock.now()
    jpeg = await asyncio.to_thread(plain, image)
    keyframe = Keyframe(
        session, "main", at, start, VideoFrame(session, "main", at, start, None, 0, 0), "question"
    )
    left = deadline_in_s - (clock.now() - start)

    async def read() -> ScreenText:
        payload = {"jpeg": np.frombuffer(jpeg, dtype=np.uint8), "region": list(WHOLE)}
        lines = (
            lines_of(await see.call("read", payload, deadline_in_s=left, affinity=session))
            if settings.ocr
            else ()
        )
        return ScreenText(session, "main", at, start, title(lines), lines, at)

    seen, text = await asyncio.gather(
        look(keyframe, jpeg, see, settings, deadline_in_s=left), read(), return_exceptions=True
    )
    if isinstance(seen, BaseException):
        raise seen
    if isinstance(text, BaseException):
        raise text
    return seen, text


def plain(image: bytes) -> bytes:
    """A picture as a JPEG of at most SIDE pixels, upright, on white where it is transparent.

    Raises:
        InvalidRequest: as for `glance`.
    """
    try:
        with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise InvalidRequest(f"the image has more than {MOST_PIXELS:,} pixels", code="bad_image")
            picture.draft("RGB", (SIDE, SIDE))
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ):  # what Pillow raises on broken files
        raise InvalidRequest("the image cannot be decoded", code="bad_image") from None
    upright.thumbnail((SIDE, SIDE))
    page = Image.new("RGB", upright.size, "white")
    page.paste(upright, mask=upright.getchannel("A"))
    buffer = io.BytesIO()
    page.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
