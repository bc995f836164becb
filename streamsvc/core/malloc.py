"""Memory of a long-lived process: freed memory goes back to the system, garbage collections stay short.

What is glibc's is a no-op with another C library.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc

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


def freeze() -> None:
    """Leave all objects of now out of garbage collections.

    A full collection walks every object: 120,000 of imported modules alone stall the event loop by 90 ms.
    """
    gc.collect()
    gc.freeze()
