"""What this machine's processor can do."""

from __future__ import annotations

from pathlib import Path


def flags() -> str:
    """Its features in Linux's words, the line of /proc/cpuinfo; nothing elsewhere."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.is_file() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")  # Features: on ARM
