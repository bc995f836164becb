"""Kill and freeze the workers, again and again, while a session plays speech in real time.

    python -m load_tests.worker_faults [--faults 20] [--every 15] [--no-spare] [--json FILE]

`faults` kills (SIGKILL) and as many freezes (SIGSTOP) of each worker: hear, see (embed is one of its roles)
and think. Each must be told as `session.degraded` within TOLD seconds, by `/readyz` too; a caption of what is
said after it must come within WARM seconds (without a spare of hear: COLD), and the session must live. The
faults of one worker lie so far apart that none counts as a crash loop. At last hear is killed whenever it
serves, for a minute: it may start STARTS times, and must come back. Exit status 1: a promise was missed. The
recording has pauses: the row "none" tells how long one waits for the next caption without a fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from load_tests import report
from load_tests.crash import SCENARIO
from load_tests.hearing import MEDIA
from load_tests.looped import looped
from load_tests.serve_process import Serve
from load_tests.subscriber import Came, Subscriber, spoken_until
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.score_captions import percentile
from streamsvc.workers.supervisor import SPARE_SECONDS
from tests.builders.service import open_session

WORKERS = ("hear", "see", "think")
TOLD, WARM, COLD, STARTS = 1.0, 3.0, 15.0, 5
PATIENCE = 60.0  # seconds for what is waited for
LOOP_SECONDS = 60.0  # of the crash loop
SPARE_LOADS = 15.0  # seconds for a spare to load
SETTLE = 3.0  # seconds between two faults, beside what is waited for
_POLL = 0.02


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; times in seconds from it, None: never. `worker` "none": no fault, as a control.

    `told`: to session.degraded. `unready`: to `/readyz` saying so. `captions`: to a caption of later speech.
    `back`: to `/readyz` saying that the worker is there again.
    """

    worker: str
    kind: str
    told: float | None
    unready: float | None
    captions: float | None
    back: float | None
    alive: bool


class Faults:
    """Causes faults of the workers of a server.

    Args:
        server: ready.
        reader: of a session that plays speech.
        session: its id.
        client: of the server.
    """

    def __init__(self, server: Serve, reader: Subscriber, session: str, client: httpx.AsyncClient) -> None:
        self._server = server
        self._reader = reader
        self._session = session
        self._client = client

    async def wake_think(self, questions: Sequence[str]) -> bool:
        """Ask until the language model is there: it starts when an answer first needs it. False: none did."""
        until = time.monotonic() + 3 * PATIENCE
        for question in itertools.cycle(questions):
            if "think" in self._server.workers():
                return True
            if time.monotonic() > until:
                return False
            await self._client.post(f"/v1/sessions/{self._session}/questions", json={"text": question})
            await asyncio.sleep(SETTLE)
        return False

    async def cause(self, worker: str, kind: str) -> Fault:
        """Cause one fault and wait until all is well again."""
        if worker != "none":
            await self._signal(worker, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        began = time.monotonic()
        told, captions, (unready, back) = await asyncio.gather(
            self._reader.until(lambda one: _says(one, "session.degraded"), PATIENCE, began)
            if worker != "none"
            else _nothing(),
            self._reader.until(lambda one: spoken_until(one) > began - self._reader.zero, PATIENCE, began),
            self._watch(worker, began),
        )
        return Fault(
            worker, kind, _after(told, began), unready, _after(captions, began), back, await self.lives()
        )

    async def _signal(self, worker: str, number: signal.Signals) -> None:
        """Send a signal; a worker that has just ended (killed, as it answered too late) is waited for."""
        for _ in range(round(PATIENCE / _POLL)):
            with contextlib.suppress(ProcessLookupError):
                return os.kill(self._pid(worker), number)
            await asyncio.sleep(_POLL)
        raise SystemExit(f"{worker} did not come again within {PATIENCE:g} s")

    def _pid(self, worker: str) -> int:
        """The process of a worker. Raises ProcessLookupError: there is none now."""
        return self._server.workers()[worker]

    async def lives(self) -> bool:
        """Whether the session is still live."""
        return bool((await self._client.get(f"/v1/sessions/{self._session}")).json()["state"] == "live")

    async def _watch(self, worker: str, began: float) -> tuple[float | None, float | None]:
        """Seconds until `/readyz` says that a worker is not there, and until it is again."""
        unready: float | None = None
        while worker != "none" and time.monotonic() < began + PATIENCE:
            fresh = (await self._client.get("/readyz")).json()["workers"][worker]
            if unready is None and not fresh:
                unready = time.monotonic() - began
            elif unready is not None and fresh:
                return unready, time.monotonic() - began
            await asyncio.sleep(_POLL)
        return unready, None

    async def crash_loop(self, worker: str, seconds: float) -> tuple[int, bool]:
        """Kill a worker whenever it serves, for so long.

        Returns:
            How often it was started again, and whether it came back afterwards with the session alive.
        """
        before = len(self._starts(worker))
        until = time.monotonic() + seconds
        killed = 0
        while time.monotonic() < until:
            pid = self._server.workers()[worker]
            if pid != killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed = pid
            await asyncio.sleep(_POLL)
        starts = len(self._starts(worker)) - before
        until = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < until:
            if (await self._client.get("/readyz")).json()["workers"][worker]:
                return starts, await self.lives()
            await asyncio.sleep(_POLL)
        return starts, False

    def _starts(self, worker: str) -> list[int]:
        return [line["pid"] for line in self._server.logged("worker ready") if line["worker"] == worker]


@contextlib.asynccontextmanager
async def playing(
    server: Serve, played: Path, faults: type[Faults] = Faults
) -> AsyncIterator[tuple[Faults, Subscriber]]:
    """A session that plays a file, once its words come; yields faults of the server, and its subscriber."""
    await asyncio.to_thread(server.wait_ready)
    async with httpx.AsyncClient(base_url=server.address, timeout=60) as client:
        session = await open_session(client, source=f"file:{played}")
        async with Subscriber(server.address, session) as reader:
            await reader.until(lambda one: spoken_until(one) > 0, PATIENCE)
            yield faults(server, reader, session, client), reader


def questions_of(recording: Path) -> list[str]:
    """The questions of a scenario, or one that fits every recording."""
    truth = recording.with_suffix(".json")
    asked = json.loads(truth.read_text(encoding="utf-8")).get("qa") if truth.is_file() else None
    return [question["question"] for question in asked or ()] or ["What was said last?"]


async def _nothing() -> None:
    return None


def _says(one: Came, kind: str) -> bool:
    return one.kind == kind and "being restarted" in one.event["reason"]


def _after(one: Came | None, began: float) -> float | None:
    return None if one is None else one.at - began


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done: a fault of each worker for each of `kinds`, `every` seconds, then the crash loop."""

    kinds: Sequence[str]
    every: float
    spare: bool
    workers: Sequence[str] = WORKERS
    loop_seconds: float = LOOP_SECONDS

    @property
    def seconds(self) -> float:
        """How long all of it takes at most."""
        return len(self.kinds) * (len(self.workers) + 1) * (self.every + PATIENCE) + 10 * PATIENCE


async def run(folder: Path, recording: Path, plan: Plan) -> tuple[list[Fault], tuple[int, bool]]:
    """All faults of all workers in turn, and the crash loop of hear."""
    played = looped(recording, folder / f"played{recording.suffix}", plan.seconds)
    settings: dict[str, dict[str, Any]] = {
        "server": {"sources": [str(folder)]},
        "hear": {"spare": plan.spare},
        "budget": {"ladder": False},  # questions are taken, also where the machine is busy
        "think": {"deadline": PATIENCE},  # and their answers may take as long as the model does
    }
    with Serve(folder, settings) as server:
        async with playing(server, played) as (causes, reader):
            await reader.until(lambda one: one.kind == "latency.report", PATIENCE)
            workers = list(plan.workers)
            if "think" in workers and not await causes.wake_think(questions_of(recording)):
                workers.remove("think")
            if plan.spare and "hear" in workers:
                await asyncio.sleep(SPARE_SECONDS + SPARE_LOADS)
            found = []
            for kind in plan.kinds:
                for worker in (*workers, "none"):
                    began = time.monotonic()
                    found.append(await causes.cause(worker, kind))
                    print(asdict(found[-1]), file=sys.stderr, flush=True)
                    await asyncio.sleep(max(SETTLE, began + plan.every - time.monotonic()))
            return found, await causes.crash_loop("hear", plan.loop_seconds)


# --- report ---------------------------------------------------------------------------------------------


def verdict(faults: Sequence[Fault], loop: tuple[int, bool], *, spare: bool) -> list[str]:
    """What was promised and missed; [] if nothing."""
    tried = {fault.worker for fault in faults}
    wrong = [f"{worker} was never started, so it had no faults" for worker in WORKERS if worker not in tried]
    for fault in faults:
        name = f"{fault.kind} of {fault.worker}"
        limit = WARM if spare or fault.worker != "hear" else COLD
        if not fault.alive:
            wrong.append(f"{name}: the session has ended")
        if fault.worker == "none":
            continue
        if fault.told is None or fault.told > TOLD:
            wrong.append(f"{name}: told after {_seconds(fault.told)}")
        if fault.captions is None or fault.captions > limit:
            wrong.append(f"{name}: captions after {_seconds(fault.captions)}")
        if fault.unready is None or fault.back is None:
            wrong.append(f"{name}: /readyz did not tell it")
    starts, back = loop
    if starts > STARTS:
        wrong.append(f"{starts} starts in the first minute of a crash loop")
    if not back:
        wrong.append("the worker did not come back after a crash loop, or the session has ended")
    return wrong


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


def table(faults: Sequence[Fault]) -> str:
    """A line for each worker and kind of fault: median and maximum."""
    rows = []
    for worker, kind in dict.fromkeys((fault.worker, fault.kind) for fault in faults):
        of = [fault for fault in faults if (fault.worker, fault.kind) == (worker, kind)]
        cells = []
        for name in ("told", "unready", "captions", "back"):
            values = [value for fault in of if (value := getattr(fault, name)) is not None]
            missing = len(of) - len(values)
            middle, most = percentile(values, 50), percentile(values, 100)
            cell = "-" if middle is None or most is None else f"{middle:.2f} / {most:.2f}"
            cells.append(f"{cell}, never: {missing}" if missing and worker != "none" else cell)
        lived = sum(fault.alive for fault in of)
        rows.append((worker, "-" if worker == "none" else kind, *cells, f"{lived} of {len(of)}"))
    heads = ("worker", "fault", "degraded s", "not ready s", "captions again s", "ready again s", "lived")
    return markdown_table(heads, rows)


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--faults", type=int, default=20, help="of each kind and worker (%(default)s)")
    parser.add_argument(
        "--every", type=float, default=15.0, help="seconds from one fault to the next (%(default)s)"
    )
    parser.add_argument("--no-spare", action="store_true", help="hear.spare = false")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of recordings (%(default)s)")
    chosen = parser.parse_args()
    if chosen.every * (len(WORKERS) + 1) < SPARE_SECONDS + SPARE_LOADS:
        parser.error("--every is too short: a spare would not be ready, and faults would count as a loop")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        plan = Plan(("kill", "freeze") * chosen.faults, chosen.every, not chosen.no_spare)
        faults, loop = asyncio.run(run(Path(folder), (chosen.media / SCENARIO).resolve(), plan))
    crashed = f"{loop[0]} starts in {LOOP_SECONDS:.0f} s; {'came back' if loop[1] else 'stayed away'}"
    wrong = verdict(faults, loop, spare=not chosen.no_spare)
    figures = {"faults": faults, "loop": loop}
    report.finish(f"{table(faults)}\ncrash loop: {crashed}", figures, wrong, chosen.json)


if __name__ == "__main__":
    main()
