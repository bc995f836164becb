"""Fixtures of all tests: virtual clocks, the leak guard, the folder of recordings."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import psutil
import pytest
import structlog

from engines import telemetry
from streamsvc.core.clock import Threadless, VirtualLoop

if TYPE_CHECKING:
    from tests.builders.redis_server import RedisServer

telemetry.switch_off()  # before any test imports a runtime
# No deadline: the speed of an example depends on what else the machine runs.
hypothesis.settings.register_profile("streamsvc", deadline=None)
hypothesis.settings.load_profile("streamsvc")

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
TASK_PATIENCE = 0.5  # seconds for tasks to end when their loop is closed
LEAK_PATIENCE = 5.0  # seconds for threads, processes and descriptors to end after a test
# Name prefixes of library threads that live as long as the process.
LASTING_THREADS = (
    "asyncio_",
    "AnyIO worker thread",
    "ThreadPoolExecutor",
    "media",
    "tqdm",
    "pytest_timeout",
    "_connection_worker",
)


TESTS = Path(__file__).resolve().parent
# What runs services in real time. With two workers (make test) all of it stays in one, so that no two of them
# share the cores, and the other worker gives way to it.
FOLDERS = {"load_tests", "service", "workers"}
FILES = {f"test_{name}.py" for name in ("browser", "main", "page", "players", "proxy", "web")}
REAL_TIME = FOLDERS | FILES
GIVES_WAY = 5  # niceness of the workers but the first, which takes the largest group


def pytest_configure(config: pytest.Config) -> None:
    """Lower the priority of all workers of pytest-xdist but the first."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") != "gw0":
        os.nice(GIVES_WAY)


@pytest.hookimpl(tryfirst=True)  # before that of pytest-xdist, which reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what must stay in one worker; skip tests marked `media` where there are no recordings."""
    for item in items:
        path = item.path.relative_to(TESTS)
        group = "real time" if path.parts[0] in REAL_TIME else str(path)
        item.add_marker(pytest.mark.xdist_group(group))
    # Load tests in small come last: they take a whole core from whatever runs in real time beside them.
    items.sort(key=lambda item: item.get_closest_marker("load") is not None)
    if not MEDIA.is_dir():
        for item in items:
            if item.get_closest_marker("media"):
                item.add_marker(
                    pytest.mark.skip(
                        reason=f"{MEDIA} is not there: real recordings are not part of the project"
                    )
                )


@pytest.fixture
def virtual() -> Iterator[asyncio.Runner]:
    """A runner on a virtual clock, which jumps to the next timer: `virtual.run(main())`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


@pytest.fixture
def stage() -> Iterator[asyncio.Runner]:
    """A virtual clock whose thread work runs in the loop, for whole sessions (builders/session.py)."""
    with asyncio.Runner(loop_factory=Threadless) as runner:
        yield runner


@pytest.fixture
def gstreamer() -> None:
    """Skip where there is no GStreamer publisher."""
    from tests.builders.gstreamer import missing  # here: test_conftest.py runs this file alone

    if why := missing():
        pytest.skip(why)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real Redis of this test alone; skipped where there is none."""
    # Here: test_conftest.py runs this file alone.
    from tests.builders.redis_server import RedisServer, missing

    if why := missing():
        pytest.skip(why)
    server = RedisServer(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings; mark the test `media`."""
    return MEDIA


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Undo what a test configured of logging: a later line would go to the first test's closed stderr."""
    hooks = (sys.excepthook, sys.unraisablehook, threading.excepthook)
    handlers = logging.getLogger().handlers[:]
    configured = structlog.get_config() if structlog.is_configured() else None
    yield
    if configured is None:
        structlog.reset_defaults()
    else:
        structlog.configure(**configured)
    logging.getLogger().handlers[:] = handlers
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks


def _is_alive(child: psutil.Process) -> bool:
    try:
        return bool(child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # ended since it was listed
        return False


def _resources() -> tuple[set[int], set[int], int]:
    process = psutil.Process()
    threads = {t.ident or 0 for t in threading.enumerate() if not t.name.startswith(LASTING_THREADS)}
    children = {child.pid for child in process.children(recursive=True) if _is_alive(child)}
    return threads, children, len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread, process or file descriptor behind.

    Fixtures of wider scope start before it, so what they hold open is not counted.
    """
    threads, children, descriptors = _resources()
    renews = request.node.get_closest_marker("renews_processes") is not None
    yield
    deadline = time.monotonic() + LEAK_PATIENCE
    while True:
        threads_now, children_now, descriptors_now = _resources()
        left = []
        if threads_now - threads:
            left.append(
                "threads "
                + ", ".join(t.name for t in threading.enumerate() if t.ident in threads_now - threads)
            )
        if children_now - children and not (renews and len(children_now) <= len(children)):
            left.append(f"processes {sorted(children_now - children)}")
        if descriptors_now > descriptors:
            left.append(f"{descriptors_now - descriptors} file descriptors")
        if not left:
            return
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + "; ".join(left))
        gc.collect()
        time.sleep(0.02)


# --- tasks and transports ---
# Every loop, ours and pytest-asyncio's, belongs to an asyncio.Runner, whose close() silently cancels pending
# tasks. The patched close() records them, whether a test, a fixture or the code under test opened the loop.

_leaked_tasks: list[str] = []
_test_is_running = False
_close = asyncio.Runner.close


def _close_and_record(runner: asyncio.Runner) -> None:
    loop = getattr(runner, "_loop", None)
    if loop is not None and not loop.is_closed() and not loop.is_running():
        deadline = time.monotonic() + TASK_PATIENCE
        while (pending := asyncio.all_tasks(loop)) and time.monotonic() < deadline:
            loop.run_until_complete(asyncio.sleep(0.01))
            time.sleep(0.001)  # a virtual loop's sleep takes no real time
        _leaked_tasks.extend(
            f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in pending
        )
    _close(runner)
    if not _test_is_running:
        gc.collect()  # unclosed sockets warn on collection: here, not in a later test


asyncio.Runner.close = _close_and_record  # type: ignore[method-assign,assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Record whether a test body runs: a full collection for each of its loops would take too long."""
    global _test_is_running
    _test_is_running = True
    try:
        return (yield)
    finally:
        _test_is_running = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Fail a test that left pending tasks; after the last test of a file, freeze what stays alive."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _freeze_objects()
    left, _leaked_tasks[:] = sorted(set(_leaked_tasks)), []
    if left:
        pytest.fail("left behind: tasks " + ", ".join(left), pytrace=False)
    return result


# --- garbage collection ---
# torch and similar modules hold half a million objects for good; a full collection over them takes 0.3 s.


def _freeze_objects() -> None:
    """Collect garbage, then exempt all living objects from later collections."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Exempt the modules that the test files imported; fail where pytest-xdist has not grouped the tests."""
    _freeze_objects()
    if session.config.getoption("loadgroup", False) and session.items and "@" not in session.items[0].nodeid:
        raise pytest.UsageError("this pytest-xdist does not group tests with this pytest: see pyproject.toml")


def pytest_sessionfinish() -> None:
    """Return all objects to the collector for pytest's own last collections."""
    gc.unfreeze()
