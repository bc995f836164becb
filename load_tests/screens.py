"""Generated screens that change at known times under known disturbances, for load_tests.keyframes.

Pages of text, soft pictures and a scrolling document, 1280x720 gray at FPS pictures a second, coded as by a
live encoder. A seed fixes the clips, except for the codecs' own choices.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from streamsvc.vision.frame_difference import Gray

WIDTH, HEIGHT, FPS = 1280, 720, 10
SPACING = (3.5, 4.5)  # seconds between two changes
KINDS = ("slide", "cut", "fade", "bullet", "word", "digit", "typing", "scroll")
CONDITIONS = ("clean", "noise 2", "noise 4", "noise 8", "exposure", "cursor", "caret", "inset")
_WORDS = """
stream latency budget model speech caption window keyframe revenue growth team plan market system design
result error rate signal network server client memory cost quarter release customer review method figure
table sample energy water history question
"""
WORDS = _WORDS.split()


@dataclass(frozen=True, slots=True)
class Change:
    """A known change, complete at second `at`."""

    kind: str
    condition: str
    at: float


@dataclass(frozen=True, slots=True)
class Page:
    """A screen of text.

    `ground`, `ink`: gray levels; `size`: pixels of a body letter; `scroll`: pixels, of a long document.
    """

    title: str
    lines: tuple[str, ...]
    ground: int = 255
    ink: int = 20
    size: int = 32
    left: int = 90
    scroll: int = 0


Scene = Page | int  # an int is the seed of a photo


@dataclass(frozen=True, slots=True)
class Act:
    """One scene; it replaces the one before between `start` and `end` seconds (equal: at once)."""

    start: float
    end: float
    kind: str
    scene: Scene


# --- what is shown ------------------------------------------------------------------------------------------


def page(rnd: random.Random) -> Page:
    """A page of two to five lines, dark on light or light on dark."""
    ground, ink = rnd.choice([(255, 20), (244, 40), (235, 30), (24, 230), (40, 245), (200, 10)])
    lines = tuple(line(rnd) for _ in range(rnd.randint(2, 5)))
    return Page(
        phrase(rnd, 2, 4).title(),
        lines,
        ground,
        ink,
        rnd.choice([24, 28, 32, 36, 42]),
        rnd.choice([60, 90, 140]),
    )


def document(rnd: random.Random) -> Page:
    """A page longer than the screen."""
    return replace(page(rnd), lines=tuple(line(rnd) for _ in range(60)), size=rnd.choice([22, 26, 30]))


def line(rnd: random.Random) -> str:
    """Some words and, mostly, a number."""
    words = phrase(rnd, 3, 7).split()
    words.insert(
        rnd.randint(1, len(words)),
        rnd.choice(["{}", "{}.5", "{} %", "20{}"]).format(rnd.randint(10, 99)),
    )
    return " ".join(words)


def phrase(rnd: random.Random, least: int, most: int) -> str:
    """A random number of words in a row."""
    return " ".join(rnd.choice(WORDS) for _ in range(rnd.randint(least, most)))


def edited(scene: Page, kind: str, rnd: random.Random) -> Page:
    """The page with one word, one digit or one line changed."""
    lines = list(scene.lines)
    if kind in ("bullet", "typing"):
        return replace(scene, lines=(*lines, line(rnd)))
    at = rnd.randrange(min(len(lines), 5))
    words = lines[at].split()
    places = [n for n, word in enumerate(words) if (kind == "digit") == word[0].isdigit()]
    n = rnd.choice(places)
    if kind == "digit":
        place = rnd.choice([i for i, letter in enumerate(words[n]) if letter.isdigit()])
        digit = rnd.choice([d for d in "0123456789" if d != words[n][place]])
        words[n] = words[n][:place] + digit + words[n][place + 1 :]
    else:
        words[n] = rnd.choice([word for word in WORDS if word != words[n]])
    lines[at] = " ".join(words)
    return replace(scene, lines=tuple(lines))


@functools.lru_cache(maxsize=16)
def drawn(scene: Scene) -> Gray:
    """The scene as gray pixels, uint8 (HEIGHT, WIDTH)."""
    if isinstance(scene, int):
        return photo(scene)
    picture = Image.new("L", (WIDTH, HEIGHT), scene.ground)
    pen = ImageDraw.Draw(picture)
    pen.text((scene.left, 50 - scene.scroll), scene.title, fill=scene.ink, font=font(scene.size * 3 // 2))
    for n, text in enumerate(scene.lines):
        pen.text((scene.left, row(scene, n)), f"-  {text}", fill=scene.ink, font=font(scene.size))
    return np.asarray(picture).copy()


def row(scene: Page, n: int) -> int:
    """Top of line `n` in pixels."""
    return 60 + scene.size * 5 // 2 + n * scene.size * 19 // 10 - scene.scroll


@functools.cache
def font(size: int) -> Any:
    """Pillow's built-in font."""
    return ImageFont.load_default(size)


def photo(seed: int) -> Gray:
    """A synthetic photo: soft light, a few shapes, fine grain."""
    rnd, rng = random.Random(seed), np.random.default_rng(seed)
    layers = [resized(rng.normal(0, 1, (4 * 2**n, 7 * 2**n))) * 45 / 1.6**n for n in range(6)]
    picture = Image.fromarray(np.clip(np.sum(layers, axis=0) + rnd.randint(80, 160), 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(6):
        x, y, w, h = (
            rnd.randrange(WIDTH),
            rnd.randrange(HEIGHT),
            rnd.randint(60, 400),
            rnd.randint(60, 300),
        )
        pen.ellipse(
            (x - w, y - h, x + w, y + h), fill=rnd.randrange(256), outline=rnd.randrange(256), width=4
        )
    return np.asarray(picture).copy()


def gray(values: NDArray[Any]) -> Gray:
    """Clip to gray levels 0 to 255."""
    levels: Gray = np.clip(values, 0, 255).astype(np.uint8)
    return levels


def resized(values: NDArray[Any], size: tuple[int, int] = (WIDTH, HEIGHT)) -> NDArray[np.float32]:
    """Enlarge smoothly to (width, height)."""
    return np.asarray(
        Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC), dtype=np.float32
    )


def acts(kinds: Sequence[str], rnd: random.Random) -> list[Act]:
    """A first page, and one act per kind, at random times some seconds apart."""
    now = 0.0
    scene: Scene = page(rnd)
    sequence = [Act(0.0, 0.0, "first", scene)]
    for kind in kinds:
        now += rnd.uniform(*SPACING)
        lasts, before = 0.0, scene if isinstance(scene, Page) else page(rnd)
        then: Scene = scene
        if len(before.lines) > 5 and kind in ("bullet", "typing"):
            before = page(rnd)
        if before is not scene and kind in ("bullet", "word", "digit", "typing"):
            sequence.append(Act(now, now, "cut", before))
            now += rnd.uniform(*SPACING)
        if kind == "scroll" and len(before.lines) < 20:
            before = document(rnd)
            sequence.append(Act(now, now, "slide", before))
            now += rnd.uniform(*SPACING)
        if kind == "cut":
            then = rnd.randrange(10**6)
        elif kind in ("slide", "fade"):
            then, lasts = page(rnd), rnd.uniform(0.4, 1.5) if kind == "fade" else 0.0
        elif kind == "scroll":
            then, lasts = (
                replace(before, scroll=before.scroll + rnd.randint(80, 400)),
                rnd.uniform(0.3, 1.5),
            )
        else:
            then, lasts = edited(before, kind, rnd), 2.0 if kind == "typing" else 0.0
        sequence.append(Act(now, now + lasts, kind, then))
        now, scene = now + lasts, then
    return sequence


def shown(sequence: Sequence[Act], at: float) -> Gray:
    """What the acts show at a second."""
    n = max(n for n, act in enumerate(sequence) if act.start <= at)
    act = sequence[n]
    if at >= act.end:
        return drawn(act.scene)
    before, part = sequence[n - 1].scene, (at - act.start) / (act.end - act.start)
    if act.kind == "fade":
        return (drawn(before) * (1 - part) + drawn(act.scene) * part).astype(np.uint8)
    assert isinstance(act.scene, Page) and isinstance(before, Page)
    if act.kind == "scroll":
        return drawn(
            replace(
                act.scene,
                scroll=round(before.scroll + (act.scene.scroll - before.scroll) * (3 - 2 * part) * part**2),
            )
        )
    last = act.scene.lines[-1]
    return drawn(replace(act.scene, lines=(*before.lines, last[: int(part * len(last))])))


# --- what disturbs it ---------------------------------------------------------------------------------------


class Disturbance:
    """Camera noise, drift of exposure, a mouse pointer, a caret, or a small video in the corner.

    Noise is named "noise" and its strength in gray levels.
    """

    def __init__(self, condition: str, sequence: Sequence[Act], rnd: random.Random) -> None:
        self.condition, self.sequence, self.rnd = condition, sequence, rnd
        rng = np.random.default_rng(rnd.randrange(10**6))
        name, _, strength = condition.partition(" ")
        self.grain = (
            [rng.normal(0, float(strength), (HEIGHT, WIDTH)).astype(np.float32) for _ in range(4)]
            if name == "noise"
            else []
        )
        self.moving: NDArray[Any] = (
            resized(rng.normal(0, 1, (12, 40)), (1200, 360)) * 60 + 128
            if name == "inset"
            else np.zeros((0, 0))
        )
        self.pen = np.asarray(pointer(rnd.choice([16, 20, 28])))
        self.place, self.goal, self.until = (640.0, 360.0), (640.0, 360.0), 0.0

    def __call__(self, picture: Gray, at: float) -> Gray:
        """The picture of one second, disturbed."""
        if self.grain:
            roll = self.rnd.randrange(WIDTH)
            return gray(picture + np.roll(self.rnd.choice(self.grain), roll, axis=1))
        if self.condition == "exposure":  # slow clouds, and a camera that adapts
            gain = 1 + 0.1 * math.sin(at / 4) + 0.05 * math.sin(at * 1.3)
            return gray(picture * 0.85 * gain + 6 * math.sin(at / 3))
        if self.condition == "cursor":
            return self._pointed(picture.copy(), at)
        if self.condition == "caret" and at % 1.06 < 0.53:
            scene = [act.scene for act in self.sequence if act.start <= at][-1]
            if isinstance(scene, Page):
                picture, top = picture.copy(), row(scene, len(scene.lines) // 2)
                picture[max(0, top) : max(0, top + scene.size * 5 // 4), 700:703] = scene.ink
        if self.condition == "inset":
            picture = picture.copy()
            shift = round(400 + 380 * math.sin(at * 1.7) * math.sin(at / 9))  # a speaker who moves, and rests
            picture[480:700, 940:1260] = np.clip(
                self.moving[60:280, shift : shift + 320] + 8 * math.sin(at * 9), 0, 255
            )
        return picture

    def _pointed(self, picture: Gray, at: float) -> Gray:
        """Draw a mouse pointer that rests and moves in turns."""
        if at >= self.until:
            self.goal = (self.rnd.uniform(20, WIDTH - 60), self.rnd.uniform(20, HEIGHT - 60))
            self.until = at + self.rnd.uniform(0.3, 4.0)
        self.place = (
            self.place[0] + (self.goal[0] - self.place[0]) * 0.45,
            self.place[1] + (self.goal[1] - self.place[1]) * 0.45,
        )
        x, y = round(self.place[0]), round(self.place[1])
        view = picture[y : y + self.pen.shape[0], x : x + self.pen.shape[1]]
        pen = self.pen[: view.shape[0], : view.shape[1]]
        view[pen == 1], view[pen == 2] = 255, 0
        return picture


def pointer(height: int) -> Image.Image:
    """An arrow: 2 its black body, 1 its white border, 0 transparent."""
    picture = Image.new("L", (height * 3 // 4, height))
    arrow = [
        (0, 0),
        (0, height * 0.8),
        (height * 0.22, height * 0.62),
        (height * 0.4, height - 1),
        (height * 0.5, height * 0.9),
    ]
    ImageDraw.Draw(picture).polygon(
        [*arrow, (height * 0.35, height * 0.58), (height * 0.6, height * 0.58)], fill=2, outline=1
    )
    return picture


# --- coded ------------------------------------------------------------------------------------


def coded(pictures: Iterable[Gray], rnd: random.Random) -> bytes:
    """Encode to Matroska in memory like a live encoder.

    H.264 or VP8, few codec keyframes, a bitrate of calls and screen sharing.
    """
    name, options = rnd.choice(
        [
            ("libx264", {"preset": "superfast", "tune": "zerolatency", "g": str(rnd.choice([20, 250]))}),
            ("libvpx", {"deadline": "realtime", "cpu-used": "8", "g": "300", "lag-in-frames": "0"}),
        ]
    )
    kbps = rnd.choice([500, 1000, 2000])
    options |= {"maxrate": f"{kbps}k", "bufsize": f"{kbps}k"}
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream: Any = container.add_stream(name, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", kbps * 1000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def script(condition: str, kinds: Sequence[str], seed: int) -> tuple[list[Act], list[Change], random.Random]:
    """The acts of a clip, its visible changes, and the random generator for the rest.

    An edit may be beyond the edge of the screen, so not every act is a visible change.
    """
    rnd = random.Random(f"{condition} {seed} {len(kinds)}")
    sequence = acts(kinds, rnd)
    seen = [
        act
        for before, act in itertools.pairwise(sequence)
        if (np.abs(drawn(before.scene).astype(int) - drawn(act.scene)) > 40).sum() > 10
    ]
    return sequence, [Change(act.kind, condition, math.ceil(act.end * FPS - 1e-6) / FPS) for act in seen], rnd


def clip(condition: str, kinds: Sequence[str], seed: int, seconds: float = 0.0) -> tuple[list[Change], bytes]:
    """The known changes of a clip, and the encoded clip of at least `seconds`."""
    sequence, changes, rnd = script(condition, kinds, seed)
    end = max(seconds, sequence[-1].end + 3.0)
    disturb = Disturbance(condition, sequence, rnd)
    return changes, coded((disturb(shown(sequence, n / FPS), n / FPS) for n in range(round(end * FPS))), rnd)


def clips(seed: int, each: int, still: float) -> Iterator[tuple[str, list[Change], bytes]]:
    """All clips of one seed: per condition the changes, `each` of a kind, and a still one."""
    for condition in CONDITIONS:
        kinds = list(KINDS) * each
        random.Random(f"{condition} {seed}").shuffle(kinds)
        for part in range(2):
            yield (condition, *clip(condition, kinds[part::2], seed * 2 + part))
        yield (
            f"{'playing' if condition == 'inset' else 'still'}, {condition}",
            *clip(condition, (), seed, still),
        )
