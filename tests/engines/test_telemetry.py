"""A process that loads our engines sends and stores no telemetry."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOADS = """
import json, os, sys
from pathlib import Path

import numpy as np

from engines import asr, build_vision, ocr, silero  # what a worker imports; load() imports the runtimes

silero.Silero(silero.silero_file())
ocr.load({})
import openvino

openvino.Core().available_devices
runtimes = [name for name in ("onnxruntime", "openvino") if name in sys.modules]
links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
print(json.dumps([runtimes, [os.readlink(link) for link in links if os.path.lexists(link)]]))
"""


def test_runtimes_open_no_database_of_telemetry_and_write_nothing_at_home(tmp_path: Path) -> None:
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "VIRTUAL_ENV", "LANG")
    }  # CI=true would hush them too
    nowhere = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }  # should they speak, nothing gets out
    home = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADS], env=kept | nowhere | home, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    runtimes, opened = json.loads(done.stdout.splitlines()[-1])
    assert runtimes == ["onnxruntime", "openvino"], "the test loads what it is about"
    assert not [
        name for name in opened if name.startswith((str(tmp_path), "socket:")) or "onnxruntime.db" in name
    ]
    assert not [str(path) for path in tmp_path.rglob("*") if path.is_file()]
