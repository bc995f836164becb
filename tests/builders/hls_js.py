"""hls.js for the browser tests: one version, fetched once by npm from the registry that it is set to."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from streamsvc.core.config import Models

VERSION = "1.7.4"
SHA256 = "cfc70cc9e9fc63d071919e087670abc760c8fd1bc889b88588026e4d22193bbe"  # of dist/hls.min.js


def hls_js() -> bytes | str:
    """The script, kept beside the models; or why there is none."""
    kept = Models().dir / "tests" / f"hls-{VERSION}.min.js"
    if kept.is_file() and _is_whole(kept.read_bytes()):
        return kept.read_bytes()
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not there, which fetches hls.js: install Node.js"
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", f"hls.js@{VERSION}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=90)
        except (subprocess.SubprocessError, OSError):
            return f"npm cannot fetch hls.js {VERSION}"
        (packed,) = Path(folder).glob("*.tgz")
        with tarfile.open(packed) as package:
            file = package.extractfile("package/dist/hls.min.js")
            script = file.read() if file is not None else b""
    assert _is_whole(script), f"what the registry gives as hls.js {VERSION} is something else"
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(script)
    return script


def _is_whole(script: bytes) -> bool:
    return hashlib.sha256(script).hexdigest() == SHA256
