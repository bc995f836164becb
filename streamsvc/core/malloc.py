"""glibc malloc tuning: return freed memory to the system. No-op with another C library."""

from __future__ import annotations

import contextlib
import ctypes

MMAP_THRESHOLD = 16 * 1024  # bytes; glibc begins at 128 KiB, and raises it when a larger block is freed
_M_MMAP_THRESHOLD = -3  # <malloc.h>


def fix_mmap_threshold() -> None:
    """Allocate blocks of MMAP_THRESHOLD bytes or more by mmap, to return them when freed.

    By default glibc soon places such blocks (pictures, bodies of requests) between long-lived ones, which
    fragments the heap: a hundred clients with huge bodies left 200 MB of it behind.
    Call this before anything large is freed.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)


def trim() -> None:
    """Return freed heap memory to the system: hundreds of megabytes after loading models."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
