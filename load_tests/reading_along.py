"""What reading along costs the captions: the queue wait of decoding steps with it and without, in turns.

    python -m load_tests.reading_along [RECORDING] [--seconds 600] [--slice 15] [--config FILE] [--json FILE]

Plays a recording in real time through the worker processes, as under `serve`, without questions. In every
other slice reading along is off and all else as it was: level 0 of degradation but for the one thing that
level 5 adds. Of each slice the first SETTLE seconds do not count, for a call of the model may still run.
"queue": seconds that a decoding step waited for the hear worker, the stage that caption events carry; "asr":
seconds that it computed, which other work on the cores makes longer. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from streamsvc.core import clock, config, degradation
from streamsvc.evaluation import session_run
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.scenario import Scenario
from streamsvc.service.service import Service

RECORDING = Path("../shared/media/speech/crimson_30_the_crab_and_the_monkey.flac")
SETTLE = 1.5  # seconds at the beginning of a slice that do not count
TICK = 0.1  # seconds between two looks whether to switch
STAGES = ("queue", "asr")
Waits = dict[bool, dict[str, list[float]]]  # reading along? -> stage -> seconds, one a caption event


def is_on(second: float, slice_seconds: float) -> bool | None:
    """Whether reading along is on at a session second; None: the slice has just begun."""
    number, passed = divmod(second, slice_seconds)
    return None if passed < SETTLE else int(number) % 2 == 0


def waits(events: Sequence[Mapping[str, Any]], slice_seconds: float) -> Waits:
    """The stages of all caption events, by whether reading along was on when they came."""
    found: Waits = {on: defaultdict(list) for on in (True, False)}
    for event in events:
        if event["type"] not in ("caption.partial", "caption.final"):
            continue
        on = is_on(event["received"], slice_seconds)
        if on is None or "queue" not in event.get("stages", {}):
            continue
        for stage in STAGES:
            found[on][stage].append(event["stages"].get(stage, 0.0) / 1000)
    return found


def figures(found: Waits) -> dict[str, dict[str, float]]:
    """p50, p95 and n of each stage, by "on" and "off"."""
    return {
        "on" if on else "off": {
            "n": len(stages["queue"]),
            **{
                f"{stage}_p{share}": round(float(np.percentile(stages[stage], share)), 4)
                for stage in STAGES
                for share in (50, 95)
                if stages[stage]
            },
        }
        for on, stages in found.items()
    }


def table(of: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table."""
    heads = ("reading along", "steps", "queue p50 / p95 s", "decoding p50 / p95 s")
    rows = [
        (
            name,
            f"{row['n']}",
            *(
                f"{row[f'{stage}_p50']:.3f} / {row[f'{stage}_p95']:.3f}" if row["n"] else "-"
                for stage in STAGES
            ),
        )
        for name, row in of.items()
    ]
    return markdown_table(heads, rows)


async def measure(service: Service, scenario: Scenario, slice_seconds: float) -> Waits:
    """Play a recording and switch reading along on and off, at level 0. In real time."""

    async def switching() -> None:
        while True:
            for session in service.sessions.live:
                on = int(session.clock.position() / slice_seconds) % 2 == 0
                session.context.degradation.fidelity = replace(degradation.fidelity(0), reading=on)
            await clock.sleep(TICK)

    service.load_controller.force(0)
    task = asyncio.create_task(switching())
    try:
        run = await session_run.play(service, scenario)
    finally:
        task.cancel()
    return waits(run.events, slice_seconds)


async def _main(chosen: argparse.Namespace) -> dict[str, dict[str, float]]:
    scenario = Scenario("recording", chosen.recording.resolve(), {}, {}, chosen.seconds)
    async with Service(config.load(chosen.config), at_once=("hear", "see", "think")) as service:
        await service.ready()
        return figures(await measure(service, scenario, chosen.slice))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", nargs="?", type=Path, default=RECORDING, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=600.0, help="of the recording (%(default)s)")
    parser.add_argument("--slice", type=float, default=15.0, help="seconds of each turn (%(default)s)")
    parser.add_argument("--config", type=Path, help="TOML file with settings, such as think.model")
    parser.add_argument("--json", type=Path, help="where the figures go")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    of = asyncio.run(_main(chosen))
    print(table(of))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(of, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
