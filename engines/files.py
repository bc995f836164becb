"""Model files on disk: whether they are there, and whether they still are what they were.

A *stamp* is a small file beside the files of a folder: the sha256 of each, with its size and modification
time. While these are unchanged, the sha256 need not be counted again.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from streamsvc.core.errors import ModelMissing

MADE = ".made.json"  # the stamp of files that were made on this machine


@dataclass(frozen=True, slots=True)
class Noted:
    """A file as it was when its sha256 was counted. mtime_ns: its modification time."""

    sha256: str
    size: int
    mtime_ns: int


Stamp = Mapping[str, Noted]  # by file name


def model_file(path: Path) -> Path:
    """The path, if it is a file that is not empty.

    Raises:
        ModelMissing: it is missing or empty; the message names it.
    """
    if not path.is_file() or path.stat().st_size == 0:
        raise ModelMissing(f"the model file {path} is missing: run `streamsvc models pull`")
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def noted(path: Path, digest: str) -> Noted:
    """A file as it is now, with the sha256 that it has, or should have. Raises OSError: it is missing."""
    status = path.stat()
    return Noted(digest, status.st_size, status.st_mtime_ns)


def read_stamp(path: Path) -> Stamp:
    """A stamp; an empty one if there is none that can be read."""
    try:
        return {name: Noted(**item) for name, item in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_stamp(path: Path, stamp: Stamp) -> None:
    """Best effort: without a stamp, as in a read-only cache, checks are only slower."""
    try:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name, delete=False) as file:
            json.dump({name: asdict(item) for name, item in stamp.items()}, file)
        Path(file.name).replace(path)
    except OSError:
        return


def note_made(folder: Path, *names: str) -> None:
    """Note files that have just been made here, for `as_made`."""
    made = {name: noted(folder / name, sha256(folder / name)) for name in names}
    write_stamp(folder / MADE, {**read_stamp(folder / MADE), **made})


def as_made(folder: Path, *names: str) -> bool:
    """Whether files that were made here are as they were then; counts the sha256 of those that changed."""
    stamp = read_stamp(folder / MADE)
    for name in names:
        before = stamp.get(name)
        try:
            if before is None or (
                noted(folder / name, before.sha256) != before and sha256(folder / name) != before.sha256
            ):
                return False
        except OSError:
            return False
    return True
