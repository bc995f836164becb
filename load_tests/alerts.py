"""Fire each alert of deploy/prometheus by a fault of a service that runs, as a real Prometheus sees it.

    python -m load_tests.alerts [--only STAGE ...] [--picture FILE.png] [--sabotage] [--json FILE]

Servers with engines without models (tone_engine.py) are scraped by a Prometheus (Debian's package) with the
rules of deploy/prometheus/alerts.yml, all durations of which are divided by SPEED
(load_tests/prometheus_process.py tells what that changes). A stage starts what is well; then its faults are
made, one after the other. An alert must not have fired before its fault, and must fire while it lasts, for
the server that has it. Alerts that no fault fires on a machine like this are named "series only":
deploy/prometheus/alerts_test.yml alone fires them.

`--sabotage` is the control: no fault is made, so no alert may fire, and the run must fail. `--picture` draws
the panels of the Grafana dashboard from this Prometheus, with a cluster that plays (alert_dashboard.py).
Disks are mounted: run it as root. Exit status 1: an alert did not fire by its fault, or fired before it, or a
panel had no data.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from load_tests import alert_dashboard, dashboard_picture, prometheus_process, report
from load_tests.alert_dashboard import played
from load_tests.alert_plans import PLANS, Plan, Step
from load_tests.alert_stage import Stage, media_in
from load_tests.dashboard_picture import Panel
from load_tests.prometheus_process import POLL, RULES, SPEED, Prometheus, durations
from streamsvc.evaluation.markdown import markdown_table

DASHBOARD = "dashboard"  # the stage whose panels are looked at
PATIENCE = 90.0  # seconds for a fault to show, beside the durations of its alert
# Where an alert fires, if not at the first server of its stage; None: it is the cluster's.
AT: Mapping[str, int | None] = {"StreamsvcNodeLost": None, "StreamsvcTakeoverWithLoss": 1}
SERIES_ONLY: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Fired:
    """What became of an alert.

    `seconds`: from its fault until it fired; None: it did not. `silent`: it had not fired before.
    """

    alert: str
    fault: str
    seconds: float | None
    silent: bool


def patience(alert: str, speed: float = SPEED) -> float:
    """Seconds within which an alert must fire: its durations one after the other, and PATIENCE."""
    text = next(part for part in RULES.read_text().split("- alert: ") if part.startswith(f"{alert}\n"))
    return PATIENCE + sum(durations(text)) / speed


def names() -> list[str]:
    """The alerts of the rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


async def _step(stage: Stage, step: Step, prometheus: Prometheus, *, sabotage: bool) -> list[Fired]:
    """Make a fault, and wait until its alerts fire."""
    began = time.monotonic()
    before = {alert: await prometheus.fired(alert, began - stage.began) for alert in step.alerts}
    cause = asyncio.create_task(_nothing() if sabotage else _as_coroutine(step, stage))
    left = {alert: began + patience(alert) for alert in step.alerts}
    seconds: dict[str, float | None] = dict.fromkeys(step.alerts)
    try:
        while any(until > time.monotonic() for until in left.values()):
            for labels in await prometheus.firing():
                alert = labels["alertname"]
                place = AT.get(alert, 0)
                if alert in left and (place is None or labels["instance"] == stage.targets[place]):
                    seconds[alert] = time.monotonic() - began
                    del left[alert]
            if cause.done() and (error := cause.exception()) is not None:
                print(f"{step.fault}: {error!r}", file=sys.stderr, flush=True)
                break
            await asyncio.sleep(POLL)
    finally:
        cause.cancel()
        await asyncio.gather(cause, return_exceptions=True)
    found = [Fired(alert, step.fault, seconds[alert], not before[alert]) for alert in step.alerts]
    print(*found, sep="\n", file=sys.stderr, flush=True)
    return found


async def _nothing() -> None:
    await asyncio.Event().wait()


async def _as_coroutine(step: Step, stage: Stage) -> None:
    await step.cause(stage)


async def run(
    folder: Path, plans: Sequence[Plan], *, dashboard: bool, at_once: int, sabotage: bool
) -> tuple[list[Fired], list[Panel]]:
    """All faults of some stages, and the panels of the dashboard where they are wanted."""
    media = await asyncio.to_thread(media_in, folder / "media")
    free = asyncio.Semaphore(at_once)

    async def panels() -> list[Panel]:
        async with free, Prometheus(folder / DASHBOARD / "prometheus") as prometheus:
            return await played(folder / DASHBOARD, media, prometheus)

    async def faults(plan: Plan) -> list[Fired]:
        async with free, Prometheus(folder / plan.name / "prometheus") as prometheus:
            return await _stage(Stage(folder / plan.name, media), plan, prometheus, sabotage=sabotage)

    showing = asyncio.create_task(panels() if dashboard else _no_panels())
    found = await asyncio.gather(*(faults(plan) for plan in plans))
    return [one for some in found for one in some], await showing


async def _no_panels() -> list[Panel]:
    return []


async def _stage(stage: Stage, plan: Plan, prometheus: Prometheus, *, sabotage: bool) -> list[Fired]:
    """One stage; where it fails, no alert of its steps that were left has fired."""
    found: list[Fired] = []
    try:
        async with stage.closing:
            await plan.begin(stage)
            await prometheus.scrape(stage.targets)
            if sabotage:
                waits = [_step(stage, step, prometheus, sabotage=True) for step in plan.steps]
                return [one for some in await asyncio.gather(*waits) for one in some]
            for step in plan.steps:
                found += await _step(stage, step, prometheus, sabotage=False)
    except (Exception, SystemExit) as error:  # the other stages go on
        print(f"the stage {plan.name} failed: {error!r}", file=sys.stderr, flush=True)
        done = {one.alert for one in found}
        found += [
            Fired(alert, step.fault, None, silent=True)
            for step in plan.steps
            for alert in step.alerts
            if alert not in done
        ]
    return found


# --- report ---------------------------------------------------------------------------------------------


def verdict(found: Sequence[Fired]) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = [] if found else ["no fault was made"]
    for one in found:
        if one.seconds is None:
            wrong.append(f"{one.alert} did not fire: {one.fault}")
        if not one.silent:
            wrong.append(f"{one.alert} had fired before its fault: {one.fault}")
    return wrong


def table(found: Sequence[Fired]) -> str:
    """A line for each alert."""
    rows = [
        (one.alert, one.fault, "never" if one.seconds is None else f"{one.seconds:.0f}", _yes(one.silent))
        for one in found
    ]
    rows += [(alert, f"series only: {why}", "-", "-") for alert, why in SERIES_ONLY.items()]
    return markdown_table(("alert", "fault", "fires after s", "silent before"), rows)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def main() -> None:
    parser = report.parser(__doc__)
    stages = [DASHBOARD, *(plan.name for plan in PLANS)]
    parser.add_argument("--only", nargs="+", choices=stages, default=stages, help="stages (all)")
    parser.add_argument("--picture", type=Path, help="of the stage dashboard, PNG")
    parser.add_argument("--at-once", type=int, default=3, help="stages (%(default)s)")
    parser.add_argument("--sabotage", action="store_true", help="make no fault; without the dashboard")
    chosen = parser.parse_args()
    lacks = prometheus_process.missing() or (chosen.picture and dashboard_picture.missing())
    if lacks:
        raise SystemExit(lacks)
    plans = [plan for plan in PLANS if plan.name in chosen.only]
    dashboard = DASHBOARD in chosen.only and not chosen.sabotage
    with tempfile.TemporaryDirectory(prefix="alerts-") as folder:
        running = run(
            Path(folder), plans, dashboard=dashboard, at_once=chosen.at_once, sabotage=chosen.sabotage
        )
        found, shown = asyncio.run(running)
    if shown and chosen.picture:
        caption = f"streamsvc, two nodes, {alert_dashboard.SECONDS:.0f} s; durations of queries / {SPEED:g}"
        dashboard_picture.take(shown, caption, chosen.picture)
    blank = dashboard_picture.empty(shown)
    wrong = verdict(found) if plans else []
    wrong += [f"the panel {title!r} has no data" for title in blank]
    told = f"{table(found)}\n{len(_charts(shown)) - len(blank)} of {len(_charts(shown))} panels have data"
    report.finish(told, {"speed": SPEED, "alerts": found, "panels without data": blank}, wrong, chosen.json)


def _charts(shown: Sequence[Panel]) -> list[Panel]:
    return [one for one in shown if one.panel["type"] != "row"]


if __name__ == "__main__":
    main()
