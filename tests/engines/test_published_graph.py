"""What is cut out of a published graph, and written as ONNX, computes what the graph computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
import pytest
import torch
from openvino import opset13 as ops

from engines.encoder import Source, onnxruntime
from engines.export import INPUT, OUTPUT
from engines.published_graph import cut, head, save_onnx
from streamsvc.core.errors import WorkerError

SIDE, WIDTH, CLASSES = 9, 4, 5
LEVELS = 65536  # so many that the rounding, which ONNX leaves out, is not seen
random = np.random.default_rng(3)
FIRST = random.integers(-127, 128, (WIDTH, 3, 3, 3)).astype(np.int8)
SECOND = random.integers(-127, 128, (WIDTH, 1, 1, 3, 3)).astype(np.int8)
BIAS = random.standard_normal((1, WIDTH, 1, 1)).astype(np.float32)
DENSE = random.integers(-127, 128, (CLASSES, WIDTH)).astype(np.int8)
LAST = random.standard_normal(CLASSES).astype(np.float32)
SCALE = np.float32(0.01)


def dequantised(weights: Any) -> Any:
    return ops.multiply(ops.convert(ops.constant(weights), np.float32), ops.constant(SCALE))


def quantised(node: Any, *limits: float) -> Any:
    return ops.fake_quantize(node, *(np.float32(limit) for limit in limits), LEVELS)


def classifier(*, pooling: str = "avg", odd: bool = False, pads: int = 0) -> Any:
    """A graph as OpenVINO reads one from TFLite: bytes, channels last, weights of 8 bits."""
    given = ops.parameter([1, SIDE, SIDE, 3], np.uint8)
    pixels = ops.convert(ops.transpose(given, np.array([0, 3, 1, 2])), np.float32)
    node = quantised(pixels, 0.0, 255.0, -1.5, 1.5)
    two, one = [2, 2], [1, 1]
    node = ops.convolution(node, dequantised(FIRST), two, [0, 0], [0, 0], one, auto_pad="same_upper")
    node = ops.clamp(ops.add(node, ops.constant(BIAS)), 0.0, 6.0)
    node = quantised(node, 0.0, 6.0, 0.0, 6.0)
    node = ops.group_convolution(node, dequantised(SECOND), one, one, one, one)
    node = ops.add(node, quantised(node, -50.0, 50.0, -50.0, 50.0))
    if odd:
        node = ops.tanh(node)
    if pooling == "avg":
        node = ops.avg_pool(node, one, [pads, pads], [pads, pads], [5 + 2 * pads] * 2, True)
    features = ops.reshape(node, np.array([1, -1]), special_zero=False)
    if pooling != "avg":
        return openvino.Model([features], [given])
    logits = ops.add(ops.matmul(features, dequantised(DENSE), False, True), ops.constant(LAST))
    return openvino.Model([ops.softmax(logits, 1)], [given])


def expected(pixels: Any) -> Any:
    """The features by torch."""
    functional = torch.nn.functional
    given = torch.from_numpy(pixels) / 255 * 3 - 1.5
    padded = functional.pad(given, (1, 1, 1, 1))  # 9 -> 5 by steps of 2: the same on both sides
    first = functional.conv2d(padded, torch.from_numpy(FIRST.astype(np.float32) * SCALE), stride=2)
    clipped = (first + torch.from_numpy(BIAS)).clamp(0, 6)
    weights = torch.from_numpy(SECOND.reshape(WIDTH, 1, 3, 3).astype(np.float32) * SCALE)
    return (functional.conv2d(clipped, weights, padding=1, groups=WIDTH) * 2).mean((2, 3)).numpy()


@pytest.fixture
def pixels() -> Any:
    return np.random.default_rng(4).integers(0, 256, (3, 3, SIDE, SIDE)).astype(np.float32)


def test_the_cut_graph_takes_batches_of_pixels_and_gives_features(pixels: Any) -> None:
    graph = classifier()
    cut(graph)
    (made,) = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({0: pixels}).values()
    np.testing.assert_allclose(made, expected(pixels), atol=2e-3)


def test_the_onnx_file_computes_what_the_graph_does(tmp_path: Path, pixels: Any) -> None:
    graph = classifier()
    cut(graph)
    save_onnx(graph, tmp_path / "model.onnx")
    made = onnxruntime(Source(tmp_path / "model.onnx", SIDE))(pixels)
    np.testing.assert_allclose(made, expected(pixels), atol=2e-4)
    model = onnx.load(str(tmp_path / "model.onnx"))
    (given,), (output,) = model.graph.input, model.graph.output
    assert (given.name, output.name) == (INPUT, OUTPUT)
    assert given.type.tensor_type.shape.dim[0].dim_param == "n"


def test_the_last_layer_is_that_of_the_classes() -> None:
    weights, biases = head(classifier())
    np.testing.assert_allclose(weights, DENSE * SCALE, rtol=1e-6)
    np.testing.assert_allclose(biases, LAST)


def test_graphs_of_another_kind_are_refused(tmp_path: Path) -> None:
    for graph in (classifier(odd=True), classifier(pads=1)):
        cut(graph)
        with pytest.raises(WorkerError) as caught:
            save_onnx(graph, tmp_path / "model.onnx")
        assert caught.value.code == "graph_unknown"
    for work in (cut, head):
        with pytest.raises(WorkerError) as caught:
            work(classifier(pooling="none"))
        assert caught.value.code == "graph_unknown"
    assert not (tmp_path / "model.onnx").exists()
