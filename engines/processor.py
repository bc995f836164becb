"""The CPU's features."""

from __future__ import annotations

from pathlib import Path


def flags() -> str:
    """The feature line of /proc/cpuinfo; empty on other systems than Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")  # Features: on ARM
