"""The start of a child process of a worker: what it is told by stdin, and what it says on stdout."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TextIO

from streamsvc.core.errors import StreamsvcError
from streamsvc.core.redaction import redact_libraries
from streamsvc.workers.framing import error_payload


@dataclass(frozen=True, slots=True)
class Startup:
    """The parent's one line: the path of the `socket`, `roles`, `options` and niceness."""

    socket: str
    roles: Mapping[str, str]
    options: Mapping[str, Any]
    nice: int
    _out: TextIO

    @classmethod
    def read(cls) -> Self:
        """Read it from stdin; keep stdout for `ready` and `failed`; lower this process's priority."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
        job = json.loads(sys.stdin.readline())
        out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # libraries may print; stdout carries the ready line only
        redact_libraries(lambda event, fields: print(event, fields, file=sys.stderr))
        os.nice(job["nice"])
        return cls(job["socket"], job["roles"], job["options"], job["nice"], out)

    def ready(self, runtimes: Mapping[str, str]) -> None:
        """Say that the socket is there, and what computes by role."""
        print(json.dumps({"ready": True, "runtimes": dict(runtimes)}), file=self._out, flush=True)

    def failed(self, error: Exception) -> None:
        """Say why the process cannot serve. A foreign error is raised again."""
        print(json.dumps({"error": error_payload(error)}), file=self._out, flush=True)
        if not isinstance(error, StreamsvcError):
            raise error
