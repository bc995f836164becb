"""hls.js for the browser tests: one version, fetched by npm from the registry that it is set to, checked."""

from __future__ import annotations

import base64
import functools
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.7.4"
SHA512 = "3GlxGdPvT2YHvQYOt+yOzT/DEior/qJVNIylHA77kgeoBTdQQqi70GwefNEUmHQeNGyjC8U62+bruqW/Tpm+tg=="


@functools.cache
def hls_js() -> bytes | str:
    """The script; or why there is none."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not there: install Node.js"
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", f"hls.js@{VERSION}"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
        except (subprocess.SubprocessError, OSError):
            return f"npm cannot fetch hls.js {VERSION}"
        (packed,) = Path(folder).glob("*.tgz")
        if base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode() != SHA512:
            raise AssertionError(f"what the registry gives as hls.js {VERSION} is something else")
        with tarfile.open(packed) as package:
            script = package.extractfile("package/dist/hls.min.js")
            assert script is not None
            return script.read()
