"""CPU time per picture of the vision models in batches, on OpenVINO and ONNX Runtime, one thread.

    python -m load_tests.look_batches [--models DIR] [--times 9]

Tagger and detector as published (OpenVINO alone reads their files), and the recogniser of op `read` (a line
of 48 by 320 pixels) in both runtimes; of the encoder of sessions `streamsvc bench vision` tells the same. In
turns, so that a busy machine is busy for all; the median of CPU time counts. "gain": the share of it that the
best batch saves. A batch that saves less than 10 % is not worth the wait of its first session.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCHES = (1, 4, 8)
OPTIONS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}  # as in the worker
Infer = Callable[[NDArray[Any]], object]
Input = tuple[tuple[int, ...], str]  # shape of one picture, dtype


def in_openvino(source: Path, outputs: tuple[str, ...] = ()) -> Callable[[int, Input], Infer]:
    """A maker of a model of one batch size; `outputs`: op types whose last output is asked for too."""
    import openvino

    def make(batch: int, picture: Input) -> Infer:
        core = openvino.Core()
        graph = core.read_model(str(source))
        if outputs:
            last = {op.get_type_name(): op for op in graph.get_ordered_ops()}
            graph.add_outputs([last[name].output(0) for name in outputs])
            for flat in (op for op in graph.get_ordered_ops() if op.get_type_name() == "Reshape"):
                row = flat.input_value(1).get_node().data.copy()
                if len(row) == 2 and row[0] == 1:  # the file's is of one picture
                    row[0] = -1
                    flat.input(1).replace_source_output(openvino.opset13.constant(row).output(0))
        graph.reshape({0: [batch, *picture[0]]})
        model = core.compile_model(graph, "CPU", OPTIONS)
        request = model.create_infer_request()
        return lambda pixels: request.infer({0: pixels})

    return make


def in_onnxruntime(source: Path) -> Callable[[int, Input], Infer]:
    """A maker of a model, which takes any batch."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(source), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch, picture: lambda pixels: session.run(None, {name: pixels})


def cases(models: Path) -> Iterator[tuple[str, Callable[[int, Input], Infer], Input]]:
    """Name, maker and input of each model in each runtime that reads it."""
    import rapidocr

    tagger = models / "efficientnet-lite3" / "efficientnet_lite3.tflite"
    photo = (280, 280, 3), "uint8"
    yield "tagger, OpenVINO", in_openvino(tagger, ("AvgPool", "Softmax")), photo
    yield "tagger without its embedding, OpenVINO", in_openvino(tagger, ("Softmax",)), photo
    detector = models / "ssd-mobilenet-v2-coco" / "frozen_inference_graph.pb"
    yield "detector, OpenVINO", in_openvino(detector), ((300, 300, 3), "uint8")
    line = (3, 48, 320), "float32"
    recogniser = Path(rapidocr.__file__).parent / "models" / "PP-OCRv6_rec_small.onnx"
    yield "recogniser of a line, OpenVINO", in_openvino(recogniser), line
    yield "recogniser of a line, ONNX Runtime", in_onnxruntime(recogniser), line


def gain(cpu: dict[int, float]) -> float:
    """The share of CPU time per picture that the best batch saves over batch 1; below 0: none does."""
    return 1 - min(seconds for batch, seconds in cpu.items() if batch > 1) / cpu[1]


def measured(make: Callable[[int, Input], Infer], picture: Input, times: int) -> dict[int, float]:
    """CPU seconds per picture by batch size."""
    random = np.random.default_rng(0)
    shape, dtype = picture
    pixels = {batch: random.integers(0, 255, (batch, *shape)).astype(dtype) for batch in BATCHES}
    infers = {batch: make(batch, picture) for batch in BATCHES}
    taken: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for batch, infer in infers.items():
        infer(pixels[batch])
    for _ in range(times):
        for batch, infer in infers.items():
            began = time.process_time()
            for _ in range(BATCHES[-1] // batch):
                infer(pixels[batch])
            taken[batch].append((time.process_time() - began) / BATCHES[-1])
    return {batch: statistics.median(seconds) for batch, seconds in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache" / "streamsvc" / "models")
    parser.add_argument("--times", type=int, default=9)
    chosen = parser.parse_args()
    print(f"{'CPU ms per picture at batch':42}" + "".join(f"{batch:>8}" for batch in BATCHES) + "    gain")
    for name, make, picture in cases(chosen.models):
        cpu = measured(make, picture, chosen.times)
        figures = "".join(f"{1000 * cpu[batch]:8.1f}" for batch in BATCHES)
        print(f"{name:42}{figures}{gain(cpu):8.0%}", flush=True)


if __name__ == "__main__":
    main()
