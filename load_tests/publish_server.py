"""`streamsvc serve` as `load_tests.publishers` measures it.

Its threads have names, its engines may be fakes, and it notes when each event was published.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from load_tests import tone_engine
from streamsvc.__main__ import main as command_line
from streamsvc.core.types import Event
from streamsvc.events.log import EventLog
from streamsvc.service import engine_table, load_controller, service
from streamsvc.service.load_controller import LoadController

ALL = ("-c", "from load_tests.publish_server import serve; serve()")
INGEST = ("-c", "from load_tests.publish_server import serve_tones; serve_tones()")
PUBLISHED = "STREAMSVC_LOAD_TEST_PUBLISHED"  # environment: file of (id, monotonic second) of events
ADMITS_ALL = "STREAMSVC_LOAD_TEST_ADMITS_ALL"  # environment: not empty: whatever the load allows
_TICKS = os.sysconf("SC_CLK_TCK")


def serve() -> None:
    """The command line, with names of threads, and times of events where a file for them is named."""
    threading.Thread(target=_name_threads, daemon=True).start()
    if path := os.environ.get(PUBLISHED):
        _note_events(Path(path))
    if os.environ.get(ADMITS_ALL):
        LoadController.admit = lambda *_, **__: None  # type: ignore[method-assign]
    command_line()


def serve_tones() -> None:
    """The same with engines without models (tone_engine.py)."""
    engines = {
        "hear": {"hear": tone_engine.NAME},
        "see": {"see": tone_engine.NAME, "embed": tone_engine.NAME},
        "think": {"think": tone_engine.NAME},
    }
    for module in (engine_table, service, load_controller):
        module.engines_of = lambda settings: engines  # type: ignore[attr-defined]
    service.wrong_models = lambda *_: {}  # type: ignore[attr-defined]
    serve()


def _note_events(path: Path) -> None:
    emit = EventLog.emit
    out = path.open("a", buffering=1)

    def emit_and_note(log: EventLog, *arguments: Any, **named: Any) -> Event:
        now = time.monotonic()
        event = emit(log, *arguments, **named)
        out.write(json.dumps((event.id, now)) + "\n")
        return event

    EventLog.emit = emit_and_note  # type: ignore[method-assign,assignment]


def _name_threads() -> None:
    """Give the kernel the names of our threads, which Python 3.11 keeps to itself."""
    while True:
        for thread in threading.enumerate():
            name = "event loop" if thread is threading.main_thread() else thread.name
            with contextlib.suppress(OSError):
                Path(f"/proc/self/task/{thread.native_id}/comm").write_text(name[:15])
        time.sleep(1.0)


# --- seen from outside --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far: of serve's threads by name, of workers, and what each process holds (PSS, MB)."""

    at: float
    cpu: Mapping[str, float]
    memory: Mapping[str, float]


def usage(pid: int, workers: Mapping[str, int]) -> Usage:
    """What serve and its workers have used so far. Raises psutil.Error: one has ended."""
    cpu: dict[str, float] = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name, seconds = _thread(folder)
            cpu[name] = cpu.get(name, 0.0) + seconds
    processes = {"serve": pid, **workers}
    for name, worker in workers.items():
        times = psutil.Process(worker).cpu_times()
        cpu[f"worker {name}"] = times.user + times.system
    memory = {name: psutil.Process(one).memory_full_info().pss / 1e6 for name, one in processes.items()}
    return Usage(time.monotonic(), cpu, memory)


def _thread(folder: Path) -> tuple[str, float]:
    name = (folder / "comm").read_text().strip()
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return _grouped(name), (int(fields[11]) + int(fields[12])) / _TICKS


def _grouped(name: str) -> str:
    """The name of a thread without its number, and one for all that have none of their own."""
    plain = name.rstrip("0123456789").rstrip("-_ ")
    return plain if plain in ("event loop", "media") else "other threads"


def spent(before: Usage, after: Usage) -> dict[str, float]:
    """CPU seconds a second between two looks, by thread and worker."""
    passed = max(1e-9, after.at - before.at)
    return {name: (seconds - before.cpu.get(name, 0.0)) / passed for name, seconds in after.cpu.items()}
