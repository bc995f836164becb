"""Keyframe -> Sight, and later and independently ScreenText, through the see role.

OCR costs over a CPU second a screen, so `ScreenReader` reads only where text is likely and has changed. The
functions below it decide that, without I/O.
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
from streamsvc.core.latency import WAIT
from streamsvc.core.roles import Payload, Role
from streamsvc.core.types import Box, Keyframe, ScreenText, Sight, Tag, TextLine
from streamsvc.vision import colour
from streamsvc.vision.frame_difference import WHOLE, Gray, Region

CELL = 5  # pixels of the thumbnail
CHANGE_THRESHOLD = 8.0  # gray levels, mean over a cell
REGION_MAX = 0.6  # share of the screen; a larger region saves little and cuts letters
PAGE_WIDTH = 640  # pixels of the picture in which text is searched
TEXT_ROWS = 2  # rows of cells that look like letters: one may be an edge of a photo
SHORT = 3  # letters; a line with fewer is often an edge that was read as a letter, so it must be ...
SURE = 0.9  # ... read with this score
STROKE = 40  # gray levels of an edge of a letter
TITLE_AREA = 0.5  # the title begins in the upper half
TITLE_RATIO = 1.15  # times the median height of the other lines


class Settings(Protocol):
    """The part of config.See that is read."""

    @property
    def ocr(self) -> bool: ...  # noqa: D102


async def perceive(keyframe: Keyframe, jpeg: bytes, see: Role, *, deadline_in_s: float) -> Sight:
    """Run detector, tagger and embedding on one keyframe, and measure its colours.

    Raises:
        WorkerError: of the role.
        DeadlineMissed: of the role.
        CapacityError: of the role.
    """
    start = clock.now()
    result = await see.call(
        "look", {"jpeg": _as_array(jpeg)}, deadline_in_s=deadline_in_s, affinity=keyframe.session
    )
    corners = np.asarray(result["corners"], dtype=np.float64).tolist()
    tags = zip(map(_label, result["tags"]), result["tag_scores"], strict=True)
    colours = await asyncio.to_thread(colour.measure, jpeg, corners)
    boxes = zip(map(_label, result["boxes"]), result["box_scores"], corners, colours.boxes, strict=True)
    return Sight(
        keyframe.session,
        keyframe.track,
        keyframe.at,
        keyframe.arrived,
        np.asarray(result["embedding"], dtype=np.float32),
        tuple(Tag(label, float(score)) for label, score in tags),
        tuple(Box(label, float(score), x, y, w, h, names) for label, score, (x, y, w, h), names in boxes),
        bool(result["blank"]),
        (*keyframe.stages, (WAIT, start), ("sight", clock.now())),
        np.asarray(result["clip"], dtype=np.float16) if "clip" in result else None,
        colours=colours.picture,
        background=colours.background,
    )


class ScreenReader:
    """Reads the screen of one session, keyframe by keyframe.

    Attributes:
        skipped: keyframes that were not read: no text was likely, nothing had changed, or too little
            (`whole`).
        whole: read only where the whole screen changed; may be set at any time (degradation). Skipped changes
            are read with the next change after it is reset.
    """

    def __init__(self, settings: Settings) -> None:
        self.skipped = 0
        self.whole = False
        self._enabled = settings.ocr
        self._gray: Gray | None = None  # the screen as it was last read
        self._lines: tuple[TextLine, ...] = ()
        self._published: tuple[str, ...] = ()  # normalised text last returned
        self._first_seen = 0.0  # session seconds

    async def read(
        self, keyframe: Keyframe, jpeg: bytes, gray: Gray, see: Role, *, deadline_in_s: float
    ) -> ScreenText | None:
        """The text of a keyframe, or None if it is the same as before.

        Args:
            keyframe: its `changed` is not used: the screen is compared with the one that was last read.
            jpeg: the picture.
            gray: its thumbnail, shape (h, w).
            see: the role with the op "read".
            deadline_in_s: seconds.

        Raises:
            WorkerError: of the role; the next call reads the same change again.
            DeadlineMissed: the same.
            CapacityError: the same.
        """
        if not self._enabled:
            return None
        start = clock.now()
        region = changed_region(gray, self._gray)
        if region is None or (self.whole and region != WHOLE):
            self.skipped += 1
            return None
        lines: tuple[TextLine, ...] = ()
        if likely_text(await asyncio.to_thread(_page, jpeg)):
            if region != WHOLE:
                region = widened(region, self._lines)
            payload = {"jpeg": _as_array(jpeg), "region": list(region)}
            result = await see.call("read", payload, deadline_in_s=deadline_in_s, affinity=keyframe.session)
            lines = merged(self._lines, lines_of(result), region)
        else:
            self.skipped += 1
        self._gray = gray
        self._lines = lines
        texts = tuple(filter(None, (normalised(line.text) for line in lines)))
        if texts == self._published:
            return None
        self._published = texts
        self._first_seen = keyframe.at
        return ScreenText(
            keyframe.session,
            keyframe.track,
            keyframe.at,
            keyframe.arrived,
            title(lines),
            lines,
            self._first_seen,
            (*keyframe.stages, (WAIT, start), ("text", clock.now())),
        )


def _label(name: object) -> str:
    """A label as an interned string: a session stores those of hours."""
    return sys.intern(str(name))


def lines_of(result: Payload) -> tuple[TextLine, ...]:
    """Lines of a result of the op "read", in reading order, without single letters that are hardly any."""
    corners = np.asarray(result["corners"], dtype=np.float64).tolist()
    lines = zip(result["texts"], result["scores"], corners, strict=True)
    return tuple(
        TextLine(str(text), float(score), *box)
        for text, score, box in lines
        if len(normalised(str(text))) >= SHORT or float(score) >= SURE
    )


def changed_region(gray: Gray, before: Gray | None) -> Region | None:
    """The box of the difference between two thumbnails, with a margin; None if there is none."""
    if before is None or before.shape != gray.shape:
        return WHOLE
    rows = gray.shape[0] // CELL
    columns = gray.shape[1] // CELL
    apart = np.abs(gray.astype(np.int16) - before)[: rows * CELL, : columns * CELL]
    mask = apart.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3)) > CHANGE_THRESHOLD
    if not mask.any():
        return None
    down = np.flatnonzero(mask.any(axis=1))
    across = np.flatnonzero(mask.any(axis=0))
    top, bottom = max(0, int(down[0]) - 1), min(rows, int(down[-1]) + 2)
    left, right = max(0, int(across[0]) - 1), min(columns, int(across[-1]) + 2)
    if (bottom - top) * (right - left) > REGION_MAX * rows * columns:
        return WHOLE
    return (left / columns, top / rows, (right - left) / columns, (bottom - top) / rows)


def widened(region: Region, lines: Sequence[TextLine]) -> Region:
    """The region grown so that it cuts no known line: half a line is misread."""
    left, top = region[0], region[1]
    right, bottom = region[0] + region[2], region[1] + region[3]
    for _ in range(3):  # a grown region may touch more lines; after three rounds it is nearly everything
        for line in lines:
            if _touches(line, (left, top, right - left, bottom - top)):
                left, top = min(left, line.x - 0.01), min(top, line.y - 0.01)
                right, bottom = max(right, line.x + line.w + 0.01), max(bottom, line.y + line.h + 0.01)
    left, top = max(0.0, left), max(0.0, top)
    right, bottom = min(1.0, right), min(1.0, bottom)
    return (left, top, right - left, bottom - top)


def merged(known: Sequence[TextLine], fresh: Sequence[TextLine], region: Region) -> tuple[TextLine, ...]:
    """Lines after a region was read again: known ones outside, fresh ones inside."""
    outside = [line for line in known if not _touches(line, region)]
    return tuple(sorted([*outside, *fresh], key=lambda line: (round(line.y + line.h / 2, 2), line.x)))


def likely_text(page: Gray) -> bool:
    """Whether a gray picture of about PAGE_WIDTH is likely to contain text.

    Letters are many strong edges of alternating sign in a narrow row that is quieter above and below.
    """
    return text_rows(page) >= TEXT_ROWS


def text_rows(page: Gray) -> int:
    """Rows that look like letters: at least 3 adjacent cells of 16 x 8 pixels."""
    step = np.diff(page.astype(np.int16), axis=1)
    strong = np.abs(step) > STROKE
    sign = np.sign(step) * strong
    rows = page.shape[0] // 8
    columns = sign.shape[1] // 16
    cells = sign[: rows * 8, : columns * 16].reshape(rows, 8, columns, 16)
    rising = (cells > 0).sum(axis=(1, 3))
    falling = (cells < 0).sum(axis=(1, 3))
    letters = (np.minimum(rising, falling) >= 6).astype(np.int64)
    run = np.zeros(rows, dtype=np.int64)
    longest = np.zeros(rows, dtype=np.int64)
    for column in letters.T:
        run = (run + 1) * column
        longest = np.maximum(longest, run)
    return int((longest >= 3).sum())


def title(lines: Sequence[TextLine]) -> str | None:
    """The largest line of the upper half, if it is larger than the others; None if none is."""
    upper = [line for line in lines if line.y < TITLE_AREA and len(normalised(line.text)) > 1]
    if not upper:
        return None
    largest = max(upper, key=lambda line: (line.h, -line.y))
    others = [line.h for line in lines if line is not largest and abs(line.y - largest.y) > largest.h / 2]
    if others and largest.h < TITLE_RATIO * float(np.median(others)):
        return None
    row = [line for line in upper if abs(line.y - largest.y) <= largest.h / 2 and line.h > 0.7 * largest.h]
    return " ".join(line.text for line in sorted(row, key=lambda line: line.x))


def normalised(text: str) -> str:
    """Text without case, blanks and punctuation, to compare two readings."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", text).casefold() if letter.isalnum())


def _touches(line: TextLine, region: Region) -> bool:
    x, y, w, h = region
    return line.x < x + w and line.x + line.w > x and line.y < y + h and line.y + line.h > y


def _as_array(jpeg: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(jpeg, dtype=np.uint8)


def _page(jpeg: bytes) -> Gray:
    """A JPEG in gray, at most PAGE_WIDTH wide."""
    picture = Image.open(io.BytesIO(jpeg))
    # libjpeg decodes at a half or a quarter of the size.
    picture.draft("L", (PAGE_WIDTH, PAGE_WIDTH * picture.height // max(1, picture.width)))
    gray = picture.convert("L")
    if gray.width > PAGE_WIDTH:
        height = max(8, gray.height * PAGE_WIDTH // gray.width)
        gray = gray.resize((PAGE_WIDTH, height), Image.Resampling.BILINEAR)
    return np.asarray(gray)
