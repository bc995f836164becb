"""The faults of `load_tests.alerts`: for each alert something that really goes wrong.

A stage starts servers that are well. Its steps follow each other on these; a fault is kept up until its alerts
fire.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from load_tests import alert_stage
from load_tests.alert_stage import Stage, forever

Cause = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. alerts: that it fires. fault: in words. cause: makes it and keeps it up until cancelled."""

    alerts: Sequence[str]
    fault: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Plan:
    """A stage: begin starts what is well, steps are its faults in their order."""

    name: str
    begin: Cause
    steps: Sequence[Step]


# --- one server and its publishers ------------------------------------------------------------------------


async def _publishers(stage: Stage) -> None:
    await stage.serve()
    await stage.publish("stays")


async def _publisher_vanishes(stage: Stage) -> None:
    publisher = await stage.publish("vanishes")
    await asyncio.sleep(2.0)
    await publisher.vanish()
    await forever()


async def _kill(stage: Stage) -> None:
    stage.server.kill()
    await forever()


PLANS: Sequence[Plan] = (
    Plan(
        "publishers",
        _publishers,
        (
            Step(["StreamsvcStalled"], "a publisher loses its network", _publisher_vanishes),
            Step(["StreamsvcDown"], "kill -9 of serve", _kill),
        ),
    ),
)
