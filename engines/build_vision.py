"""A model as it was published -> an OpenVINO graph that starts fast on this CPU.

Reading the detector's TensorFlow graph takes ten seconds of one core; the same graph in OpenVINO's own format takes a
tenth of one. The graph lies beside its source in `openvino-<hash>/`, named by the source's content, OpenVINO's version and
RECIPE, written to a temporary folder and renamed, so that a reader sees a whole one or none. OpenVINO keeps the compiled
form in the same folder and checks by itself that it fits this processor.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streamsvc.errors import ModelMissing

RECIPE = "1"  # raise it when what is done to a graph changes
GRAPH = "graph.xml"
_OPTIONS = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}


def compiled(source: Path, shape: Callable[[Any], None]) -> Any:
    """The model of a file, compiled for this CPU, one thread.

    Args:
        source: any format that OpenVINO reads.
        shape: changes the graph once it is read (fixed input size, more outputs); done once, then kept.

    Raises:
        ModelMissing: the file cannot be read.
    """
    import openvino

    core = openvino.Core()
    folder = _built(core, source, shape)
    return core.compile_model(str(folder / GRAPH), "CPU", _OPTIONS | {"CACHE_DIR": str(folder / "compiled")})


def _built(core: Any, source: Path, shape: Callable[[Any], None]) -> Path:
    import openvino

    mark = hashlib.sha256(f"{RECIPE} {openvino.__version__} ".encode() + source.read_bytes()).hexdigest()[:16]
    target = source.parent / f"openvino-{mark}"
    if (target / GRAPH).is_file():
        return target
    try:
        graph = core.read_model(str(source))
    except RuntimeError:
        raise ModelMissing(f"the model file {source} is broken: run `streamsvc models pull`") from None
    shape(graph)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=source.parent))
    try:
        openvino.save_model(graph, str(scratch / GRAPH), compress_to_fp16=False)
        try:
            scratch.rename(target)
        except OSError:  # somebody else was faster
            if not (target / GRAPH).is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in source.parent.glob("openvino-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target
