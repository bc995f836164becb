"""No runtime that we load tells its maker anything.

ONNX Runtime (1.29 and later, on Linux) keeps an id of the device and a database of events in ~/.cache/Microsoft/DeveloperTools and
sends them to Microsoft; `onnxruntime.disable_telemetry_events()` comes too late, the import alone opens the database (Privacy.md in
its package). OpenVINO's Python package tells Google Analytics of each import and keeps an id in ~/intel; it does without where the
package openvino_telemetry cannot be imported.
"""

from __future__ import annotations

import os
import sys


def switch_off() -> None:
    """For this process and its children (ONNX Runtime), for this process alone (OpenVINO); before either is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # to import it raises ImportError
