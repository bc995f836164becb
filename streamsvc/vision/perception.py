"""Keyframes -> Sight at once, and ScreenText later and apart, through the see role.

Reading text costs over a CPU second a screen, so `Reader` reads only where text is likely and has changed; everything that
decides this is pure and stands below it.
"""

from __future__ import annotations

import asyncio
import io
import sys
import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamsvc.core import clock
from streamsvc.core.roles import Payload, Role
from streamsvc.core.types import Box, Keyframe, ScreenText, Sight, Tag, TextLine

Region = tuple[float, float, float, float]  # x, y, w, h as fractions of the picture
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)

CELL = 5  # pixels of the thumbnail
CHANGED = 8.0  # gray levels, mean over a cell
PAGE_WIDTH = 640  # pixels at which text is looked for
TEXT_ROWS = 2  # rows of cells that look like letters: one is a chance edge of a photo
STROKE = 40  # gray levels: an edge of a letter
TITLE_FROM_TOP = 0.5  # the title stands in the upper half ...
TITLE_RATIO = 1.15  # ... and is higher than the other lines by this factor


class Settings(Protocol):
    """What is read of config.See."""

    @property
    def ocr(self) -> bool: ...  # noqa: D102


async def look(
    keyframe: Keyframe, jpeg: bytes, see: Role, settings: Settings, *, deadline_in_s: float
) -> Sight:
    """What the vision models see in one keyframe.

    Raises:
        WorkerError, DeadlineMissed, CapacityError: of the role.
    """
    start = clock.now()
    result = await see.call(
        "look", {"jpeg": _bytes(jpeg)}, deadline_in_s=deadline_in_s, affinity=keyframe.session
    )
    corners = np.asarray(result["corners"], dtype=np.float64).tolist()
    labels = zip(map(_label, result["tags"]), result["tag_scores"], strict=True)
    things = zip(map(_label, result["boxes"]), result["box_scores"], corners, strict=True)
    return Sight(
        keyframe.session,
        keyframe.track,
        keyframe.at,
        keyframe.arrived,
        np.asarray(result["embedding"], dtype=np.float32),
        tuple(Tag(label, float(score)) for label, score in labels),
        tuple(Box(label, float(score), *box) for label, score, box in things),
        bool(result["blank"]),
        {"sight": clock.now() - start},
        np.asarray(result["clip"], dtype=np.float16) if "clip" in result else None,
    )


class Reader:
    """Reads the screens of one session, one keyframe after the other.

    `skipped`: keyframes that were not read, because no text was likely, nothing had changed, or too little (`whole`).
    `whole`: read only where the whole screen changed; may be set at any time (degradation). What is passed over is read with the
    next change after it is reset.
    """

    def __init__(self, settings: Settings) -> None:
        self.skipped = 0
        self.whole = False
        self._on = settings.ocr
        self._gray: NDArray[np.uint8] | None = None  # the screen as it was last read
        self._lines: tuple[TextLine, ...] = ()
        self._told: tuple[str, ...] = ()  # the text last given out, normalised
        self._first_seen = 0.0

    async def read(
        self, keyframe: Keyframe, jpeg: bytes, gray: NDArray[np.uint8], see: Role, *, deadline_in_s: float
    ) -> ScreenText | None:
        """The text of a keyframe, or None where it is the same as before.

        Args:
            keyframe: `changed` is not relied upon: the screen is compared with what was last read.
            jpeg: the picture.
            gray: its thumbnail, uint8 (h, w).
            see: the role with the op "read".
            deadline_in_s: seconds.

        Raises:
            WorkerError, DeadlineMissed, CapacityError: of the role; the next call reads the same change again.
        """
        if not self._on:
            return None
        start = clock.now()
        region = changed_region(gray, self._gray)
        if region is None or (self.whole and region != WHOLE):
            self.skipped += 1
            return None
        page = await asyncio.to_thread(_page, jpeg)
        lines: tuple[TextLine, ...]
        if likely_text(page):
            if region != WHOLE:
                region = widened(region, self._lines)
            payload = {"jpeg": _bytes(jpeg), "region": list(region)}
            result = await see.call("read", payload, deadline_in_s=deadline_in_s, affinity=keyframe.session)
            lines = merged(self._lines, lines_of(result), region)
        else:
            self.skipped += 1
            lines = ()
        self._gray, self._lines = gray, lines
        told = tuple(filter(None, (normalised(line.text) for line in lines)))
        if told == self._told:
            return None
        self._told, self._first_seen = told, keyframe.at
        stages = {"text": clock.now() - start}
        return ScreenText(
            keyframe.session,
            keyframe.track,
            keyframe.at,
            keyframe.arrived,
            title(lines),
            lines,
            self._first_seen,
            stages,
        )


def _label(name: object) -> str:
    """A label as a string that all pictures share: a session keeps those of hours."""
    return sys.intern(str(name))


def lines_of(result: Payload) -> tuple[TextLine, ...]:
    """What the op "read" found, in reading order."""
    corners = np.asarray(result["corners"], dtype=np.float64).tolist()
    found = zip(result["texts"], result["scores"], corners, strict=True)
    return tuple(TextLine(str(text), float(score), *box) for text, score, box in found)


def changed_region(gray: NDArray[np.uint8], before: NDArray[np.uint8] | None) -> Region | None:
    """The box of what differs between two thumbnails, with a margin; None where nothing does."""
    if before is None or before.shape != gray.shape:
        return WHOLE
    rows, columns = gray.shape[0] // CELL, gray.shape[1] // CELL
    apart = np.abs(gray.astype(np.int16) - before)[: rows * CELL, : columns * CELL]
    mask = apart.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3)) > CHANGED
    if not mask.any():
        return None
    down, across = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, bottom = max(0, int(down[0]) - 1), min(rows, int(down[-1]) + 2)
    left, right = max(0, int(across[0]) - 1), min(columns, int(across[-1]) + 2)
    if (bottom - top) * (right - left) > 0.6 * rows * columns:
        return WHOLE  # a crop would save little, and cut letters
    return (left / columns, top / rows, (right - left) / columns, (bottom - top) / rows)


def widened(region: Region, lines: Sequence[TextLine]) -> Region:
    """The region grown so that it cuts no line that is known: half a line reads as nonsense."""
    left, top, right, bottom = region[0], region[1], region[0] + region[2], region[1] + region[3]
    for _ in range(
        3
    ):  # a grown region may touch further lines; three rounds are enough, then it is nearly everything
        for line in lines:
            if _touches(line, (left, top, right - left, bottom - top)):
                left, top = min(left, line.x - 0.01), min(top, line.y - 0.01)
                right, bottom = max(right, line.x + line.w + 0.01), max(bottom, line.y + line.h + 0.01)
    left, top, right, bottom = max(0.0, left), max(0.0, top), min(1.0, right), min(1.0, bottom)
    return (left, top, right - left, bottom - top)


def merged(known: Sequence[TextLine], fresh: Sequence[TextLine], region: Region) -> tuple[TextLine, ...]:
    """The whole screen after a part of it was read again: what was known outside, and what is new inside."""
    kept = [line for line in known if not _touches(line, region)]
    return tuple(sorted([*kept, *fresh], key=lambda line: (round(line.y + line.h / 2, 2), line.x)))


def likely_text(page: NDArray[np.uint8]) -> bool:
    """Whether a gray picture of about 640 pixels' width holds rows of letters. Right more often than OCR is cheap, never sure.

    Letters are many strong edges, up and down in turn, in a narrow row that is quieter above and below.
    """
    return text_rows(page) >= TEXT_ROWS


def text_rows(page: NDArray[np.uint8]) -> int:
    """Stretches of the picture that look like a row of letters (cells of 16 x 8 pixels, at least 3 side by side)."""
    step = np.diff(page.astype(np.int16), axis=1)
    strong = np.abs(step) > STROKE
    sign = np.sign(step) * strong
    rows, columns = page.shape[0] // 8, sign.shape[1] // 16
    cells = sign[: rows * 8, : columns * 16].reshape(rows, 8, columns, 16)
    ups, downs = (cells > 0).sum(axis=(1, 3)), (cells < 0).sum(axis=(1, 3))
    letters = (np.minimum(ups, downs) >= 6).astype(np.int64)
    run, best = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    for column in letters.T:
        run = (run + 1) * column
        best = np.maximum(best, run)
    return int((best >= 3).sum())


def title(lines: Sequence[TextLine]) -> str | None:
    """The largest line of the upper half, where it stands out from the rest; None where nothing does."""
    upper = [line for line in lines if line.y < TITLE_FROM_TOP and len(normalised(line.text)) > 1]
    if not upper:
        return None
    best = max(upper, key=lambda line: (line.h, -line.y))
    others = [line.h for line in lines if line is not best and abs(line.y - best.y) > best.h / 2]
    if others and best.h < TITLE_RATIO * float(np.median(others)):
        return None
    beside = [line for line in upper if abs(line.y - best.y) <= best.h / 2 and line.h > 0.7 * best.h]
    return " ".join(line.text for line in sorted(beside, key=lambda line: line.x))


def normalised(text: str) -> str:
    """Text without case, blanks and punctuation: what two readings of the same screen have in common."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


def _touches(line: TextLine, region: Region) -> bool:
    x, y, w, h = region
    return line.x < x + w and line.x + line.w > x and line.y < y + h and line.y + line.h > y


def _bytes(jpeg: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(jpeg, dtype=np.uint8)


def _page(jpeg: bytes) -> NDArray[np.uint8]:
    picture = Image.open(io.BytesIO(jpeg))
    picture.draft(
        "L", (PAGE_WIDTH, PAGE_WIDTH * picture.height // max(1, picture.width))
    )  # libjpeg decodes at a half or a quarter
    gray = picture.convert("L")
    if gray.width > PAGE_WIDTH:
        gray = gray.resize(
            (PAGE_WIDTH, max(8, gray.height * PAGE_WIDTH // gray.width)), Image.Resampling.BILINEAR
        )
    return np.asarray(gray)
