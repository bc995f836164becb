"""A GStreamer publisher (deploy/publish_gstreamer.py) as a program of its own."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian packages GStreamer's bindings for this one
PROGRAM = Path(__file__).parents[2] / "deploy" / "publish_gstreamer.py"
PACKAGES = (
    "python3-gi gir1.2-gst-plugins-bad-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
    " gstreamer1.0-plugins-bad gstreamer1.0-nice"
)


def missing() -> str:
    """Why there is no GStreamer publisher; empty if there is one."""
    try:
        check = subprocess.run([SYSTEM_PYTHON, str(PROGRAM), "--check"], capture_output=True, timeout=60)
    except OSError as error:
        return f"{SYSTEM_PYTHON}: {error.strerror}"
    return "" if check.returncode == 0 else f"GStreamer's webrtcbin is missing (Debian: {PACKAGES})"


@contextlib.asynccontextmanager
async def publisher(file: Path, address: str, codec: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Publish a file's speech and moving pictures to a WHIP address."""
    program = await asyncio.create_subprocess_exec(
        SYSTEM_PYTHON,
        *(str(PROGRAM), str(file), address, codec),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.kill()
        await program.communicate()
