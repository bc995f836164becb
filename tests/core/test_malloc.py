"""Tests of the heap: what was freed is held by nobody."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc"
)

HELD = """
import pathlib, re, sys
from streamsvc import heap
def held():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1]) / 1000
"""

HOLES = """
blocks = [b"x" * 50_000 for _ in range(2000)]  # 100 MB
kept = blocks[-1]  # at the top of the heap: without it glibc would give everything back by itself
before = held()
del blocks
freed = held()
heap.give_back()
print(before - freed, freed - held())
"""

BESIDE = """
if sys.argv[1] == "mapped":
    heap.map_large()
freed = b"x" * 2_000_000
del freed  # from now on glibc by itself maps nothing of this size
before = held()
pictures, kept = [], []
for _ in range(100):  # as something is kept of each picture that comes
    pictures.append(b"x" * 1_000_000)
    kept.append(b"x" * 20_000)
del pictures
print(held() - before)
"""


def told(script: str, *arguments: str) -> list[float]:
    """What a process of its own prints."""
    ended = subprocess.run(
        [sys.executable, "-c", HELD + script, *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return [float(number) for number in ended.stdout.split()]


def test_freed_memory_within_the_heap_is_given_back() -> None:
    by_itself, given_back = told(HOLES)
    assert by_itself < 20.0
    assert given_back > 60.0, "MB"


def test_large_blocks_leave_no_holes_beside_what_is_kept() -> None:
    assert told(BESIDE, "together")[0] > 50.0, "MB: else this test shows nothing"
    assert told(BESIDE, "mapped")[0] < 5.0
