"""Pages of known text at known places: the picture, and the text lines that a perfect OCR returns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from streamsvc.core.types import ScreenText, TextLine
from streamsvc.timeline.timeline import Timeline

WIDTH, HEIGHT = 1280, 720  # pixels
Piece = tuple[str, int, int, int]  # text, pixels from the left and the top, size of the letters

INVOICE: list[Piece] = [
    ("INVOICE", 80, 36, 44),
    ("Northwind Traders Ltd", 80, 110, 26),
    ("Invoice No. 10248", 800, 50, 26),
    ("Date: 12 March 2026", 800, 90, 26),
    ("Due date:", 800, 130, 26),
    ("11 April 2026", 1000, 130, 26),
    ("Bill to", 80, 170, 26),
    ("Alice Mutton", 80, 206, 26),
    *(("Item", 80, 280, 26), ("Qty", 560, 280, 26), ("Unit price", 720, 280, 26), ("Amount", 1000, 280, 26)),
    *(("Green tea", 80, 325, 26), ("3", 566, 325, 26), ("4.50", 736, 325, 26), ("13.50", 1010, 325, 26)),
    *(("Chai latte", 80, 365, 26), ("2", 566, 365, 26), ("18.00", 736, 365, 26), ("36.00", 1010, 365, 26)),
    *(("Brown sugar", 80, 405, 26), ("10", 566, 405, 26), ("0.75", 736, 405, 26), ("7.50", 1010, 405, 26)),
    *(("Subtotal", 720, 480, 26), ("57.00", 1010, 480, 26)),
    *(("VAT 19 %", 720, 520, 26), ("10.83", 1010, 520, 26)),
    *(("Total due", 720, 560, 26), ("$67.83", 1000, 560, 26)),
    ("billing@northwind.example", 80, 640, 26),
    ("Phone +44 20 7946 0958", 480, 640, 26),
    ("www.northwind.example", 880, 640, 26),
]
TABLE: list[Piece] = [
    ("Revenue by quarter", 80, 40, 44),
    *(("Quarter", 100, 150, 30), ("2024", 500, 150, 30), ("2025", 800, 150, 30)),
    *(("Q1", 100, 220, 30), ("120", 506, 220, 30), ("140", 806, 220, 30)),
    *(("Q2", 100, 290, 30), ("125", 506, 290, 30), ("155", 806, 290, 30)),
    *(("Q3", 100, 360, 30), ("131", 506, 360, 30), ("162", 806, 360, 30)),
]
TERMINAL: list[Piece] = [
    (text, 40, 40 + 44 * n, 26)
    for n, text in enumerate(
        [
            "user@host:~$ pytest tests/test_api.py",
            "collected 3 items",
            "E AssertionError: expected 200, got 401",
            "1 failed, 2 passed in 0.42s",
            "user@host:~$ git status",
            "On branch main",
            "nothing to commit, working tree clean",
        ]
    )
]
BULLETS: list[Piece] = [
    ("Plan for the spring", 80, 50, 52),
    ("- Hire two engineers", 100, 200, 34),
    ("- Open the office in Lisbon", 100, 280, 34),
    ("- Ship version 2.5", 100, 360, 34),
    ("Slide 3 of 9", 1000, 650, 24),
]


def lines(pieces: Sequence[Piece], score: float = 0.99) -> tuple[TextLine, ...]:
    """The text lines of the page, in reading order."""
    pen = ImageDraw.Draw(Image.new("L", (8, 8)))
    found = []
    for text, x, y, size in pieces:
        left, top, right, bottom = pen.textbbox((x, y), text, ImageFont.load_default(size))
        found.append(
            TextLine(text, score, left / WIDTH, top / HEIGHT, (right - left) / WIDTH, (bottom - top) / HEIGHT)
        )
    return tuple(sorted(found, key=lambda line: (round(line.y + line.h / 2, 2), line.x)))


def picture(pieces: Sequence[Piece], kind: str = "JPEG") -> bytes:
    """The page, dark on white, as an encoded picture."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    for text, x, y, size in pieces:
        pen.text((x, y), text, "black", ImageFont.load_default(size))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def screen(pieces: Sequence[Piece], at: float, title: str | None = None) -> ScreenText:
    """Screen text of the page at session second `at`."""
    return ScreenText("s", "main", at, 0.0, title, lines(pieces), at)


def shown(*pages: Sequence[Piece], every: float = 10.0) -> Timeline:
    """A timeline on which each page is shown for `every` seconds, from second `every` on."""
    line = Timeline()
    for n, pieces in enumerate(pages, 1):
        line.add(screen(pieces, n * every, pieces[0][0] if pieces else None))
    return line


def moved(read: Sequence[TextLine], down: float) -> tuple[TextLine, ...]:
    """The lines still on the screen after scrolling by `down`, a fraction of its height."""
    return tuple(replace(line, y=line.y + down) for line in read if 0 <= line.y + down <= 1 - line.h)


def garbled(text: str, seed: int) -> str:
    """The text with one letter misread, never a digit; deterministic by seed."""
    places = [n for n, letter in enumerate(text) if letter.isalpha()]
    chance = np.random.default_rng(seed)
    place = int(chance.choice(places))
    return (
        text[:place]
        + str(chance.choice([c for c in "aecnuxk" if c != text[place].lower()]))
        + text[place + 1 :]
    )
