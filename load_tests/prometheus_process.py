"""Prometheus as a process, with the project's rules in which all durations are so many times shorter.

`scaled` changes durations and nothing else: each `for:` and each range in [..]. With SPEED a scrape every
15 s (deploy/prometheus/prometheus.yml) becomes one a second, so that a range holds as many samples as in
operation. Thresholds stay as they are. A rate a second means the same in a shorter window. A number of
events in a window (`increase(..) > 2`) does not: the faults of a load test must come that much closer
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from load_tests.serve_process import KEY

PROGRAM = "prometheus"
RULES = Path(__file__).parents[1] / "deploy" / "prometheus" / "alerts.yml"
JOB = "streamsvc"
SPEED = 15.0
START_SECONDS = 30.0
POLL = 0.25
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(?P<before>\bfor: |\[)(?P<number>\d+)(?P<unit>ms|s|m|h|d)(?P<after>\]?)(?![\w.])")
_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
scrape_configs:
  - job_name: {job}
    authorization: {{credentials: {key}}}
    file_sd_configs: [{{files: [targets.json], refresh_interval: 1s}}]
"""


def missing() -> str:
    """What this machine lacks; "": nothing."""
    return "" if shutil.which(PROGRAM) else "there is no prometheus: install Debian's package prometheus"


def scaled(text: str, speed: float) -> str:
    """Rules or a query with each `for:` and each range so many times shorter; all else stays."""

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found["number"]) * _UNITS[found["unit"]]
        return f"{found['before']}{max(1, round(1000 * seconds / speed))}ms{found['after']}"

    return _DURATION.sub(shorter, text)


def durations(text: str) -> list[float]:
    """Seconds of each `for:` and each range."""
    return [int(found["number"]) * _UNITS[found["unit"]] for found in _DURATION.finditer(text)]


@dataclass(frozen=True, slots=True)
class Sample:
    """A series and its points (Unix second, value)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


class Prometheus:
    """A Prometheus on a free loopback port that scrapes its targets once a second.

    Args:
        folder: for its rules and data.
        speed: how many times shorter the durations of the rules are.
    """

    def __init__(self, folder: Path, speed: float = SPEED) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._folder = folder
        (folder / "rules.yml").write_text(scaled(RULES.read_text(), speed))
        (folder / "prometheus.yml").write_text(_CONFIG.format(job=JOB, key=KEY))
        self._write_targets(())
        self._client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def _start(self) -> None:
        arguments = {
            "config.file": self._folder / "prometheus.yml",
            "storage.tsdb.path": self._folder / "data",
            "web.listen-address": f"127.0.0.1:{self.port}",
        }
        with (self._folder / "log").open("ab") as log:
            command = [PROGRAM, *(f"--{name}={value}" for name, value in arguments.items())]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    async def __aenter__(self) -> Self:
        self._start()
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(httpx.HTTPError):
                if (await self._client.get("/-/ready")).status_code == 200:
                    return self
            await asyncio.sleep(POLL)
        await self.__aexit__()
        raise SystemExit(f"prometheus did not start; its log: {(self._folder / 'log').read_text()[-1000:]}")

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)

    def _write_targets(self, targets: Sequence[str]) -> None:
        half = self._folder / "targets.part"
        half.write_text(json.dumps([{"targets": list(targets)}]))
        half.rename(self._folder / "targets.json")

    async def scrape(self, targets: Sequence[str]) -> None:
        """Scrape these ("host:port") from now on and no others. Returns once each was scraped well.

        Raises:
            SystemExit: one was not.
        """
        self._write_targets(targets)
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            found = {one.labels["instance"]: one.points[0][1] for one in await self.query("up")}
            if found == dict.fromkeys(targets, 1.0):
                return
            await asyncio.sleep(POLL)
        raise SystemExit(f"prometheus did not scrape {', '.join(targets) or 'nothing'} in time")

    async def query(self, text: str) -> list[Sample]:
        """The series of a query now. Raises SystemExit: it is no query."""
        return _series(await self._client.post("/api/v1/query", data={"query": text}), text)

    async def query_range(self, text: str, begin: float, end: float, step: float = 1.0) -> list[Sample]:
        """The series of a query between two Unix seconds. Raises SystemExit: it is no query."""
        asked = {"query": text, "start": str(begin), "end": str(end), "step": str(step)}
        return _series(await self._client.post("/api/v1/query_range", data=asked), text)

    async def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that fire now."""
        answer = (await self._client.get("/api/v1/alerts")).raise_for_status().json()
        return [one["labels"] for one in answer["data"]["alerts"] if one["state"] == "firing"]

    async def fired(self, alert: str, seconds: float) -> bool:
        """Whether an alert was firing at any second of the last few."""
        series = f'ALERTS{{alertname="{alert}", alertstate="firing"}}[{max(1, round(seconds))}s]'
        return bool(await self.query(f"count_over_time({series})"))


def _series(answer: httpx.Response, text: str) -> list[Sample]:
    body: dict[str, Any] = answer.json()
    if body["status"] != "success":
        raise SystemExit(f"{text}: {body.get('error')}")
    return [
        Sample(
            one["metric"],
            [(float(at), float(value)) for at, value in one.get("values") or [one["value"]]],
        )
        for one in body["data"]["result"]
    ]
