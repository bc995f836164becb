"""A small ONNX model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save_onnx(path: Path, factor: float = 2.0) -> Path:
    """(n, 3, 4, 4) -> the mean of each channel times a factor, (n, 3)."""
    given = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 4, 4])
    means = helper.make_tensor_value_info("means", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "factor"], ["means"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([2, 3], np.int64), "axes"),
        numpy_helper.from_array(np.array(factor, np.float32), "factor"),
    ]
    graph = helper.make_graph(nodes, "means", [given], [means], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path
