"""A published model as an OpenVINO graph that loads fast on this CPU.

Reading the detector's TensorFlow graph takes 10 s of one core; the same graph in OpenVINO's format takes 0.1
s. The graph is in `openvino-<hash>/` beside its source; the hash covers the source's content, OpenVINO's
version and the recipe. OpenVINO caches its compiled form in the same folder and checks that it fits this CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engines.building import building
from engines.files import as_made, note_made
from streamsvc.core.errors import ModelMissing

GRAPH = "graph.xml"
_BUILT = (GRAPH, "graph.bin")
_OPTIONS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compiled(source: Path, shape: Callable[[Any], None], recipe: str = "1") -> Any:
    """A model file compiled for this CPU, one thread.

    Args:
        source: any format that OpenVINO reads.
        shape: modifies the graph after reading (fixed input size, more outputs); the result is stored.
        recipe: another one when `shape` changes.

    Raises:
        ModelMissing: the file cannot be read.
    """
    import openvino

    folder = _built(source, shape, recipe)
    return openvino.Core().compile_model(
        str(folder / GRAPH), "CPU", _OPTIONS | {"CACHE_DIR": str(folder / "compiled")}
    )


def read_graph(source: Path) -> Any:
    """The graph of a model file, in any format that OpenVINO reads. Raises ModelMissing: it cannot."""
    import openvino

    try:
        return openvino.Core().read_model(str(source))
    except RuntimeError:
        raise ModelMissing(f"the model file {source} is broken: run `streamsvc models pull`") from None


def _built(source: Path, shape: Callable[[Any], None], recipe: str) -> Path:
    import openvino

    mark = hashlib.sha256(f"{recipe} {openvino.__version__} ".encode() + source.read_bytes()).hexdigest()[:16]
    target = source.parent / f"openvino-{mark}"
    if as_made(target, *_BUILT):
        return target
    graph = read_graph(source)
    shape(graph)
    with building(target, "openvino-*", lambda: as_made(target, *_BUILT)) as scratch:
        openvino.save_model(graph, str(scratch / GRAPH), compress_to_fp16=False)
        note_made(scratch, *_BUILT)
    return target
