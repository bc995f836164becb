"""The colours of a picture, of its background and of what stands in boxes, by measurement.

Names are the eleven basic terms of Berlin and Kay (1969), cut out of CIELAB by hue, lightness and chroma. A
pixel near a border counts for both sides. There is no white balance: another exposure leaves the hue of a
surface, and moves gray alone towards white or black; coloured light is taken for the colour of the thing.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
HUELESS = 3  # of `NAMES`, the first ones
WIDTH = 320  # pixels of the picture that is measured; at half of it stripes of a few pixels run together
SMALLEST = 8  # pixels of a side of a box: less is of no certain colour
ONE = 0.6  # share of a region from which one name is told alone
SECOND = 0.25  # share from which a second name is told with it ...
BOTH = 0.75  # ... where both together have so much; else the region is mixed
SHADED = 0.4  # share from which a second name is told that may be the shadow or the light of the first
HUE = 0.35  # share of a thing whose only hue is told: shadow, glass and gleam have none
OTHER_HUES = 0.5  # of that share, which all other hues together stay below
CORE = 0.8  # of a box's width and height: the ellipse that is looked at
BEHIND = 0.3  # share of that ellipse through which what is around the box may be seen
AROUND = 0.15  # of a box's width and height: the frame around it
EDGE = 1 / 6  # of a picture's width and height: the frame in which the background is looked for
LEAST = 0.04  # share of a picture that a background has at least
BAR = 2  # level of a channel, of 32, up to which rows and columns at both ends are bars around the picture
BITS = 5  # of a channel, as colours are told apart
_SHADES = ("white gray", "gray black", "pink red", "orange brown", "yellow brown", "red brown", "brown black")
_BORDER = 5.0  # CIELAB units: so near a border a pixel counts for both sides

Rectangle = tuple[float, float, float, float]  # x, y, w, h: fractions of the picture
Pixels = NDArray[np.uint8]  # (h, w, 3)
Names = tuple[str, ...]  # none: mixed; one; or two, the larger share first


@dataclass(frozen=True, slots=True)
class Colours:
    """Names of the colours of a picture, of its background, and of each of its boxes."""

    picture: Names = ()
    background: Names = ()
    boxes: tuple[Names, ...] = ()


# (hue up to which the row goes, (least lightness, least chroma, name), ...): the first that fits. Hue is in
# degrees of CIELAB, counted from 345. Dark or dull reds, oranges and yellows are brown, and light reds pink.
_HUES: tuple[tuple[float, tuple[tuple[float, float, str], ...]], ...] = (
    (35, ((55, 0, "pink"), (0, 0, "red"))),
    (60, ((68, 0, "pink"), (35, 32, "red"), (0, 45, "red"), (0, 0, "brown"))),
    (90, ((45, 58, "orange"), (55, 48, "orange"), (0, 0, "brown"))),
    (110, ((60, 30, "yellow"), (85, 0, "yellow"), (0, 0, "brown"))),
    (127, ((70, 0, "yellow"), (0, 0, "green"))),
    (212, ((0, 0, "green"),)),
    (322, ((0, 0, "blue"),)),
    (352, ((0, 0, "purple"),)),
    (360, ((62, 0, "pink"), (0, 0, "purple"))),
)
_HUE_ZERO = 345.0
# (least lightness, chroma below which there is no hue, the name there): the first that fits, before `_HUES`
_HUELESS: tuple[tuple[float, float, str], ...] = (
    (93, 16, "white"),
    (80, 12, "white"),
    (22, 12, "gray"),
    (8, 10, "black"),
)
_DARKEST = (8, 20)  # lightness and chroma below which a colour is black
# What a colour may be called as well, or in another light.
NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "black": ("gray", "brown", "blue"),
    "white": ("gray", "yellow", "pink", "blue"),
    "gray": ("black", "white", "blue", "green", "brown"),
    "red": ("pink", "orange", "brown", "purple"),
    "orange": ("red", "yellow", "brown", "pink"),
    "yellow": ("orange", "green", "white", "brown"),
    "green": ("yellow", "blue", "gray", "brown"),
    "blue": ("green", "purple", "gray", "black", "white"),
    "purple": ("blue", "pink", "red"),
    "pink": ("red", "purple", "white", "orange"),
    "brown": ("red", "orange", "yellow", "green", "black", "gray"),
}
_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_D65 = (0.95047, 1.0, 1.08883)


# --- names of single colours ---


def lab_of(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIELAB (D65) of sRGB colours in 0 to 1, shape (..., 3)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ np.array(_XYZ).T / np.array(_D65)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def named(lab: NDArray[np.float64]) -> NDArray[np.intp]:
    """Places in `NAMES` of CIELAB colours, shape (n, 3)."""
    lightness, chroma = lab[:, 0], np.hypot(lab[:, 1], lab[:, 2])
    hue = (np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) - _HUE_ZERO) % 360
    rows = [((lightness < _DARKEST[0]) & (chroma < _DARKEST[1]), "black")]
    rows += [((lightness >= least) & (chroma < below), name) for least, below, name in _HUELESS]
    rows += [
        ((hue < until) & (lightness >= least) & (chroma >= least_chroma), name)
        for until, names in _HUES
        for least, least_chroma, name in names
    ]
    places = [NAMES.index(name) for _, name in rows]
    found: NDArray[np.intp] = np.select([condition for condition, _ in rows], places, 0)
    return found


@cache
def _shares() -> NDArray[np.float32]:
    """How much a colour counts for each name, shape (32768, 11): by its place and those _BORDER around it."""
    steps = (np.arange(1 << BITS) + 0.5) / (1 << BITS)
    rgb = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    lab = lab_of(rgb)
    shares = np.zeros((len(rgb), len(NAMES)), np.float32)
    for axis in range(3):
        for step in (-_BORDER, 0.0, _BORDER):
            moved = lab.copy()
            moved[:, axis] = np.maximum(moved[:, axis] + step, 0.0) if axis == 0 else moved[:, axis] + step
            shares[np.arange(len(rgb)), named(moved)] += 1
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


# --- colours of regions ---


def told(shares: NDArray[np.floating]) -> Names:
    """The name of a region's colour, two where two share it, none where it is mixed; `shares` as `NAMES`."""
    total = float(shares.sum())
    if total <= 0:
        return ()
    first, second, *_ = np.argsort(-shares, kind="stable")
    names = (NAMES[first], NAMES[second])
    one, other = float(shares[first]) / total, float(shares[second]) / total
    is_shade = " ".join(names) in _SHADES or " ".join(names[::-1]) in _SHADES
    if other >= (SHADED if is_shade else SECOND) and one + other >= BOTH:
        return names
    return names[:1] if one >= ONE or (is_shade and one + other >= BOTH) else ()


def told_of_thing(shares: NDArray[np.floating]) -> Names:
    """As `told`, of a thing: where its parts without a hue make it mixed, its only hue."""
    if (names := told(shares)) or (total := float(shares.sum())) <= 0:
        return names
    hues = shares[HUELESS:] / total
    best = int(hues.argmax())
    others = float(hues.sum() - hues[best])
    return (NAMES[HUELESS + best],) if hues[best] >= HUE and others <= OTHER_HUES * hues[best] else ()


def measured(pixels: Pixels, boxes: Sequence[Rectangle]) -> Colours:
    """The colours of a picture and of its boxes; an empty box, and one that is cut to nothing, has none."""
    levels = (pixels >> (8 - BITS)).astype(np.intp)
    cells = (levels[..., 0] << (2 * BITS)) | (levels[..., 1] << BITS) | levels[..., 2]
    height, width = cells.shape
    places = [_cut(box, width, height) for box in boxes]
    shown = _between_bars(levels)
    behind = np.zeros(cells.shape, bool)
    frame = behind[shown]
    across, down = max(1, round(EDGE * frame.shape[1])), max(1, round(EDGE * frame.shape[0]))
    frame[:down] = frame[-down:] = frame[:, :across] = frame[:, -across:] = True
    for left, top, right, bottom in places:
        behind[top:bottom, left:right] = False
    background = _told_in(cells[behind]) if behind.sum() >= LEAST * frame.size else ()
    return Colours(_told_in(cells[shown]), background, tuple(_of_box(cells, place) for place in places))


def measure(jpeg: bytes, boxes: Sequence[Rectangle]) -> Colours:
    """As `measured`, of a JPEG; nothing of one that cannot be decoded."""
    try:
        with Image.open(io.BytesIO(jpeg)) as picture:
            # libjpeg decodes at a half, a quarter or an eighth of the size.
            picture.draft("RGB", (WIDTH, max(1, WIDTH * picture.height // max(1, picture.width))))
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError):
        return Colours(boxes=((),) * len(boxes))
    step = max(1, pixels.shape[1] // WIDTH)  # of a JPEG that cannot be decoded smaller
    return measured(pixels[::step, ::step], boxes)


def _between_bars(levels: NDArray[np.intp]) -> tuple[slice, slice]:
    """The rows and columns of a picture without equal black bars at both ends; all of a black picture."""
    lit = levels.max(axis=-1) > BAR
    return _lit(lit.any(axis=1)), _lit(lit.any(axis=0))


def _lit(lines: NDArray[np.bool_]) -> slice:
    """The part between bars; black at one end alone is of the picture."""
    places = np.flatnonzero(lines)
    bar = min(int(places[0]), len(lines) - 1 - int(places[-1])) if len(places) else 0
    return slice(bar, len(lines) - bar)


def _told_in(cells: NDArray[np.intp]) -> Names:
    return told(_counted(cells.ravel()))


def _counted(cells: NDArray[np.intp]) -> NDArray[np.float32]:
    """The share of each name in some pixels."""
    counts = np.bincount(cells, minlength=1 << (3 * BITS))
    shares: NDArray[np.float32] = counts.astype(np.float32) @ _shares() / np.float32(max(1, len(cells)))
    return shares


def _cut(box: Rectangle, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a box in pixels, within the picture."""
    x, y, w, h = box
    left, right = np.clip([round(x * width), round((x + w) * width)], 0, width).tolist()
    top, bottom = np.clip([round(y * height), round((y + h) * height)], 0, height).tolist()
    return left, top, right, bottom


def _of_box(cells: NDArray[np.intp], place: tuple[int, int, int, int]) -> Names:
    """The colour of the thing in a box: of the box's middle, less what is around the box."""
    left, top, right, bottom = place
    width, height = right - left, bottom - top
    if width < SMALLEST or height < SMALLEST:
        return ()
    x = (np.arange(width) + 0.5) / width * 2 - 1
    y = (np.arange(height) + 0.5) / height * 2 - 1
    core = x[None, :] ** 2 + y[:, None] ** 2 <= CORE**2
    thing = _counted(cells[top:bottom, left:right][core])
    wide, high = max(1, round(AROUND * width)), max(1, round(AROUND * height))
    outer = slice(max(0, top - high), bottom + high), slice(max(0, left - wide), right + wide)
    frame = np.ones(cells.shape, bool)
    frame[top:bottom, left:right] = False
    around = cells[outer][frame[outer]]
    if len(around) >= core.sum() / 4:  # of a box that fills the picture little is around it
        thing = np.maximum(thing - np.float32(BEHIND) * _counted(around), np.float32(0))
    return told_of_thing(thing)
