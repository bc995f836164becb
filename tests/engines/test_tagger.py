"""The real tagger through the encoder: the same tags and vectors in every runtime, and as published."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import encoder, tagger, vision
from engines.encoder import Choice, Source
from engines.tagger import Tagger, merge_families
from streamsvc.core.config import Models, See
from streamsvc.core.errors import ModelMissing, WorkerError

FOLDER = Models().dir / "models" / See().tagger
FIXTURES = Path(__file__).parents[1] / "fixtures"
PHOTOS = {"cat": "canary_cat.jpg", "espresso": "canary_coffee.jpg"}


def photo(name: str) -> Image.Image:
    with Image.open(FIXTURES / PHOTOS[name]) as opened:
        return opened.convert("RGB")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The model with what was made of it, in a place of its own."""
    return Path(shutil.copytree(FOLDER, tmp_path / FOLDER.name))


@pytest.fixture(scope="module")
def known() -> Tagger:
    return Tagger(FOLDER)


def test_kinds_that_are_easily_confused_are_added_up() -> None:
    scores = merge_families({"tabby": 0.3, "Egyptian cat": 0.4, "espresso": 0.2})
    assert scores["cat"] == pytest.approx(0.7)
    assert "tabby" not in scores
    assert scores["espresso"] == 0.2


@pytest.mark.models
@pytest.mark.timeout(400)
def test_photos_have_their_names_and_vectors_of_unit_length(known: Tagger) -> None:
    for name in PHOTOS:
        scores, embedding = known.tags(photo(name))
        assert max(scores, key=lambda label: scores[label]) == name
        assert scores[name] > 0.5
        assert embedding.shape == (1280,)
        assert embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.models
@pytest.mark.timeout(400)
@pytest.mark.parametrize("runtime", ["openvino int8", "openvino", "onnxruntime"])
def test_each_runtime_gives_the_vectors_of_onnx_runtime(
    known: Tagger, folder: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    source = tagger.source_of(folder / tagger.MODEL)
    monkeypatch.setattr(
        encoder, "measured", lambda source: pytest.fail("the file beside it says what serves")
    )
    monkeypatch.setattr(encoder, "stored", lambda source: Choice(runtime))
    with_it = Tagger(folder)
    assert with_it.encoder.choice.runtime == runtime
    views = np.stack([np.asarray(photo(name).resize((tagger.SIDE, tagger.SIDE))) for name in PHOTOS])
    pixels = views.transpose(0, 3, 1, 2)
    expected = encoder.onnxruntime(source)(np.ascontiguousarray(pixels, np.float32))
    made = with_it.encoder.encode(pixels)
    assert encoder.cosine(made, expected) >= encoder.MIN_COSINE
    assert encoder.cosine(made, expected[::-1]) < 0.9, "another picture's would show"
    for name in PHOTOS:
        scores = with_it.tags(photo(name))[0]
        assert max(scores, key=lambda label: scores[label]) == name


@pytest.mark.models
@pytest.mark.timeout(400)
def test_wrong_numbers_of_a_runtime_never_reach_a_look(
    known: Tagger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(source: Source) -> encoder.Encode:
        right = encoder.openvino_int8(source)
        return lambda pixels: right(pixels)[:, ::-1].copy()

    next(folder.glob("onnx-*/*.runtime.json")).unlink()
    monkeypatch.setattr(encoder, "TRIALS", 1)
    monkeypatch.setattr(encoder, "RUNTIMES", {"fast": wrong, "openvino int8": encoder.openvino_int8})
    served = Tagger(folder)
    assert str(served.encoder.choice).startswith("openvino int8; fast refused: cosine ")
    detector: Any = SimpleNamespace(boxes=lambda picture: [("cat", 0.5, (0.0, 0.0, 1.0, 1.0))])
    jpeg = np.frombuffer((FIXTURES / PHOTOS["cat"]).read_bytes(), np.uint8)
    (seen,) = vision.Recognizer(served, detector, 0.4, 0.4).look([{"jpeg": jpeg}])
    assert isinstance(seen, dict)
    assert seen["tags"][0] == "cat"
    picture = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
    right = known.tags(picture)[1]
    # Of the same runtime to the last bit or so; `right` may be of another one, by the processor.
    assert float(served.tags(picture)[1] @ seen["embedding"]) == pytest.approx(1.0, abs=1e-4)
    assert float(right @ seen["embedding"]) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.models
@pytest.mark.timeout(400)
@pytest.mark.parametrize("harm", ["no onnx", "differs"])
def test_where_no_onnx_file_can_be_made_the_published_graph_serves_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    for made in folder.glob("onnx-*"):
        shutil.rmtree(made)
    if harm == "no onnx":

        def missing(graph: object, target: Path) -> None:
            raise ModelMissing("writing ONNX files needs the package onnx", code="no_onnx")

        monkeypatch.setattr(tagger, "save_onnx", missing)
    else:
        monkeypatch.setattr(encoder, "onnxruntime", lambda source: lambda pixels: np.ones((8, 1280)) * -1.0)
    with_it = Tagger(folder)
    code = {"no onnx": "no_onnx", "differs": "onnx_differs"}[harm]
    assert str(with_it.encoder.choice) == f"openvino int8; others refused: {code}"
    scores, _ = with_it.tags(photo("cat"))
    assert max(scores, key=lambda label: scores[label]) == "cat"
    assert not list(folder.glob("onnx-*"))


@pytest.mark.models
@pytest.mark.timeout(400)
def test_a_start_after_the_first_measures_and_builds_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Tagger(folder).encoder.choice
    monkeypatch.setattr(encoder, "measured", lambda source: pytest.fail("it was measured before"))
    monkeypatch.setattr(tagger, "save_onnx", lambda graph, target: pytest.fail("it was made before"))
    assert Tagger(folder).encoder.choice == before == tagger.choice_of(folder.parent, folder.name)


def test_what_serves_is_not_known_before_it_is_measured(tmp_path: Path) -> None:
    assert tagger.choice_of(tmp_path, "efficientnet-lite3") is None
    (tmp_path / "efficientnet-lite3").mkdir()
    (tmp_path / "efficientnet-lite3" / tagger.MODEL).write_bytes(b"not made yet")
    assert tagger.choice_of(tmp_path, "efficientnet-lite3") is None


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    (tmp_path / tagger.MODEL).write_bytes(b"model")
    with pytest.raises(ModelMissing, match=tagger.LABELS):
        Tagger(tmp_path)


@pytest.mark.models
@pytest.mark.timeout(400)
def test_another_number_of_labels_is_refused(folder: Path) -> None:
    (folder / tagger.LABELS).write_text("tench\n")
    with pytest.raises((ModelMissing, WorkerError), match="not the expected tagger"):
        Tagger(folder)
