"""The heap of this process: what was freed goes back to the system. With a C library other than glibc nothing is done."""

from __future__ import annotations

import contextlib
import ctypes

MAPPED = 256 * 1024  # bytes: pictures are larger; what the sampler makes of each is smaller, and mapping that would cost page faults
_M_MMAP_THRESHOLD = -3


def apart() -> None:
    """Blocks of MAPPED bytes and more, such as pictures, stay apart from the heap, and are given back as soon as they are freed.

    glibc would soon put them between what is kept for hours, where they leave holes. To be called before anything large is freed.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, MAPPED)


def give_back() -> None:
    """Memory that was freed goes back to the system: glibc would keep it, hundreds of megabytes of it after loading."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
