"""Disables the telemetry of the model runtimes.

ONNX Runtime (1.29 and later, on Linux) stores a device id and events in ~/.cache/Microsoft/DeveloperTools and
sends them to Microsoft. `onnxruntime.disable_telemetry_events()` is too late: the import already opens the
database (Privacy.md in its package). OpenVINO's Python package reports each import to Google Analytics and
stores an id in ~/intel, unless openvino_telemetry cannot be imported.
"""

from __future__ import annotations

import os
import sys


def switch_off() -> None:
    """Call before either runtime is imported.

    Affects child processes too for ONNX Runtime, only this process for OpenVINO.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it raises ImportError
