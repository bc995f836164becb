"""Freed memory is returned to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc"
)

MEASURE = """
import pathlib, re, sys
from streamsvc.core import malloc
def resident():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1000
"""

HOLES = """
blocks = [b"x" * 50_000 for _ in range(2000)]  # 100 MB
last = blocks[-1]  # pins the top of the heap: without it glibc would trim by itself
before = resident()
del blocks
freed = resident()
malloc.trim()
print(before - freed, freed - resident())
"""

MIXED = """
if sys.argv[1] == "mapped":
    malloc.fix_mmap_threshold()
freed = b"x" * 2_000_000
del freed  # by default this raises glibc's mmap threshold to this size
before = resident()
pictures, small = [], []
for _ in range(100):  # as a session stores something of each picture
    pictures.append(b"x" * 1_000_000)
    small.append(b"x" * 20_000)
del pictures
print(resident() - before)
"""


def measure(script: str, *arguments: str) -> list[float]:
    """Run a script in a process of its own; the numbers that it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURE + script, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return [float(number) for number in ended.stdout.split()]


def test_trim_returns_freed_memory_within_the_heap() -> None:
    by_default, trimmed = measure(HOLES)
    assert by_default < 20.0
    assert trimmed > 60.0, "MB"


def test_large_blocks_do_not_fragment_the_heap() -> None:
    assert measure(MIXED, "together")[0] > 50.0, "MB: otherwise this test shows nothing"
    assert measure(MIXED, "mapped")[0] < 5.0


def test_what_is_frozen_is_left_out_of_collections() -> None:
    script = """
import gc
from streamsvc.core import malloc
loaded = [[] for _ in range(100_000)]
before = len(gc.get_objects())
malloc.freeze()
print(before, len(gc.get_objects()))
"""
    before, after = measure(script)
    assert before > 100_000
    assert after < 1000
