"""Debian's ffmpeg as a publisher by SRT: H.264 and AAC in MPEG-TS, in real time."""

from __future__ import annotations

import shutil
from pathlib import Path

from streamsvc.ingest import libsrt
from tests.fakes.rtmp_publisher import encoding


def missing() -> str:
    """What is missing on this machine for SRT; "": nothing."""
    try:
        libsrt.load()
    except libsrt.SrtError as error:
        return str(error)
    return "" if shutil.which("ffmpeg") else "ffmpeg is not here (Debian: apt install ffmpeg)"


def command(address: str, stream_id: str, sound: Path) -> tuple[str, ...]:
    """Publish a recording over and over with a test picture, as by RTMP."""
    return (*encoding(sound), "-f", "mpegts", "-srt_streamid", stream_id, address)
