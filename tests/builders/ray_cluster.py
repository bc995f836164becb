"""A Ray cluster on this machine with the engine of the tests, in processes of its own.

Run as a program it is the cluster: it prints its address, and ends with its stdin.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from streamsvc.core.errors import WorkerError
from streamsvc.workers import ray_deployment
from streamsvc.workers.process import Job
from streamsvc.workers.ray_deployment import Scale

ROOT = Path(__file__).resolve().parents[2]
ENGINE = "tests.fakes.worker_engine"
TRIES = 3  # Ray gives its first process 30 s to start: too few where other programs have the cores
END_SECONDS = 40.0  # for all processes to end; then they are killed, and that is told
missing = None if importlib.util.find_spec("ray") else "ray is not installed: pip install -e '.[cluster]'"


@dataclass(frozen=True, slots=True)
class Cluster:
    """address: as `workers.address` takes it. folder: of its sessions, with all logs."""

    address: str
    folder: Path

    def processes(self) -> list[psutil.Process]:
        """All processes of it."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("STREAMSVC_TEST_RAY") == str(self.folder):
                    found.append(process)
        return found

    def logs(self) -> str:
        """All that any of them has written."""
        return "\n".join(
            path.read_text(errors="replace") for path in self.folder.rglob("logs/**/*") if path.is_file()
        )


@contextlib.contextmanager
def running_cluster(workers: str = "test,think", replicas: int = 2) -> Iterator[Cluster]:
    """Workers of the engine of the tests, each with so many replicas. Sets the token of its clients."""
    with (
        pytest.MonkeyPatch.context() as patched,
        tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder,
    ):  # sockets' paths are short
        patched.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        marked = {"STREAMSVC_TEST_RAY": folder, "RAY_TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.builders.ray_cluster", workers, str(replicas)],
            cwd=ROOT,
            env={**os.environ, **marked},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None and process.stdout is not None
        cluster = Cluster("", Path(folder))
        try:
            line = process.stdout.readline().strip()
            assert line.startswith("ready "), line
            yield Cluster(line.removeprefix("ready "), Path(folder))
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            process.stdout.close()
            until = time.monotonic() + END_SECONDS
            while (left := cluster.processes()) and time.monotonic() < until:
                time.sleep(0.1)
            for one in left:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.wait(END_SECONDS)
            assert not left, f"processes of Ray are left: {left}"


def main() -> None:
    workers, replicas = sys.argv[1].split(","), int(sys.argv[2])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for left in reversed(range(TRIES)):
        try:
            ray_deployment.connect("local")
            break
        except WorkerError:
            ray_deployment.disconnect()
            if not left:
                raise
    scale = Scale(replicas, replicas, cores=0.0)
    jobs = {name: Job(name, {name: ENGINE}, {}, 0) for name in workers}
    ray_deployment.deploy(jobs, dict.fromkeys(jobs, scale))
    print(f"ready {ray_deployment.address()}", file=out, flush=True)
    sys.stdin.read()
    ray_deployment.disconnect()


if __name__ == "__main__":
    main()
