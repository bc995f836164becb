"""The heap of this process: what was freed goes back to the system. With a C library other than glibc nothing is done."""

from __future__ import annotations

import contextlib
import ctypes

MAPPED = 128 * 1024  # bytes: glibc's own choice, as long as nobody frees a larger block
_M_MMAP_THRESHOLD = -3


def map_large() -> None:
    """Map blocks of MAPPED bytes and more, such as pictures, each for itself: they are given back as soon as they are freed.

    By itself glibc soon puts them between what is kept for hours, where they leave holes. To be called before anything large is freed.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MAPPED)


def give_back() -> None:
    """Memory that was freed goes back to the system: glibc would keep it, hundreds of megabytes of it after loading."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
