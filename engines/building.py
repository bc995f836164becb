"""Files that are built once on a machine, beside their source: a whole folder or none, and no older ones."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def building(target: Path, others: str, whole: Callable[[], bool]) -> Iterator[Path]:
    """An empty folder to build in; it becomes `target` if nothing is raised, else it is removed.

    Args:
        target: where it is to lie. A broken one gives way, a whole one that somebody else has built meanwhile stays.
        others: pattern of such folders of older sources, beside it; they are removed once it is there.
        whole: whether `target` is.
    """
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        yield scratch
        try:
            scratch.rename(target)
        except OSError:  # somebody else was faster, or a broken folder is in the way
            if not whole():
                shutil.rmtree(target, ignore_errors=True)
                scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for old in target.parent.glob(others):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
