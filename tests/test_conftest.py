"""The leak guard, and the order of tests: each kind of leak on purpose, in a pytest run of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LEAKS = """
import asyncio, socket, subprocess, threading
import pytest

kept = []

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60), name="forgotten"))

def test_task_of_a_loop_run_inside():
    async def main():
        kept.append(asyncio.create_task(asyncio.sleep(60), name="inner"))
    asyncio.run(main())

def test_task_in_virtual_time(virtual):
    async def main():
        kept.append(asyncio.create_task(asyncio.sleep(60), name="later"))
    virtual.run(main())

async def test_transport():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    server.close()

def test_thread():
    thread = threading.Thread(target=threading.Event().wait, daemon=True, name="stays")
    thread.start()

def test_process():
    kept.append(subprocess.Popen(["sleep", "60"]))

def test_descriptor():
    kept.append(open("/dev/null"))

async def test_clean():
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

async def test_task_that_is_about_to_end():
    asyncio.create_task(asyncio.sleep(0.05))

@pytest.fixture
async def helper():
    task = asyncio.create_task(asyncio.sleep(60))
    yield task
    task.cancel()

async def test_task_of_a_fixture_that_ends_it(helper):
    assert not helper.done()
"""

LATER = """
import asyncio
import pytest

@pytest.mark.load
def test_load_in_small():
    pass

async def test_transport_in_a_later_file():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    await asyncio.open_connection(*server.sockets[0].getsockname())
    server.close()
"""

REPORTS = {
    "test_task": "tasks forgotten",
    "test_task_of_a_loop_run_inside": "tasks inner",
    "test_task_in_virtual_time": "tasks later",
    "test_transport": "unclosed|file descriptors",
    "test_transport_in_a_later_file": "unclosed|file descriptors",
    "test_thread": "threads stays",
    "test_process": "processes",
    "test_descriptor": "1 file descriptors",
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("leaks")
    conftest = Path(__file__).with_name("conftest.py").read_text()
    patient = re.sub(r"^(TASK|LEAK)_PATIENCE = [0-9.]+", r"\1_PATIENCE = 0.3", conftest, flags=re.M)
    assert patient != conftest
    (folder / "conftest.py").write_text(patient)
    (folder / "test_leaks.py").write_text(LEAKS)
    (folder / "test_more.py").write_text(LATER)
    (folder / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\nmarkers = load\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("leak", REPORTS)
def test_a_leak_fails_the_test_and_is_named(outcome: str, leak: str) -> None:
    reports = re.findall(rf"(?:ERROR|FAILED) test_\w+\.py::{leak} - .*", outcome)
    assert reports, outcome
    section = re.search(rf"^_+ ERROR at teardown of {leak} _+$(.*?)(?=^_{{5,}} |^=+ )", outcome, re.M | re.S)
    assert section, outcome
    assert re.search(REPORTS[leak], section[1]), section[1]


def test_load_tests_in_small_come_last(outcome: str) -> None:
    passed = re.findall(r"PASSED test_\w+\.py::(\w+)", outcome)
    assert passed[-1] == "test_load_in_small"
    assert len(passed) > 3


@pytest.mark.parametrize(
    "test", ["test_clean", "test_task_that_is_about_to_end", "test_task_of_a_fixture_that_ends_it"]
)
def test_a_test_without_leaks_passes(outcome: str, test: str) -> None:
    assert f"PASSED test_leaks.py::{test}\n" in outcome
    assert f"ERROR test_leaks.py::{test} " not in outcome
