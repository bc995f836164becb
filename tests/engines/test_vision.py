from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from engines.vision import claims, families, load, overlap
from streamsvc.config import Models, See
from streamsvc.errors import ModelMissing, WorkerError

OPTIONS = {"models": str(Models().dir / "models"), **See().model_dump(), "ocr": False}


def shot(path: Path, at: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with av.open(str(path)) as container:
        container.seek(int(at * 1_000_000))
        picture: Any = next(frame for frame in container.decode(video=0) if frame.time >= at)
        buffer = io.BytesIO()
        picture.to_image().save(buffer, "JPEG", quality=85)
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def look() -> Iterator[Any]:
    engine: Any = load(OPTIONS)
    yield lambda jpeg: engine.ops["look"].run([{"jpeg": jpeg}])[0]


def test_a_missing_model_file_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"efficientnet_lite3\.tflite.*streamsvc models pull"):
        load({"models": str(tmp_path)})


def test_a_broken_model_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "efficientnet-lite3"
    folder.mkdir()
    (folder / "efficientnet_lite3.tflite").write_bytes(b"no model")
    (folder / "efficientnet_labels.txt").write_text("tench\n")
    with pytest.raises(ModelMissing, match="broken"):
        load({"models": str(tmp_path)})


def test_kinds_that_are_easily_confused_are_added_up() -> None:
    scores = families({"tabby": 0.3, "Egyptian cat": 0.4, "espresso": 0.2})
    assert scores["cat"] == pytest.approx(0.7)
    assert "tabby" not in scores
    assert scores["espresso"] == 0.2


def test_screens_and_what_the_detector_does_not_see_are_not_claimed() -> None:
    scores = {"web site": 0.9, "ski": 0.8, "espresso": 0.7, "cat": 0.6, "nail": 0.1}
    assert claims(scores, {"cat"}, 0.4) == [("espresso", 0.7), ("cat", 0.6)]


def test_overlap_of_boxes_is_between_none_and_all() -> None:
    assert overlap((0, 0, 1, 1), (0, 0, 1, 1)) == pytest.approx(1.0)
    assert overlap((0, 0, 0.4, 0.4), (0.5, 0.5, 0.4, 0.4)) == 0.0


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize(
    ("at", "tag", "box"),
    [(14, "espresso", "cup"), (34, "cat", "cat"), (46, "rocket", None), (58, "motorcycle", "motorcycle"), (2, None, "person")],
)
def test_photos_are_known(look: Any, media: Path, at: float, tag: str | None, box: str | None) -> None:
    seen = look(shot(media / "scenarios" / "scenes_photos.mp4", at))
    assert seen["tags"][:1] == ([tag] if tag else [])
    assert box is None or box in seen["boxes"]
    assert np.linalg.norm(seen["embedding"]) == pytest.approx(1.0, abs=1e-3)
    assert not seen["blank"]
    assert seen["corners"].shape == (len(seen["boxes"]), 4)


@pytest.mark.models
@pytest.mark.media
def test_a_slide_and_a_black_picture_claim_nothing(look: Any, media: Path) -> None:
    slide = look(shot(media / "scenarios" / "lecture_stone_cutter.mp4", 2))
    black = look(shot(media / "scenarios" / "scenes_photos.mp4", 26))
    assert (slide["tags"], slide["boxes"], slide["blank"]) == ([], [], False)
    assert (black["tags"], black["boxes"], black["blank"]) == ([], [], True)


@pytest.mark.models
def test_a_picture_that_is_none_fails_alone(look: Any) -> None:
    assert isinstance(look(np.frombuffer(b"no picture", np.uint8)), WorkerError)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(buffer, "JPEG")
    assert look(np.frombuffer(buffer.getvalue(), np.uint8))["blank"]
