from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines.clip import Match
from engines.vision import Recognizer, join_tags, load, overlap, select_tags
from streamsvc.core.config import Models, See
from streamsvc.core.errors import ModelMissing, WorkerError
from tests.builders.clips import shot

OPTIONS = {"models": str(Models().dir / "models"), **See().model_dump(), "ocr": False}


@pytest.fixture(scope="module")
def look() -> Iterator[Any]:
    engine: Any = load(OPTIONS)
    assert engine.describe["runtime"].startswith(f"{See().tagger}: ")
    yield lambda jpeg: engine.ops["look"].run([{"jpeg": jpeg}])[0]


def test_a_missing_model_file_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"efficientnet_lite3\.tflite.*streamsvc models pull"):
        load({"models": str(tmp_path)})


@pytest.mark.models
@pytest.mark.parametrize("name", ["efficientnet-lite3", "ssd-mobilenet-v2-coco"])
def test_weights_that_are_not_the_registry_s_are_never_loaded(tmp_path: Path, name: str) -> None:
    for model in (See().tagger, See().detector):
        shutil.copytree(Models().dir / "models" / model, tmp_path / model)
    (weights,) = (*(tmp_path / name).glob("*.pb"), *(tmp_path / name).glob("*.tflite"))
    whole = weights.read_bytes()
    weights.write_bytes(bytes((whole[0] ^ 1,)) + whole[1:])  # one bit
    with pytest.raises(ModelMissing, match=f"{weights.name}: broken .its sha256 is not the registry's"):
        load({**OPTIONS, "models": str(tmp_path)})


def test_a_broken_model_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "efficientnet-lite3"
    folder.mkdir()
    (folder / "efficientnet_lite3.tflite").write_bytes(b"no model")
    (folder / "efficientnet_labels.txt").write_text("tench\n")
    with pytest.raises(ModelMissing, match="broken"):
        load({"models": str(tmp_path)})


def test_screens_and_what_the_detector_does_not_see_are_not_claimed() -> None:
    scores = {"web site": 0.9, "ski": 0.8, "espresso": 0.7, "cat": 0.6, "nail": 0.1}
    assert select_tags(scores, {"cat"}, 0.4) == [("espresso", 0.7), ("cat", 0.6)]


class FakeModels:
    """Fakes: tagger and detector always find a cup; the matcher's vector is the mean colour."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def tags(self, picture: Any) -> Any:
        return {"cup": 0.6, "sea": 0.2}, np.ones(4, np.float32) / 2

    def boxes(self, picture: Any) -> Any:
        return [("cup", 0.9, (0.1, 0.2, 0.3, 0.4))]

    def look(self, pictures: list[Any]) -> list[Match]:
        self.batches.append(len(pictures))
        return [
            Match(np.asarray(picture, np.float32).mean(axis=(0, 1)), (("red", 0.9), ("cup", 0.5)))
            for picture in pictures
        ]


def png(colour: tuple[int, int, int], striped: bool = True) -> Any:
    picture = Image.new("RGB", (64, 36), colour)
    if striped:
        picture.paste((0, 0, 0), (0, 0, 32, 36))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def test_each_picture_of_a_batch_gets_its_own_vector_and_the_tags_of_both_models() -> None:
    models: Any = FakeModels()
    recognizer = Recognizer(models, models, 0.4, 0.4, models)
    jpegs = [png((200, 0, 0)), np.zeros(9, np.uint8), png((0, 0, 0), striped=False), png((0, 0, 200))]
    red, bad, blank, blue = recognizer.look([{"jpeg": jpeg} for jpeg in jpegs])
    assert (
        isinstance(red, dict)
        and isinstance(blue, dict)
        and isinstance(blank, dict)
        and isinstance(bad, WorkerError)
    )
    assert (red["clip"].tolist(), blue["clip"].tolist()) == ([100.0, 0.0, 0.0], [0.0, 0.0, 100.0])
    assert (red["tags"], red["tag_scores"]) == (["red", "cup"], [0.9, 0.6])
    assert (blank["tags"], "clip" in blank) == ([], False)
    assert models.batches == [2]


def test_without_a_vision_text_model_there_is_no_clip_vector() -> None:
    models: Any = FakeModels()
    (seen,) = Recognizer(models, models, 0.4, 0.4).look([{"jpeg": png((200, 0, 0))}])
    assert isinstance(seen, dict)
    assert ("clip" in seen, seen["tags"]) == (False, ["cup"])


def test_a_tag_of_both_models_has_the_higher_score() -> None:
    assert join_tags([("cup", 0.6), ("sea", 0.5)], [("cup", 0.8), ("red", 0.55)]) == [
        ("cup", 0.8),
        ("red", 0.55),
        ("sea", 0.5),
    ]


def test_overlap_of_boxes_is_between_none_and_all() -> None:
    assert overlap((0, 0, 1, 1), (0, 0, 1, 1)) == pytest.approx(1.0)
    assert overlap((0, 0, 0.4, 0.4), (0.5, 0.5, 0.4, 0.4)) == 0.0


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize(
    ("at", "tag", "box"),
    [
        (14, "espresso", "cup"),
        (34, "cat", "cat"),
        (46, "rocket", None),
        (58, "motorcycle", "motorcycle"),
        (2, None, "person"),
    ],
)
def test_photos_are_recognised(look: Any, media: Path, at: float, tag: str | None, box: str | None) -> None:
    seen = look(shot(media / "scenarios" / "scenes_photos.mp4", at))
    assert seen["tags"][:1] == ([tag] if tag else [])
    assert box is None or box in seen["boxes"]
    assert np.linalg.norm(seen["embedding"]) == pytest.approx(1.0, abs=1e-3)
    assert not seen["blank"]
    assert seen["corners"].shape == (len(seen["boxes"]), 4)


@pytest.mark.models
@pytest.mark.media
def test_a_slide_and_a_black_picture_have_no_tags_and_no_boxes(look: Any, media: Path) -> None:
    slide = look(shot(media / "scenarios" / "lecture_stone_cutter.mp4", 2))
    black = look(shot(media / "scenarios" / "scenes_photos.mp4", 26))
    assert (slide["tags"], slide["boxes"], slide["blank"]) == ([], [], False)
    assert (black["tags"], black["boxes"], black["blank"]) == ([], [], True)


@pytest.mark.models
def test_an_unreadable_picture_fails_alone(look: Any) -> None:
    assert isinstance(look(np.frombuffer(b"no picture", np.uint8)), WorkerError)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(buffer, "JPEG")
    assert look(np.frombuffer(buffer.getvalue(), np.uint8))["blank"]


@pytest.mark.models
def test_with_a_vision_text_model_the_see_worker_looks_and_embeds_texts(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the towers need the extra `gpu`")
    from tests.engines.tiny_clip import picture, save
    from tests.engines.tiny_clip import png as lossless

    for name in (See().tagger, See().detector):
        (tmp_path / name).symlink_to(Models().dir / "models" / name)
    save("clip", tmp_path / "tiny")
    engine: Any = load({**OPTIONS, "models": str(tmp_path), "clip": "tiny"})
    (seen,), (embedded,) = (
        engine.ops["look"].run([{"jpeg": lossless(picture(1))}]),
        engine.ops["texts"].run([{"texts": ["a dog", "a map"]}]),
    )
    assert (embedded["vectors"] @ seen["clip"]).shape == (2,)
    assert engine.describe["clip"].startswith("tiny (")
    assert engine.describe["runtime"].endswith(engine.describe["clip"])
    assert engine.ops["look"].batch == 1
