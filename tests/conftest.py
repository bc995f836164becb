"""Fixtures of all tests: the virtual clock, the leak guard, and where media and weights lie."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import psutil
import pytest

from engines import telemetry
from streamsvc.core.clock import Threadless, VirtualLoop

telemetry.switch_off()  # before a test imports a runtime itself
hypothesis.settings.register_profile(
    "ours", deadline=None
)  # how fast a test is tells of the machine's neighbours
hypothesis.settings.load_profile("ours")

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
TASK_PATIENCE = 0.5  # seconds that tasks get to end once their loop is closed on them
LEAK_PATIENCE = 5.0  # seconds that threads, processes and descriptors get to go away
# Threads that live as long as the process, started by libraries once.
LASTING_THREADS = (
    "asyncio_",
    "AnyIO worker thread",
    "ThreadPoolExecutor",
    "media",
    "tqdm",
    "pytest_timeout",
    "_connection_worker",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a clear message, what needs the shared media where there are none."""
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
    """A runner whose loop's time jumps: `virtual.run(main())`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


@pytest.fixture
def stage() -> Iterator[asyncio.Runner]:
    """The same, with everything that is given to a thread done in the loop's own: `stage.run(main())`, for whole sessions (stage.py)."""
    with asyncio.Runner(loop_factory=Threadless) as runner:
        yield runner


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real recordings (mark the test `media`)."""
    return MEDIA


def _runs(child: psutil.Process) -> bool:
    try:
        return bool(child.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


def _open_things() -> tuple[set[int], set[int], int]:
    process = psutil.Process()
    threads = {t.ident or 0 for t in threading.enumerate() if not t.name.startswith(LASTING_THREADS)}
    children = {child.pid for child in process.children(recursive=True) if _runs(child)}
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
            left.append(
                "threads "
                + ", ".join(t.name for t in threading.enumerate() if t.ident in threads_now - threads)
            )
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


# --- tasks and transports -------------------------------------------------------------------------------------------
# Every loop of ours and of pytest-asyncio belongs to an asyncio.Runner, which cancels what is left when it closes, and
# says nothing. So `close` is made to say it, whoever opened the loop: the test, a fixture, or code under test.

_left_tasks: list[str] = []
_in_call = False
_close = asyncio.Runner.close


def _close_and_tell(runner: asyncio.Runner) -> None:
    loop = getattr(runner, "_loop", None)
    if loop is not None and not loop.is_closed() and not loop.is_running():
        deadline = time.monotonic() + TASK_PATIENCE
        while (pending := asyncio.all_tasks(loop)) and time.monotonic() < deadline:
            loop.run_until_complete(asyncio.sleep(0.01))
            time.sleep(0.001)  # a virtual loop takes no time of its own
        _left_tasks.extend(
            f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in pending
        )
    _close(runner)
    if not _in_call:
        gc.collect()  # an unclosed transport or socket warns when it is collected: now, not in somebody else's test


asyncio.Runner.close = _close_and_tell  # type: ignore[method-assign,assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Know when a test itself runs: a full collection there, once per loop, would cost more than the tests."""
    global _in_call
    _in_call = True
    try:
        return (yield)
    finally:
        _in_call = False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Fail a test whose loop was closed over tasks that were still at work; behind a file's last one, set aside what lives on."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _set_aside()
    left, _left_tasks[:] = sorted(set(_left_tasks)), []
    if left:
        pytest.fail("left behind: tasks " + ", ".join(left), pytrace=False)
    return result


# --- the modules of torch and its like: half a million objects that never die, of which each full collection would ask a third of a second


def _set_aside() -> None:
    """Let later collections look only at what is made after now; what is garbage now goes, and warns, first."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """Set the imports of the test files aside."""
    _set_aside()


def pytest_sessionfinish() -> None:
    """Let the last collections of pytest itself look at everything again."""
    gc.unfreeze()
