"""Tiny random towers of the real classes, compared with the whole model's forward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the towers need the extra `gpu`")

from engines import clip, encoder  # noqa: E402
from engines.clip import REFERENCE_TEXTS, Matcher, Towers  # noqa: E402
from streamsvc.core.errors import ModelMissing  # noqa: E402
from tests.engines.tiny_clip import picture, save, whole  # noqa: E402

LABELS = ["cat", "dog", "car"]
TOLD = ["a red car", "a dog"]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = save(request.param, tmp_path_factory.mktemp("models") / request.param)
    (place.parent / "labels.txt").write_text("\n".join([*LABELS, "", "cat"]))
    return place


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Fixes the runtime, which is else chosen by its speed: OpenVINO may compute in bfloat16."""

    def fix(runtime: str) -> None:
        monkeypatch.setattr(encoder, "stored", lambda source: encoder.Choice(runtime))

    return fix


def matcher(folder: Path, **options: Any) -> Matcher:
    labels = folder.parent / "labels.txt"
    return Matcher(
        {
            "models": str(folder.parent),
            "clip": folder.name,
            "labels": str(labels),
            "tag_threshold": 0.0,
            **options,
        }
    )


def wanted(folder: Path, shown: Any) -> list[float]:
    """The probability of each label by the whole model's logits."""
    logits = whole(folder, [clip.PROMPT.format(label) for label in LABELS], shown).astype(np.float64)
    if folder.name == "siglip":
        return list((1 / (1 + np.exp(-logits))).tolist())
    powers = np.exp(logits)
    return list(
        (
            powers
            / (powers.sum() + np.exp(whole(folder, list(REFERENCE_TEXTS), shown).astype(np.float64)).sum())
        ).tolist()
    )


def test_tags_are_the_whole_models_own_probabilities_and_those_of_no_other_label_or_picture(
    folder: Path, by: Any
) -> None:
    by("onnxruntime")
    matches = matcher(folder).look([picture(1), picture(2)])
    for match, shown, other in zip(matches, (picture(1), picture(2)), (picture(2), picture(1)), strict=True):
        right = wanted(folder, shown)
        told = dict(match.tags)
        assert [told[label] for label in LABELS] == pytest.approx(right, rel=1e-4)
        assert [told[label] for label in LABELS[1:] + LABELS[:1]] != pytest.approx(right, rel=1e-3), (
            "labels shifted by one would show"
        )
        assert [told[label] for label in LABELS] != pytest.approx(wanted(folder, other), rel=1e-3), (
            "swapped pictures would show"
        )
        assert [score for _, score in match.tags] == sorted(told.values(), reverse=True)


def test_a_text_stands_out_by_so_many_deviations_as_the_whole_models_cosines_say(
    folder: Path, by: Any
) -> None:
    by("onnxruntime")
    made = matcher(folder)
    matches = made.look([picture(1), picture(2)])
    found = np.array([made.texts(TOLD) @ match.vector for match in matches])
    for row, other, shown in zip(found, found[::-1], (picture(1), picture(2)), strict=True):
        low, middle, high = np.quantile(whole(folder, list(REFERENCE_TEXTS), shown), (0.25, 0.5, 0.75))
        right = (whole(folder, TOLD, shown) - middle) / (
            (high - low) / 1.349
        )  # logits are cosines but for a factor and an addend
        assert row == pytest.approx(right, abs=2e-3)
        assert other != pytest.approx(right, abs=2e-2), "swapped pictures would show"
        assert row[::-1] != pytest.approx(right, abs=2e-2), "and swapped texts"


@pytest.mark.parametrize(("runtime", "least"), [("onnxruntime", 1 - 1e-6), ("openvino", encoder.MIN_COSINE)])
def test_the_compiled_tower_gives_the_vectors_of_torch(
    folder: Path, by: Any, runtime: str, least: float
) -> None:
    by(runtime)
    compiled, plain = (
        Towers(folder, "cpu"),
        Towers(folder, "cpu:0"),
    )  # "cpu:0" is the same device by a name that is not compiled for
    assert (compiled.runtime, plain.runtime) == (runtime, "torch, cpu:0")
    shown = [picture(seed) for seed in range(5)]
    one, other = compiled.pictures(shown), plain.pictures(shown)
    assert encoder.cosine(one, other) >= least
    assert encoder.cosine(one, np.roll(other, 1, axis=0)) < encoder.cosine(one, other) - 1e-4
    if runtime == "onnxruntime":
        assert np.abs(one - other).max() < 1e-4


def test_the_runtime_is_chosen_as_for_the_other_vision_models(folder: Path) -> None:
    assert matcher(folder).describe in (f"{folder.name} (onnxruntime)", f"{folder.name} (openvino)")
    assert [path.name for path in folder.glob("onnx-*/model.runtime.json")] == ["model.runtime.json"]


def test_a_batch_changes_no_vector_and_none_of_nothing_is_asked(folder: Path, by: Any) -> None:
    by("onnxruntime")
    made = matcher(folder)
    together, alone = (
        made.look([picture(1), picture(2)]),
        [*made.look([picture(1)]), *made.look([picture(2)])],
    )
    for one, other in zip(together, alone, strict=True):
        assert one.vector == pytest.approx(other.vector, abs=2e-3)
    assert made.look([]) == []


def test_a_vector_fits_into_sixteen_bits(folder: Path, by: Any) -> None:
    by("onnxruntime")
    made = matcher(folder)
    (match,) = made.look([picture(1)])
    exact, short = (
        made.texts(TOLD) @ match.vector,
        made.texts(TOLD).astype(np.float16) @ match.vector.astype(np.float16),
    )
    assert short.astype(np.float32) == pytest.approx(exact, abs=0.1)


def test_a_label_is_not_its_own_rival_and_the_threshold_applies(folder: Path, by: Any) -> None:
    by("onnxruntime")
    own = folder.parent / "own.txt"
    own.write_text("Kitchen\nmap\n")
    assert len(matcher(folder, labels=str(own))._rivals) == len(REFERENCE_TEXTS) - 2
    assert matcher(folder, tag_threshold=1.0).look([picture(1)])[0].tags == ()
    assert matcher(folder, labels=None).look([picture(1)])[0].tags == ()


def test_the_texts_of_a_start_are_embedded_once_for_a_model_and_its_labels(
    folder: Path, by: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    by("onnxruntime")
    before = matcher(folder).look([picture(1)])[0]
    asked: list[Any] = []

    def odd(model: Any, tokenizer: Any, texts: Any) -> Any:
        asked.append(texts)
        return torch.ones(len(texts), 4)

    monkeypatch.setattr(clip, "text_features", odd)
    assert matcher(folder).look([picture(1)])[0].tags == before.tags
    assert asked == []
    with pytest.raises(ValueError):  # other labels: they are asked for, and the stand-in's vectors do not fit
        matcher(folder, labels=str(_file(tmp_path, "red\n"))).look([picture(1)])
    assert clip.PROMPT.format("red") in asked[-1]


def _file(folder: Path, text: str) -> Path:
    (folder / "own.txt").write_text(text)
    return folder / "own.txt"


def test_missing_or_unsuitable_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="absent"):
        Matcher({"models": str(tmp_path), "clip": "absent"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelMissing, match="neither CLIP nor SigLIP"):
        Matcher({"models": str(tmp_path), "clip": "other"})
    for name in ("absent", "../absent"):
        with pytest.raises(ModelMissing, match="adapter"):
            matcher(folder, clip_adapter=name)
    for labels in (tmp_path / "absent.txt", _file(tmp_path, "\n\n")):
        with pytest.raises(ModelMissing, match=labels.name):
            matcher(folder, labels=str(labels))


def test_the_tower_can_be_built_ahead(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clip", str(folder.parent), folder.name])
    clip.main()
    assert capsys.readouterr().out.startswith(f"{folder.name}: o")
    assert list(folder.glob("onnx-*/model.onnx"))
