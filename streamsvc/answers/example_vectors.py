"""The vectors of the router's examples, kept in a file: they take 5 s of a core to compute at each start."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamsvc.answers import intents

Vector = NDArray[np.float32]


def path_in(folder: Path) -> Path:
    """Where the vectors of the examples as they are now are kept."""
    digest = hashlib.sha256("\n".join(intents.examples()).encode()).hexdigest()
    return folder / f"intents-{digest[:16]}.npy"


def load(path: Path) -> Vector | None:
    """The kept vectors, float32 (n, d); None where there are none, or the file is damaged."""
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = vectors.ndim == 2 and len(vectors) == len(intents.examples()) and vectors.dtype == np.float32
    return vectors if is_whole else None


def save(path: Path, vectors: Vector) -> None:
    """Keep vectors, shape (n, d). Another process may do the same; where it fails they are computed again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors.astype(np.float32))
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
