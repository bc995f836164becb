"""Fixtures of all tests: the virtual clock, the leak guard, and where media and weights lie."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streamsvc.clock import VirtualLoop

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
LEAK_PATIENCE = 5.0  # seconds that threads, processes and descriptors get to go away
# Threads that live as long as the process, started by libraries once.
LASTING_THREADS = ("asyncio_", "AnyIO worker thread", "ThreadPoolExecutor", "media", "tqdm", "pytest_timeout", "_connection_worker")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a clear message, what needs the shared media where there are none."""
    if not MEDIA.is_dir():
        for item in items:
            if item.get_closest_marker("media"):
                item.add_marker(pytest.mark.skip(reason=f"{MEDIA} is not there: real recordings are not part of the project"))


@pytest.fixture
def virtual() -> Iterator[asyncio.Runner]:
    """A runner whose loop's time jumps: `virtual.run(main())`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings (mark the test `media`)."""
    return MEDIA


def _open_things() -> tuple[set[int], set[int], int]:
    process = psutil.Process()
    threads = {t.ident or 0 for t in threading.enumerate() if not t.name.startswith(LASTING_THREADS)}
    children = {child.pid for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}
    return threads, children, len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a task, thread, process or file descriptor behind (`@pytest.mark.usefixtures` of wider scope start first)."""
    threads, children, descriptors = _open_things()
    yield
    deadline = time.monotonic() + LEAK_PATIENCE
    while True:
        threads_now, children_now, descriptors_now = _open_things()
        left = []
        if threads_now - threads:
            left.append("threads " + ", ".join(t.name for t in threading.enumerate() if t.ident in threads_now - threads))
        if children_now - children:
            left.append(f"processes {sorted(children_now - children)}")
        if descriptors_now > descriptors:
            left.append(f"{descriptors_now - descriptors} file descriptors")
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + "; ".join(left))
        gc.collect()
        time.sleep(0.02)
