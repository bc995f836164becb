"""Which chat model answers: the best of the registry that is on the disk and that this machine can run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.downloader import Progress, reachable_hub
from engines.fetch import folder_of, missing, pull
from engines.registry import Entry, chosen, registry
from streamsvc.core.errors import ModelMissing

AUTO = "auto"
NONE = "none"
UNREACHED = ".hub-unreachable"  # its modification time: when the hub was last tried in vain
UNREACHED_SECONDS = 3600.0  # so long it is not tried again, and nothing is said
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ChatModel:
    """The chat model that answers. reads: it finds an answer in a window; else it only shortens a passage."""

    name: str
    reads: bool


def able(memory: int | None = None, cores: int | None = None) -> list[Entry]:
    """The chat models that a machine can run, the best first; the least one runs anywhere.

    `memory`: bytes; None: this machine's, likewise `cores`.
    """
    memory = machine_memory() if memory is None else memory
    cores = machine_cores() if cores is None else cores
    models = [(entry, entry.chat) for entry in registry().values() if entry.chat is not None]
    return [
        entry
        for entry, needs in reversed(models)
        if (needs.memory <= memory and needs.cores <= cores) or entry is models[0][0]
    ]


def chat_model(models_dir: Path, name: str = AUTO) -> ChatModel:
    """The chat model of a setting; with "auto" the best that this machine can run and that is complete.

    The last resort, complete or not, if there is none. A model that is not in the registry was put into
    `models_dir` by its user, and is taken to read.
    """
    if name != AUTO:
        entry = registry().get(name)
        return ChatModel(name, entry is None or entry.chat is None or entry.chat.reads)
    models = able()
    best = next((entry for entry in models if not missing([entry.name], models_dir)), models[-1])
    return ChatModel(best.name, best.chat is not None and best.chat.reads)


def chat_file(name: str, models_dir: Path) -> Path:
    """The GGUF file of a chat model.

    Raises:
        ModelMissing: it is missing, or it is a model of the registry and not the registry's file.
    """
    folder = folder_of(name, models_dir)
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise ModelMissing(f"there is no *.gguf in {folder}: run `streamsvc models pull {name}`")
    return found[0]


def pull_chat(name: str, models_dir: Path, progress: Progress, tell: Callable[[str], None]) -> None:
    """Fetch a chat model from the hub.

    Args:
        name: of the registry; "none": fetch nothing; "auto": the best that this machine can run, unless one
            that reads is there. If the hub is not reached, that is told once an hour.
        models_dir: folder of models.
        progress: called as downloads grow.
        tell: prints a line.

    Raises:
        ConfigError: the registry has no such model.
        ModelMissing: the named model cannot be fetched.
    """
    if name == NONE:
        return
    if name != AUTO:
        for entry in chosen([name]):
            if missing([name], models_dir):
                tell(f"fetching {entry.name}: {_size(entry)}")
        pull([name], models_dir, progress)
        return
    best = next(iter(able()), None)
    if best is None or best.packaged or chat_model(models_dir).reads or _tried_lately(models_dir):
        return
    why = "the hub is not reached"
    hub = next(source for source in best.sources if source.hub)
    if reachable_hub(hub, best.files[0]):
        tell(f"fetching {best.name} to answer questions: {_size(best)} (MODEL=none leaves it out)")
        try:
            pull([best.name], models_dir, progress)
            return
        except ModelMissing as error:
            why = error.message
    (models_dir / UNREACHED).touch()
    tell(
        f"{chat_model(models_dir).name} answers questions: {why}. A better model, {best.name}"
        f" ({_size(best)}), can be had from a hub: `streamsvc models pull {best.name}`"
    )


def _tried_lately(models_dir: Path) -> bool:
    try:
        return 0 <= time.time() - (models_dir / UNREACHED).stat().st_mtime < UNREACHED_SECONDS
    except OSError:
        return False


def _size(entry: Entry) -> str:
    return f"{entry.size / 1e6:.0f} MB"


def machine_cores() -> int:
    """The cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max"
        return cores


def machine_memory() -> int:
    """The bytes of memory that this process may use."""
    import psutil

    memory = int(psutil.virtual_memory().total)
    try:
        return min(memory, int((_CGROUP / "memory.max").read_text()))
    except (OSError, ValueError):
        return memory
