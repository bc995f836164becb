"""Real publishers by steps: how late and how whole the captions are, and what the service runs out of first.

    python -m load_tests.publishers SCENARIO.toml [--json FILE] [--html FILE] [--ramp N ...] [--kept FOLDER]

Publishers send RTP that was encoded before (rtp_sender.py), over WHIP, ICE, DTLS and SRTP, from a process of
their own, through a seeded relay that loses and delays where the scenario says so; subscribers are in another
one. Each step has so many publishers at once, each in a session of its own. Known words and pictures, and the
clock of the sender, give the latencies: load_tests/publish_figures.py says what each one is. Capacity is the
largest number of publishers with the p95 of stable words in the budget and the words whole.

Profile `ingest` has engines without models (tone_engine.py), so that ingest alone is measured; `all` has the
real ones. Scenarios: load_tests/scenarios. Exit status 1: not even one publisher was served in the budget.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

import tests
from load_tests import publish_figures, publish_report, publish_scenario, publish_server, report
from load_tests.beside import Beside
from load_tests.publish_figures import Heard, Machine, Published, Step
from load_tests.publish_scenario import Played, Scenario
from load_tests.publish_sender import SETTLE, STAGGER
from load_tests.serve_process import Serve, pin
from tests.builders.service import open_session

WARM_UP = 3.0  # seconds of a step before the cost is counted
PATIENCE = 60.0
PUBLISHED = "published"  # file of times of events, beside the data folder
OFFER = Path(tests.__file__).parent / "fixtures" / "obs.sdp"
OFFER_SECONDS = 0.1  # between two of them
CLOSING = 1.5  # seconds in which deleted sessions close


def server_of(scenario: Scenario, folder: Path) -> Serve:
    """The server of a scenario, not yet started."""
    most = max(scenario.ramp)
    told = {publish_server.PUBLISHED: str(folder / PUBLISHED)}
    told |= {} if scenario.admission else {publish_server.ADMITS_ALL: "1"}
    think = {"model": "none"} if scenario.profile == "ingest" else {}
    settings: Mapping[str, Mapping[str, Any]] = {
        "limits": {
            "sessions": most if scenario.offers else most + 64,
            "unpublished": 2 * most + 16,
            "subscribers": 512,
            "requests_per_minute": 60_000,
            "connections_per_address": 1000,
        },
        "budget": {"ladder": scenario.ladder},
        "sample": {"budget_all": 1.0 * most + 4.0},
        "think": think,
    }
    command = publish_server.INGEST if scenario.profile == "ingest" else publish_server.ALL
    os.environ |= told  # which the server is given when it is made
    try:
        return Serve(folder, settings, command)
    finally:
        for name in told:
            del os.environ[name]


async def play(server: Serve, scenario: Scenario, played: Played, publishers: int, kept: Path) -> Step:
    """One step. `kept`: folder of the encoded media.

    Raises:
        SystemExit: the publishers or the subscribers failed.
    """
    async with httpx.AsyncClient(base_url=server.address, timeout=PATIENCE) as client:
        sessions = [await open_session(client, language="en") for _ in range(publishers)]
        doors = [(await client.get(f"/v1/sessions/{one}")).json()["whip_url"] for one in sessions]
        urls = {f"{server.address}{door}": one for door, one in zip(doors, sessions, strict=True)}
        viewers = {one: scenario.subscribers if one == sessions[0] else 1 for one in sessions}
        known = scenario.model_dump(mode="json")
        with (
            Beside("load_tests.crowd.watch", server.port, viewers, scenario.sender_cpus) as crowd,
            Beside("load_tests.publish_sender.send", known, str(kept), list(urls)) as sender,
        ):
            await asyncio.to_thread(crowd.wait_begun)
            await asyncio.to_thread(sender.wait_begun)
            await asyncio.sleep(WARM_UP)
            before = await asyncio.to_thread(publish_server.usage, server.pid, server.workers())
            ends = time.monotonic() + max(1.0, scenario.seconds - WARM_UP - 0.5)
            full = publishers == max(scenario.ramp)
            refusals = await refused(client, scenario.offers if full else 0)
            await asyncio.sleep(ends - time.monotonic())
            room = (await client.get("/v1/capacity")).json()
            after = await asyncio.to_thread(publish_server.usage, server.pid, server.workers())
            sent = await asyncio.to_thread(sender.result)
            stats = {one: (await client.get(f"/v1/sessions/{one}/stats")).json() for one in sessions}
            for one in sessions:
                await client.delete(f"/v1/sessions/{one}")
            await asyncio.sleep(CLOSING)
            seen = await asyncio.to_thread(crowd.result)
    of = [
        Published(found["began"], seen["events"][urls[url]], found["counts"], _missing(stats[urls[url]]))
        for url, found in sent["publishers"].items()
    ]
    clients = {"publishers": sent["cpu"], "subscribers": seen["cpu"]}
    heard = Heard(
        seen["seen"],
        {name: at for name, at in _published(server) if at >= seen["began"]},  # others were replayed
        sum(viewers.values()),
        scenario.seconds + STAGGER * publishers + SETTLE,
    )
    machine = Machine(publish_server.spent(before, after), after.memory, clients)
    step = publish_figures.step(of, played.reference, played.changes, heard, machine)
    free = room["free"]["audio_video" if scenario.media.pictures else "audio"]
    told = replace(step, free=free, bound_by=room["bound_by"])
    return replace(told, refused=sent["refused"], refusals=tuple(refusals))


async def refused(client: httpx.AsyncClient, offers: int) -> list[float]:
    """Offer to a full service again and again; milliseconds until each 503."""
    offer, found = OFFER.read_text(encoding="utf-8"), []
    for number in range(offers):
        asked = time.monotonic()
        answer = await client.post(
            f"/whip/more{number}", content=offer, headers={"Content-Type": "application/sdp"}
        )
        if answer.status_code == 503:
            found.append(1000 * (time.monotonic() - asked))
        await asyncio.sleep(OFFER_SECONDS)
    return found


def _missing(stats: Mapping[str, Any]) -> int:
    """RTP packets that never came, of both tracks."""
    return int(sum(value for name, value in stats["ingest"].items() if name.endswith("_lost")))


def _published(server: Serve) -> Sequence[tuple[str, float]]:
    """When the service published each event, by its id."""
    path = server.data.parent / PUBLISHED
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def measure(scenario: Scenario, folder: Path, kept: Path) -> list[Step]:
    """All steps of a scenario, on one server. `kept`: folder of encoded media."""
    played = await asyncio.to_thread(publish_scenario.played, scenario, kept)
    steps = []
    with server_of(scenario, folder) as server:
        await asyncio.to_thread(server.wait_ready)
        pin([server.pid, *server.workers().values()], scenario.server_cpus)
        for publishers in scenario.ramp:
            steps.append(await play(server, scenario, played, publishers, kept))
            print(publish_report.line(steps[-1], scenario), file=sys.stderr, flush=True)
    return steps


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("scenario", type=Path, help="a TOML file")
    parser.add_argument("--html", type=Path, help="where a report with plots goes")
    parser.add_argument(
        "--ramp", type=int, nargs="+", help="publishers of each step; default: the scenario's"
    )
    parser.add_argument("--kept", type=Path, help="folder of encoded media; default: a temporary one")
    chosen = parser.parse_args()
    scenario = publish_scenario.read(chosen.scenario)
    if chosen.ramp:
        scenario = scenario.model_copy(update={"ramp": tuple(chosen.ramp)})
    with tempfile.TemporaryDirectory(prefix="publishers-") as folder:
        kept = chosen.kept or Path(folder) / "media"
        steps = asyncio.run(measure(scenario, Path(folder), kept))
    if chosen.html is not None:
        chosen.html.write_text(publish_report.html(scenario, steps), encoding="utf-8")
    capacity = publish_figures.capacity(steps, scenario.budget, scenario.coverage)
    wrong = [] if capacity else ["not even one publisher was served in the budget"]
    figures = {"scenario": scenario.model_dump(mode="json"), "capacity": capacity, "steps": steps}
    report.finish(publish_report.text(scenario, steps), figures, wrong, chosen.json)


if __name__ == "__main__":
    main()
