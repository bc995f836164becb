"""Atomic creation of built artefacts (graphs, plans, converted models) beside their source."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def building(target: Path, others: str, whole: Callable[[], bool]) -> Iterator[Path]:
    """A temporary folder to build in. It is renamed to `target` on success and removed on an exception.

    Args:
        target: the final folder. An incomplete one is replaced; one that another process has completed
            meanwhile stays.
        others: pattern of the folders of older builds beside it, removed on success.
        whole: tells whether `target` is complete.
    """
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        yield scratch
        try:
            scratch.rename(target)
        except OSError:  # another process was faster, or an incomplete folder exists
            if not whole():
                shutil.rmtree(target, ignore_errors=True)
                scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in target.parent.glob(others):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
