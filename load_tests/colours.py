"""Colours by measurement on made pictures of known colours: right, declined and wrong.

    python -m load_tests.colours [--each 200] [--misses]

The colours are what people called by a basic term, by "dark" or by "light" and it. Each picture is exposed
by 0.6 to 1.5 (in linear light), gets noise of 8 levels, and is a JPEG of quality 75. Right: exactly the names
that were drawn (a thing of one colour: its name). The same seed gives the same pictures.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamsvc.vision import colour

WIDTH, HEIGHT = 640, 360
EXPOSURES = (0.6, 0.8, 1.0, 1.25, 1.5)
BOX = (0.3, 0.25, 0.4, 0.5)  # x, y, w, h of the thing
NOISE = 8.0  # gray levels
Light = NDArray[np.float64]  # linear light, (h, w, 3)
# picture in linear light, names that are right, what is measured: "picture", "background" or "box"
Made = tuple[Light, tuple[str, ...], str]


# Each basic term as it is, dark and light: medians of the XKCD colour survey (Munroe, 2010; CC0).
SURVEY = """
black 000000, white ffffff, gray 929591 363737 d8dcd6, red e50000 840000, orange f97306 c65102 fdaa48,
yellow ffff14 d5b60a fffe7a, green 15b01a 033500 96f97b, blue 0343df 00035b 95d0fc,
purple 7e1e9c 35063e bf77f6, pink ff81c0 cb416b ffd1df, brown 653700 341c02 ad8150
"""


def palette() -> list[tuple[str, NDArray[np.float64]]]:
    """(basic term, linear light) of the survey's colours."""
    rows = [row.split() for row in SURVEY.replace("\n", " ").split(",")]
    return [
        (term, linear(np.array(list(bytes.fromhex(code))) / 255)) for term, *codes in rows for code in codes
    ]


def linear(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def encoded(light: Light, exposure: float, rng: np.random.Generator) -> bytes:
    """A picture as a camera would send it."""
    seen = np.clip(light * exposure, 0, 1)
    srgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055) * 255
    noisy = srgb + rng.normal(0, NOISE, srgb.shape)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


class Maker:
    """Pictures by kind, from one generator of random numbers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.palette = palette()

    def draw(self, count: int) -> list[tuple[str, NDArray[np.float64]]]:
        """Colours of different terms."""
        terms = self.rng.permutation(sorted({term for term, _ in self.palette}))[:count]
        return [
            (str(term), self._one([value for other, value in self.palette if other == term]))
            for term in terms
        ]

    def _one(self, values: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        return values[int(self.rng.integers(len(values)))]

    def solid(self) -> Made:
        ((term, value),) = self.draw(1)
        return np.broadcast_to(value, (HEIGHT, WIDTH, 3)), (term,), "picture"

    def gradient(self) -> Made:
        """One surface, lit from 1.2 to 0.8."""
        ((term, value),) = self.draw(1)
        ramp = np.linspace(1.2, 0.8, WIDTH)[None, :, None] * np.ones((HEIGHT, 1, 1))
        return ramp * value, (term,), "picture"

    def halves(self) -> Made:
        (one, a), (other, b) = self.draw(2)
        left = np.arange(WIDTH)[None, :, None] < WIDTH * self.rng.uniform(0.4, 0.6)
        return np.where(left, a, b) * np.ones((HEIGHT, 1, 1)), (one, other), "picture"

    def stripes(self) -> Made:
        (one, a), (other, b) = self.draw(2)
        width = int(self.rng.integers(16, 80))
        return (
            np.where((np.arange(WIDTH) // width % 2 == 0)[None, :, None], a, b) * np.ones((HEIGHT, 1, 1)),
            (one, other),
            "picture",
        )

    def patches(self) -> Made:
        """Five colours side by side: no one or two of them are the picture's."""
        drawn = self.draw(5)
        place = np.minimum(np.arange(WIDTH) * 5 // WIDTH, 4)
        return np.stack([value for _, value in drawn])[place][None] * np.ones((HEIGHT, 1, 1)), (), "picture"

    def _thing(self, inside: Callable[[Light, Light], NDArray[np.bool_]], measured: str = "box") -> Made:
        (one, value), (ground, behind) = self.draw(2)
        x, y = self._grid()
        made = np.where(inside(x, y)[..., None], value, behind)
        return made, (one if measured == "box" else ground,), measured

    def _grid(self) -> tuple[Light, Light]:
        """Places in the box, from -1 to 1."""
        x = ((np.arange(WIDTH) + 0.5) / WIDTH - BOX[0] - BOX[2] / 2) / (BOX[2] / 2)
        y = ((np.arange(HEIGHT) + 0.5) / HEIGHT - BOX[1] - BOX[3] / 2) / (BOX[3] / 2)
        return np.meshgrid(x, y)

    def thing(self) -> Made:
        return self._thing(lambda x, y: x**2 + y**2 <= 1)

    def ragged(self) -> Made:
        """A thing with arms: half of its box is background."""
        return self._thing(
            lambda x, y: np.hypot(x, y) <= 0.62 + 0.38 * np.cos(5 * np.arctan2(y, x)) * (np.hypot(x, y) > 0.3)
        )

    def background(self) -> Made:
        return self._thing(lambda x, y: x**2 + y**2 <= 1, "background")

    def shaded(self) -> Made:
        """A ball with light from above: to a third of its light, and a gleam."""
        (one, value), (_, behind) = self.draw(2)
        x, y = self._grid()
        lit = np.clip(0.67 - 0.33 * y, 0.3, 1.0)[..., None] * value
        lit = np.where((np.hypot(x + 0.3, y + 0.4) < 0.15)[..., None], 1.0, lit)
        return np.where((x**2 + y**2 <= 1)[..., None], lit, behind), (one,), "box"

    def car(self) -> Made:
        """A thing of one colour of which a third is gray glass and black tyres, on gray ground."""
        (one, value), _ = self.draw(2)
        x, y = self._grid()
        body = (np.abs(x) <= 1) & (y > -0.4) | (np.abs(x) < 0.6) & (np.abs(y) <= 1)
        glass = (np.abs(x) < 0.5) & (y < -0.45) & (y > -0.95)
        tyres = np.minimum(np.hypot((x - 0.6) * 1.4, y - 0.8), np.hypot((x + 0.6) * 1.4, y - 0.8)) < 0.35
        made = np.where((body & (np.abs(y) <= 1))[..., None], value, 0.25)
        made = np.where(glass[..., None], 0.12, made)
        return np.where(tyres[..., None], 0.01, made), (one,), "box"


KINDS = (
    "solid",
    "gradient",
    "halves",
    "stripes",
    "patches",
    "thing",
    "ragged",
    "shaded",
    "car",
    "background",
)


def verdict(told: tuple[str, ...], right: tuple[str, ...]) -> str:
    if set(told) == set(right):
        return "right"
    return "wrong" if told else "declined"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--each", type=int, default=100, help="pictures of each kind, over all exposures")
    parser.add_argument("--misses", action="store_true", help="what was drawn and told where it is wrong")
    chosen = parser.parse_args()
    print(
        f"{'':12}" + "".join(f"{name:>10}" for name in ("right", "declined", "wrong")), " right by exposure"
    )
    seconds, misses = [], Counter[str]()
    for seed, kind in enumerate(KINDS):
        maker, counts, by_exposure = Maker(seed), Counter[str](), Counter[float]()
        for number in range(chosen.each):
            exposure = EXPOSURES[number % len(EXPOSURES)]
            light, right, region = getattr(maker, kind)()
            jpeg = encoded(light, exposure, maker.rng)
            began = time.perf_counter()
            found = colour.measure(jpeg, [BOX] if region != "picture" else [])
            seconds.append(time.perf_counter() - began)
            told = found.boxes[0] if region == "box" else getattr(found, region)
            counts[verdict(told, right)] += 1
            by_exposure[exposure] += verdict(told, right) == "right"
            if verdict(told, right) == "wrong":
                misses[f"{kind} x{exposure}: {' and '.join(right) or 'mixed'} -> {' and '.join(told)}"] += 1
        row = "".join(f"{counts[name]:10}" for name in ("right", "declined", "wrong"))
        print(f"{kind:12}{row}  " + " ".join(f"x{step}: {by_exposure[step]}" for step in EXPOSURES))
    ordered = sorted(seconds[1:])
    print(
        f"median {ordered[len(ordered) // 2] * 1e3:.1f} ms a picture of {WIDTH} x {HEIGHT}, decoding included"
    )
    if chosen.misses:
        for text, count in misses.most_common():
            print(f"{count:4} {text}")


if __name__ == "__main__":
    main()
