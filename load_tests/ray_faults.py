"""Kill the replica of a model on Ray Serve, again and again, while a session plays speech in real time.

    python -m load_tests.ray_faults [--kills 20] [--every 15] [--json FILE]

Starts Ray with the real models of hear and see (`streamsvc cluster serve-models --address local`), and a
service that computes none. Hear's replica is killed `kills` times. Promises: each is told by
`session.degraded`, captions of later speech come again, and the session lives. How soon is told: a replica
loads its models anew, and Ray looks for dead ones once a second. Exit status 1: a promise was missed. Needs
the extra "cluster".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from load_tests import report
from load_tests.crash import SCENARIO
from load_tests.hearing import MEDIA
from load_tests.looped import looped
from load_tests.serve_process import Serve
from load_tests.worker_faults import PATIENCE, SETTLE, Fault, Faults, playing, table

WORKER = "hear"
WORKERS = ("hear", "see")
NO_MODEL = "none"  # of language: it has no part in captions
_TITLE = "ray::ServeReplica"  # how Ray calls the process of a replica


@contextlib.contextmanager
def models(folder: Path) -> Iterator[str]:
    """Ray on this machine with the models; yields its address for `workers.address`. Sets its token."""
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    settings = {
        "RAY_TMPDIR": str(folder),
        "STREAMSVC_WORKERS__REPLICA_CORES": "0.5",
        "STREAMSVC_THINK__MODEL": NO_MODEL,
    }
    chosen = [argument for name in WORKERS for argument in ("--worker", name)]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamsvc", "cluster", "serve-models", "--address", "local", *chosen],
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if not line.startswith("ready: "):
            raise SystemExit(f"the models are not on Ray: {line}")
        yield line.rpartition(" ")[2]
    finally:
        process.send_signal(signal.SIGINT)
        process.stdout.close()
        process.wait(PATIENCE)


class ReplicaFaults(Faults):
    """Faults of replicas, not of the processes that carry requests to them."""

    def _pid(self, worker: str) -> int:
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or ())
            if title.startswith(_TITLE) and worker in title:
                return int(process.pid)
        raise ProcessLookupError(f"there is no replica of {worker}")


async def run(folder: Path, recording: Path, address: str, kills: int, every: float) -> list[Fault]:
    """All kills, each followed by a time without a fault."""
    played = looped(recording, folder / f"played{recording.suffix}", (kills + 2) * (every + PATIENCE))
    settings: dict[str, dict[str, Any]] = {
        "server": {"sources": [str(folder)]},
        "workers": {"transport": "ray", "address": address},
        "think": {"model": NO_MODEL},
        "budget": {"ladder": False, "admission": False},
    }
    found = []
    with Serve(folder, settings) as server:
        async with playing(server, played, ReplicaFaults) as (causes, _):
            for _ in range(kills):
                for worker in (WORKER, "none"):
                    found.append(await causes.cause(worker, "kill"))
                    print(asdict(found[-1]), file=sys.stderr, flush=True)
                await asyncio.sleep(max(SETTLE, every))
    return found


def verdict(faults: Sequence[Fault]) -> list[str]:
    """What was promised and missed; [] if nothing."""
    kills = [fault for fault in faults if fault.worker != "none"]
    wrong = [] if kills else ["no replica was killed"]
    wrong += ["the session has ended" for fault in faults if not fault.alive][:1]
    for name, missed in (("told", "a kill was not told"), ("captions", "no captions came again")):
        if any(getattr(fault, name) is None for fault in kills):
            wrong.append(missed)
    return wrong


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--kills", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--every", type=float, default=15.0, help="seconds after one is over (%(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of recordings (%(default)s)")
    chosen = parser.parse_args()
    recording = (chosen.media / SCENARIO).resolve()
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets' paths are short
    try:
        with models(folder) as address:
            faults = asyncio.run(run(folder, recording, address, chosen.kills, chosen.every))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.finish(table(faults), faults, verdict(faults), chosen.json)


if __name__ == "__main__":
    main()
