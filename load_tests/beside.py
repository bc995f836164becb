"""A function in a Python process of its own, so that its work delays nothing in this one."""

from __future__ import annotations

import asyncio
import importlib
import json
import select
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

_CHILD = "from load_tests.beside import _child; _child()"


class Beside:
    """Runs a function of load_tests beside this process, from its context's begin to `result` or its end.

    Args:
        function: "MODULE.NAME". It returns what JSON can hold.
        arguments: what JSON can hold.
    """

    def __init__(self, function: str, *arguments: Any) -> None:
        self._command = [sys.executable, "-c", _CHILD, function, json.dumps(arguments)]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def wait_begun(self) -> None:
        """Wait until the function has called `begun`, or has ended."""
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def tell(self, line: str) -> None:
        """Send a line to the function (see `commands`). Raises OSError: it has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def result(self) -> Any:
        """Tell the function to stop (see `stopped`), and wait for what it returns.

        Raises:
            SystemExit: it failed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        text = self._process.stdout.read()
        if self._process.wait():
            raise SystemExit(f"{self._command[3]} failed")
        return json.loads(text.splitlines()[-1])


def begun() -> None:
    """In the function: say that it has begun."""
    print(flush=True)


def stopped() -> bool:
    """In the function: whether it is told to stop."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


async def commands() -> AsyncIterator[str]:
    """In the function: the lines that it is sent, until it is told to stop."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            yield line.decode().strip()
    finally:
        transport.close()


def _child() -> None:
    module, _, name = sys.argv[1].rpartition(".")
    print(json.dumps(getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))), flush=True)
