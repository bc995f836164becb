"""Scenarios of `load_tests.publishers`: TOML files, and the media that they name."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field, ValidationError

from load_tests import tone_engine
from load_tests.rtp_media import Form, Recording, recording
from load_tests.tone_engine import write_wav
from streamsvc.core.media_config import Group
from streamsvc.core.plain_errors import plain_errors
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import ascending, truth_of
from streamsvc.evaluation.recordings import read as read_samples
from streamsvc.evaluation.score_captions import Reference, norm
from tests.fakes.udp_relay import Link

# The 4G link: 40 ms and up to 25 more each way, bursts that come late together but in order, 6 Mb/s up, a few
# packets lost; as an uplink in a town at a good hour.
LINKS: Mapping[str, Link] = {
    "clean": Link(),
    "loss": Link(loss=0.05),
    "jitter": Link(jitter=0.05),
    "4g": Link(loss=0.005, delay=0.04, jitter=0.025, ordered=True, rate=750_000.0),
}
TAIL = 1.5  # seconds of silence after the last word, so that it settles
SLIDE = 6.0  # seconds of each slide of the pictures made here
RATE = 15  # pictures a second of the slides made here
_LINES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


class Media(Group):
    """What all publishers of a scenario send."""

    speech: Path | None = None  # with known words and their ends; None: tones (profile ingest)
    video: Path | None = None  # None: slides made here
    pictures: bool = True  # False: audio alone
    codec: Literal["vp8", "h264"] = "vp8"
    width: int = Field(1280, ge=16)
    height: int = Field(720, ge=16)
    fps: int = Field(30, ge=1)
    kbps: int = Field(1500, ge=50)


class Scenario(Group):
    """One load test: publishers by steps of `ramp`, each for `seconds`."""

    name: str
    profile: Literal["ingest", "all"]  # ingest: engines without models; all: the real ones
    ramp: tuple[int, ...] = Field(min_length=1)  # publishers at once, step by step
    seconds: float = Field(20.0, gt=5)  # of each step
    link: Literal["clean", "loss", "jitter", "4g"] = "clean"
    seed: int = 1  # of the link
    subscribers: int = Field(1, ge=1, le=500)  # of the first session; the others have one
    budget: float = Field(
        1.4, gt=0
    )  # seconds, p95 from a word's last sample at the sender to its stable caption
    coverage: float = Field(0.99, gt=0, le=1)  # of the words
    offers: int = Field(0, ge=0, le=100)  # to the full service, in the last step: how soon they are refused
    admission: bool = False  # whether the service may refuse publishers by load
    ladder: bool = True  # whether the service may lower its fidelity, as it does in use
    server_cpus: tuple[int, ...] = ()  # cores that the service is held to; (): all
    sender_cpus: tuple[int, ...] = ()  # the same of the publishers and subscribers
    media: Media = Media()


@dataclass(frozen=True, slots=True)
class Played:
    """What publishers send, and what is known of it. changes: media seconds of new pictures."""

    media: Recording
    reference: Reference
    changes: tuple[float, ...]


def read(path: Path) -> Scenario:
    """A scenario; its files are found from its own folder. Raises SystemExit: what is wrong with it."""
    try:
        scenario = Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise SystemExit(f"{path} is no TOML: {error}") from None
    except ValidationError as error:
        raise SystemExit(f"{path}: {plain_errors(error.errors(), Scenario, 'the scenario')}") from None
    if scenario.profile == "all" and scenario.media.speech is None:
        raise SystemExit(f"{path}: profile all needs media.speech, a recording with known words")
    found = {
        name: (path.parent / file).resolve()
        for name in ("speech", "video")
        if (file := getattr(scenario.media, name)) is not None
    }
    for name, file in found.items():
        if not file.exists():
            raise SystemExit(f"{path}: media.{name} {file} does not exist")
    return scenario.model_copy(update={"media": scenario.media.model_copy(update=found)})


def played(scenario: Scenario, folder: Path) -> Played:
    """The media of a scenario, encoded in `folder`, or read from there."""
    media, seconds = scenario.media, scenario.seconds
    folder.mkdir(parents=True, exist_ok=True)
    speech, video = media.speech, media.video
    if speech is None:
        words = tone_engine.script(seconds)
        reference = Reference(tuple(word for word, _, _ in words), tuple(end for _, _, end in words))
        speech = tone_engine.write(folder / f"tones_{seconds:g}.wav", seconds)
    else:
        reference, speech = _cut(speech, seconds, folder)
    changes: tuple[float, ...] = ()
    if media.pictures and video is None:
        changes = tuple(np.arange(SLIDE, seconds, SLIDE).tolist())
        video = folder / f"slides_{media.width}x{media.height}_{seconds:g}.mkv"
        if not video.exists():
            draw_slides(video, (media.width, media.height), (0.0, *changes), seconds)
    elif video is not None:
        changes = _changes(video, seconds)
    form = Form(media.codec, media.width, media.height, media.fps, media.kbps) if media.pictures else None
    made = recording(folder, seconds=seconds, video=video, audio=speech, form=form)
    return Played(made, reference, changes)


def known(speech: Path, until: float) -> Reference:
    """The words of a recording that end by `until` seconds. Raises SystemExit: their ends are not known."""
    beside = speech.with_suffix(".json")
    if beside.exists():
        words = json.loads(beside.read_text(encoding="utf-8"))["words"]
        timed = [(word, float(item["end"])) for item in words for word in norm(item["w"])]
        all_words, ends = tuple(word for word, _ in timed), ascending([end for _, end in timed])
    else:
        truth = truth_of(speech)
        if truth is None or truth.ends is None:
            raise SystemExit(f"{speech}: the ends of its words are not known")
        all_words, ends = truth.words, truth.ends
    count = sum(end <= until for end in ends)
    return Reference(all_words[:count], ends[:count])


def _cut(speech: Path, seconds: float, folder: Path) -> tuple[Reference, Path]:
    """The words that fit with TAIL seconds behind them, and a recording that falls silent after them."""
    every = known(speech, float("inf"))
    reference = known(speech, seconds - TAIL)
    if not reference.ends:
        raise SystemExit(f"{speech}: nobody speaks in its first {seconds - TAIL:g} s")
    end = reference.ends[-1]
    following = every.ends[len(reference.ends) :][:1]
    until = end + min([0.15, *(max(0.0, (later - end) / 2) for later in following)])
    samples = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    spoken = read_samples(speech, until)[: len(samples)]
    samples[: len(spoken)] = spoken
    to = folder / f"{speech.stem}_{seconds:g}.wav"
    write_wav(to, samples)
    return reference, to


def _changes(video: Path, seconds: float) -> tuple[float, ...]:
    beside = video.with_suffix(".json")
    if not beside.exists():
        return ()
    intervals = json.loads(beside.read_text(encoding="utf-8")).get("intervals") or ()
    return tuple(one["start"] for one in intervals if 0 < one["start"] < seconds - 2.0)


def draw_slides(to: Path, size: tuple[int, int], starts: Sequence[float], seconds: float) -> None:
    """Write slides of some lines of text, each from its start on, with a small noisy picture in a corner.

    The corner is as restless as a camera, so that the encoder spends its bits, and too small for a keyframe.
    """
    with av.open(str(to), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        drawn = [np.asarray(_slide(number + 1, size)) for number in range(len(starts))]
        for number in range(round(seconds * RATE)):
            pixels = drawn[sum(start <= number / RATE for start in starts) - 1].copy()
            corner = pixels[-size[1] // 6 :, -size[0] // 6 :]
            corner[:] = np.random.default_rng(number).integers(0, 255, corner.shape)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _slide(number: int, size: tuple[int, int]) -> Image.Image:
    draw = np.random.default_rng(number)
    picture = Image.new("RGB", size, tuple(int(part) for part in draw.integers(150, 255, 3)))
    pen = ImageDraw.Draw(picture)
    for line in range(4):
        text = " ".join(_LINES[int(place)] for place in draw.integers(0, len(_LINES), 5))
        font = ImageFont.load_default(size[1] // 14)
        pen.text((size[0] // 12, size[1] * (2 * line + 1) // 9), text, fill="black", font=font)
    return picture
