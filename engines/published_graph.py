"""A published classifier cut at its pooled features: as an OpenVINO graph in 8 bits, and as ONNX in float32.

The tagger is published as a quantised TFLite file, which only OpenVINO reads. What the other runtimes run is
made here: weights as float32, without the rounding of activations. Both take RGB pixels from 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.export import INPUT, OPSET, OUTPUT
from streamsvc.core.errors import ModelMissing, WorkerError

Values = dict[str, NDArray[np.float32]]  # by name of the op
Head = tuple[NDArray[np.float32], NDArray[np.float32]]  # weights (classes, d) and biases (classes,)


def cut(graph: Any) -> None:
    """Make of a classifier its encoder, in place: float32 (n, 3, side, side) -> (n, d), without its classes.

    Raises:
        WorkerError: code "graph_unknown": not uint8 (1, side, side, 3) -> ... -> average pooling -> classes.
    """
    from openvino import opset13 as opset

    ops = {op.get_type_name(): op for op in reversed(graph.get_ordered_ops())}  # the first op of each type
    (given,) = graph.get_parameters()
    shape = tuple(given.get_output_shape(0))
    if len(shape) != 4 or shape[3] != 3 or not {"Transpose", "Convert", "AvgPool"} <= ops.keys():
        raise WorkerError(f"the graph is no known classifier: {shape}", code="graph_unknown")
    pixels = opset.parameter([-1, 3, *shape[1:3]], np.float32, name=INPUT)
    ops["Convert"].output(0).replace(pixels.output(0))  # of pictures in bytes, channels last
    pooled = opset.squeeze(ops["AvgPool"], np.array([2, 3], np.int64))
    for result in graph.get_results():
        graph.remove_result(result)
    graph.add_parameters([pixels])
    graph.remove_parameter(given)
    graph.add_results([opset.result(pooled, name=OUTPUT)])
    graph.validate_nodes_and_infer_types()


def head(graph: Any) -> Head:
    """The last layer of a classifier, from its features to its logits. Raises WorkerError: it has none."""
    dense = [op for op in graph.get_ordered_ops() if op.get_type_name() == "MatMul"]
    if len(dense) != 1:
        raise WorkerError(f"the graph has {len(dense)} dense layers, not one", code="graph_unknown")
    (added,) = dense[0].output(0).get_target_inputs()
    weights, biases = _computed([op.input(1).get_source_output() for op in (dense[0], added.get_node())])
    return weights, biases.reshape(-1)


def save_onnx(graph: Any, target: Path) -> None:
    """Write what `cut` has left as ONNX in float32.

    Raises:
        ModelMissing: the package onnx is not installed.
        WorkerError: code "graph_unknown": the graph has an op that this does not know.
    """
    try:
        import onnx
    except ImportError:
        raise ModelMissing("writing ONNX files needs the package onnx: pip install onnx") from None
    values, ops = _folded(graph)
    writer = _Writer(onnx, values)
    for op in ops:
        writer.add(op)
    (given,), (made,) = graph.inputs, graph.outputs
    size = [each.get_length() for each in list(given.get_partial_shape())[1:]]
    value = onnx.helper.make_tensor_value_info
    whole = onnx.helper.make_graph(
        writer.nodes,
        "encoder",
        [value(INPUT, onnx.TensorProto.FLOAT, ["n", *size])],
        [value(OUTPUT, onnx.TensorProto.FLOAT, ["n", made.get_partial_shape()[1].get_length()])],
        writer.constants,
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(whole, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(target))


def _folded(graph: Any) -> tuple[Values, list[Any]]:
    """The values that no input changes, weights as float32, and the ops that need them, in order."""
    fixed: set[str] = set()
    needed: dict[str, Any] = {}
    ops: list[Any] = []
    for op in graph.get_ordered_ops():
        sources = {
            each.get_source_output().get_node().get_name(): each.get_source_output() for each in op.inputs()
        }
        if op.get_type_name() != "Parameter" and sources.keys() <= fixed:
            fixed.add(op.get_name())
        else:
            ops.append(op)
            needed |= {name: output for name, output in sources.items() if name in fixed}
    return dict(zip(needed, _computed(list(needed.values())), strict=True)), ops


def _computed(outputs: list[Any]) -> list[NDArray[np.float32]]:
    """The values of outputs that no input changes."""
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.compile_model(openvino.Model(outputs, []), "CPU", exact)
    return [np.array(value) for value in model({}).values()]


def _inputs(op: Any) -> list[str]:
    """The names of the ops that compute the inputs of an op."""
    return [each.get_source_output().get_node().get_name() for each in op.inputs()]


class _Writer:
    """Nodes and constants of an ONNX graph, from the ops of OpenVINO in order."""

    def __init__(self, onnx: Any, values: Values) -> None:
        self._onnx = onnx
        self._values = values
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._names: dict[str, str] = {}  # of an op's output in ONNX, by its name in OpenVINO
        self._kinds: dict[str, Callable[[Any, str], str]] = {
            "Parameter": lambda op, name: INPUT,
            "FakeQuantize": self._scaled,
            "Convolution": self._convolution,
            "GroupConvolution": self._convolution,
            "Add": lambda op, name: self._node("Add", self._of(op), name),
            "Clamp": self._clip,
            "AvgPool": self._pool,
            "Squeeze": lambda op, name: self._node("Squeeze", self._of(op), name),
            "Result": lambda op, name: self._node("Identity", self._of(op), OUTPUT),
        }

    def add(self, op: Any) -> None:
        """Add the node of an op whose inputs were added before."""
        kind = op.get_type_name()
        if kind not in self._kinds:
            raise WorkerError(f"the graph has an op that is not known: {kind}", code="graph_unknown")
        self._names[op.get_name()] = self._kinds[kind](op, f"x{len(self._names)}")

    def _of(self, op: Any) -> list[str]:
        return [
            self._names.get(given) or self._constant(self._values[given], f"{op.get_name()}_{place}")
            for place, given in enumerate(_inputs(op))
        ]

    def _constant(self, value: Any, name: str) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def _node(self, kind: str, inputs: list[str], name: str, **attributes: object) -> str:
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _scaled(self, op: Any, name: str) -> str:
        """Rounding to 8 bits: what is left of it is the change of range, as of the pixels."""
        low, high, least, most = (float(self._values[each].reshape(-1)[0]) for each in _inputs(op)[1:])
        given = self._names[_inputs(op)[0]]
        if (low, high) == (least, most):
            return given
        factor = (most - least) / (high - low)
        scale = self._constant(np.float32(factor), f"{name}_scale")
        shift = self._constant(np.float32(least - low * factor), f"{name}_shift")
        return self._node("Add", [self._node("Mul", [given, scale], f"{name}_scaled"), shift], name)

    def _convolution(self, op: Any, name: str) -> str:
        given, weights = _inputs(op)
        values, groups = self._values[weights], 1
        if op.get_type_name() == "GroupConvolution":  # (groups, out, in, h, w) -> (groups * out, in, h, w)
            values, groups = values.reshape(-1, *values.shape[2:]), len(values)
        attributes = op.get_attributes()
        padding: dict[str, object] = {"pads": [*attributes["pads_begin"], *attributes["pads_end"]]}
        if attributes["auto_pad"] in ("same_upper", "same_lower", "valid"):
            padding = {"auto_pad": attributes["auto_pad"].upper()}
        steps = {"strides": attributes["strides"], "dilations": attributes["dilations"]}
        return self._node(
            "Conv",
            [self._names[given], self._constant(values, f"{name}_weights")],
            name,
            group=groups,
            **steps,
            **padding,
        )

    def _clip(self, op: Any, name: str) -> str:
        attributes = op.get_attributes()
        limits = [
            self._constant(np.float32(attributes[limit]), f"{name}_{limit}") for limit in ("min", "max")
        ]
        return self._node("Clip", [*self._of(op), *limits], name)

    def _pool(self, op: Any, name: str) -> str:
        attributes = op.get_attributes()
        if any((*attributes["pads_begin"], *attributes["pads_end"])):
            raise WorkerError("the graph has an average pooling with padding", code="graph_unknown")
        sizes = {"kernel_shape": attributes["kernel"], "strides": attributes["strides"]}
        return self._node("AveragePool", self._of(op), name, **sizes)
