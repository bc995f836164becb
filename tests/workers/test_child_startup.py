"""A child process is told its job by one line, and its stdout carries one line and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

JOB = {"socket": "/nowhere/a.sock", "roles": {"hear": "x.y"}, "options": {"a": 1}, "nice": 1}
HEAD = """
import os
from streamsvc.core.errors import ModelMissing
from streamsvc.workers.child_startup import Startup
before = os.nice(0)
job = Startup.read()
print("a library prints", job.socket, job.roles["hear"], job.options["a"], os.nice(0) == min(19, before + 1))
"""


def run(body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HEAD + body],
        input=json.dumps(JOB) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_ready_line_is_all_of_stdout_and_what_is_printed_goes_to_stderr() -> None:
    ended = run('job.ready({"hear": "of a test"})')
    assert json.loads(ended.stdout) == {"ready": True, "runtimes": {"hear": "of a test"}}
    assert ended.stderr == "a library prints /nowhere/a.sock x.y 1 True\n"
    assert ended.returncode == 0


def test_an_error_of_ours_is_told_whole_and_a_foreign_one_by_its_class() -> None:
    ended = run('job.failed(ModelMissing("no file x.bin"))')
    assert json.loads(ended.stdout)["error"] == {"class": "ModelMissing", "message": "no file x.bin"}
    assert ended.returncode == 0
    ended = run('job.failed(ValueError("a secret"))')
    assert json.loads(ended.stdout)["error"]["message"] == "the engine failed with ValueError"
    assert "secret" not in ended.stdout + ended.stderr
    assert ended.returncode != 0
