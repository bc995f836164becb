"""An engine for the tests of workers: it echoes, sleeps, fails and counts on demand."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from typing import Any

from engines import Engine, Op, Payload, StreamOp
from streamsvc.core.errors import ModelMissing


def _echo(batch: list[Payload]) -> list[Payload | Exception]:
    return [{**payload, "batch": len(batch), "pid": os.getpid()} for payload in batch]


def _sleep(batch: list[Payload]) -> list[Payload | Exception]:
    time.sleep(batch[0]["seconds"])
    return _echo(batch)


def _burn(batch: list[Payload]) -> list[Payload | Exception]:
    """Use the CPU for some seconds."""
    until = time.process_time() + batch[0]["seconds"]
    while time.process_time() < until:
        pass
    return _echo(batch)


def _fail(batch: list[Payload]) -> list[Payload | Exception]:
    raise ValueError("the user said a secret")


def _log(batch: list[Payload]) -> list[Payload | Exception]:
    """Log a text and an exception as a library does."""
    try:
        raise ValueError(batch[0]["text"])
    except ValueError:
        logging.getLogger("some.library").exception(batch[0]["text"])
    return _echo(batch)


def _count(payload: Payload) -> Iterator[Payload]:
    for number in range(payload["to"]):
        time.sleep(payload.get("pause", 0))
        yield {"n": number}


def load(options: dict[str, Any]) -> Engine:
    if options.get("missing"):
        raise ModelMissing("no file x.bin: run `streamsvc models pull`")
    ops = {
        "echo": Op(_echo),
        "sleep": Op(_sleep, batch=4),
        "fail": Op(_fail),
        "burn": Op(_burn),
        "log": Op(_log),
    }
    return Engine({**ops, "count": StreamOp(_count)}, {"runtime": "of a test"}, ("echo", {}))
