"""Exports are valid ONNX, accept any batch up to 32, and match the module, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from engines import export
from engines.export import INPUT, OPSET, OUTPUT, cached, exported, pooled
from streamsvc.core.errors import WorkerError

SIDE = 32
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}


def tower(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "siglip":
        return pooled(SiglipVisionModel(SiglipVisionConfig(**SIZES)))
    return pooled(CLIPVisionModel(CLIPVisionConfig(**SIZES)))


class Tiny(torch.nn.Module):
    """A convolution and a mean."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.filters = torch.nn.Conv2d(3, 8, 3)

    def forward(self, pixels: Any) -> Any:
        return self.filters(pixels).relu().mean((2, 3))


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_a_vision_tower_of_transformers_is_the_same_in_onnx(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "tower.onnx"
    parity = exported(tower(kind), SIDE, target)
    assert parity.worst < 1e-5
    assert (parity.pictures, parity.opset) == (36, OPSET)
    assert [path.name for path in tmp_path.iterdir()] == ["tower.onnx"]
    model = onnx.load(str(target))
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    (given,) = model.graph.input
    assert given.name == INPUT
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim] == [0, 3, SIDE, SIDE], (
        "the first is a name, not a number"
    )
    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 31):
        assert session.run([OUTPUT], {INPUT: np.zeros((batch, 3, SIDE, SIDE), np.float32)})[0].shape == (
            batch,
            32,
        )


def test_a_name_used_inside_the_model_does_not_clash(tmp_path: Path) -> None:
    class Named(Tiny):
        def forward(self, pixels: Any) -> Any:
            embedding = super().forward(pixels)
            return torch.nn.functional.normalize(embedding + embedding.tanh())

    assert exported(Named(), SIDE, tmp_path / "named.onnx").worst < 1e-5


def test_in_half_precision_the_weights_are_of_two_bytes_and_both_ends_of_four(tmp_path: Path) -> None:
    target = tmp_path / "tiny.onnx"
    parity = exported(Tiny(), SIDE, target, half=True)
    assert 1e-6 < parity.worst < 2e-3, "not the float32 module under another name"
    model = onnx.load(str(target))
    assert {weight.data_type for weight in model.graph.initializer if len(weight.dims) == 4} == {
        onnx.TensorProto.FLOAT16
    }
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}


def test_an_export_with_different_results_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, write = Tiny(), torch.onnx.export

    def spoilt(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        with torch.no_grad():
            module.filters.weight[0, 0, 0, 0] += 0.05  # the file is older than the module

    monkeypatch.setattr(torch.onnx, "export", spoilt)
    with pytest.raises(WorkerError, match=r"differs.*largest difference") as caught:
        exported(module, SIDE, tmp_path / "tiny.onnx")
    assert caught.value.code == "onnx_differs"
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_checker_refuses_is_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    exported(Tiny(), SIDE, path)
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "Convolution"  # there is no such operator
    onnx.save(model, str(path))
    with pytest.raises(WorkerError) as caught:
        export._checked(onnx, path)
    assert caught.value.code == "onnx_invalid"


def test_a_file_with_a_fixed_batch_is_not_accepted(tmp_path: Path) -> None:
    path = tmp_path / "fixed.onnx"
    exported(Tiny(), SIDE, path)
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, str(path))
    with pytest.raises(WorkerError):
        export._checked(onnx, path)


def test_a_file_is_exported_once_per_weights_and_removed_for_new_ones(tmp_path: Path) -> None:
    path, words = cached(tmp_path, Tiny(0), SIDE)
    made = path.stat().st_mtime_ns
    assert words.startswith("opset 18, 36 pictures")
    assert cached(tmp_path, Tiny(0), SIDE) == (path, words)
    assert path.stat().st_mtime_ns == made
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    cached(tmp_path, Tiny(0), SIDE)
    assert path.read_bytes() == whole, "a damaged file is exported again"
    other, _ = cached(tmp_path, Tiny(1), SIDE)
    assert other != path
    assert list(tmp_path.iterdir()) == [other.parent]


def test_a_parity_is_shown_in_figures() -> None:
    assert (
        str(export.Parity(1.23e-6, 36, 18))
        == "opset 18, 36 pictures, largest difference 1.2e-06 of the largest value"
    )
