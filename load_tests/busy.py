"""A generated recording with work for every part of the service: a talk, changing pages, a moving picture.

The shared lecture shows each slide for twenty seconds, so reading less of the screen, or fewer keyframes,
saves nothing there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageDraw

from load_tests.screens import font, phrase

SIZE, FPS, RATE = (1280, 720), 10, 16_000
LINES = 7
PAGE, LINE = 12.0, 2.5  # seconds between two pages, and between two changes of a line
INSET = (400, 225)  # pixels


def made(folder: Path, media: Path, seconds: float) -> Path:
    """Write the recording and its truth, with the questions of the lecture; return the path of the truth.

    Args:
        folder: where they go.
        media: the folder of the shared recordings.
        seconds: how long it is.
    """
    talk = media / "scenarios" / "lecture_stone_cutter.mp4"
    truth = json.loads(talk.with_suffix(".json").read_text(encoding="utf-8"))
    with av.open(str(folder / "busy.mp4"), "w") as out:
        picture: Any = out.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "crf": "26", "g": "50"}
        )
        picture.width, picture.height, picture.pix_fmt = *SIZE, "yuv420p"
        sound: Any = out.add_stream("aac", rate=RATE, layout="mono")
        for part in _sound(talk, seconds):
            out.mux(sound.encode(part))
        out.mux(sound.encode(None))
        for number, page in enumerate(pages(media, seconds)):
            frame = av.VideoFrame.from_ndarray(page, format="rgb24")
            frame.pts = number
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
    asked = {
        "file": "busy.mp4",
        "qa": truth["qa"],
        "words": truth["words"],
        "transcript": truth["transcript"],
        "speech": truth["speech"],
    }
    (folder / "busy.json").write_text(json.dumps(asked), encoding="utf-8")
    return folder / "busy.json"


def pages(media: Path, seconds: float) -> Iterator[Any]:
    """uint8 (720, 1280, 3), FPS a second."""
    rng, moving = random.Random(0), _moving(media / "video" / "tears_of_steel_battle.mp4")
    lines: list[str] = []
    for number in range(int(seconds * FPS)):
        if number % int(PAGE * FPS) == 0:
            lines = [phrase(rng, 3, 6) for _ in range(LINES)]
        elif number % int(LINE * FPS) == 0:
            lines[rng.randrange(LINES)] = phrase(rng, 3, 6)
        page = Image.new("RGB", SIZE, (250, 250, 245))
        pen = ImageDraw.Draw(page)
        for row, line in enumerate(lines):
            pen.text((60, 50 + 90 * row), line, (20, 20, 30), font(40))
        page.paste(next(moving), (SIZE[0] - INSET[0] - 20, SIZE[1] - INSET[1] - 20))
        yield np.asarray(page)


def _moving(clip: Path) -> Iterator[Image.Image]:
    while True:
        with av.open(str(clip)) as file:
            for number, frame in enumerate(file.decode(video=0)):
                if number % 2 == 0:
                    yield Image.fromarray(frame.to_ndarray(format="rgb24")).resize(INSET)


def _sound(talk: Path, seconds: float) -> Iterator[av.AudioFrame]:
    resample, samples = av.AudioResampler("fltp", "mono", RATE), 0
    with av.open(str(talk)) as file:
        for frame in file.decode(audio=0):
            for part in resample.resample(frame):
                part.pts, samples = samples, samples + part.samples
                yield part
            if samples >= seconds * RATE:
                return
