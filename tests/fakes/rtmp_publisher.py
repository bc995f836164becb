"""Debian's ffmpeg as a publisher of RTMP: H.264 and AAC, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

SPEECH = Path(__file__).resolve().parents[1] / "fixtures" / "canary.ogg"


def missing() -> str:
    """What is missing on this machine for RTMP; "": nothing."""
    module = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
    found = shutil.which("ffmpeg") and module.exists() and shutil.which("nginx", path="/usr/sbin:/usr/bin")
    return "" if found else "Debian's ffmpeg, nginx-light and libnginx-mod-rtmp are not all here"


def encoding(sound: Path = SPEECH) -> tuple[str, ...]:
    """ffmpeg encodes a recording, over and over, with a test picture; its output follows."""
    return (
        *("ffmpeg", "-loglevel", "quiet", "-nostdin", "-re", "-stream_loop", "-1", "-i", str(sound)),
        *("-re", "-f", "lavfi", "-i", "testsrc=size=160x96:rate=10", "-map", "0:a", "-map", "1:v"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p"),
        *("-g", "10", "-c:a", "aac", "-ar", "44100"),
    )


def command(address: str, sound: Path = SPEECH) -> tuple[str, ...]:
    """Publish a recording over and over with a test picture. `address`: with its stream key."""
    return (*encoding(sound), "-f", "flv", address)


@contextlib.asynccontextmanager
async def publishing(address: str, sound: Path = SPEECH) -> AsyncIterator[asyncio.subprocess.Process]:
    """Publish within the block."""
    process = await asyncio.create_subprocess_exec(*command(address, sound), stdin=asyncio.subprocess.DEVNULL)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
