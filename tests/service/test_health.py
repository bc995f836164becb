"""Readiness and the gauges of the process: measured when they are read, and true then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from streamsvc.core import metrics
from streamsvc.service import health
from tests.builders.cluster import node_of, until
from tests.builders.fake_service import at_the_door, serving
from tests.builders.redis_server import RedisServer
from tests.builders.session import Sender


def value(text: str, name: str) -> float:
    """Of a metric without labels, or with those in `name`, in the Prometheus text format."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[-1])


async def test_a_service_whose_workers_give_no_result_is_not_ready_and_its_metric_says_so(
    tmp_path: Path,
) -> None:
    async with at_the_door(tmp_path) as (_, _, client):
        assert not (await client.get("/readyz")).json()["ready"]
        metrics.ready.set(1)  # of an earlier scrape
        assert value((await client.get("/metrics")).text, "streamsvc_ready") == 0


async def test_a_service_is_ready_with_whole_models_and_results_until_it_drains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsvc.workers.supervisor.Worker.fresh", True)
    async with serving(tmp_path) as service:
        assert not health.readiness(service)["ready"], "the models are not checked yet"
        service.wrong_models = {}
        await health.measure(service)
        assert metrics.ready._value.get() == 1
        service.sessions.draining = True
        await health.measure(service)
        assert metrics.ready._value.get() == 0
        assert health.readiness(service)["draining"]


async def test_sessions_that_wait_for_their_media_are_counted_until_they_go_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        session, publisher = await service.sessions.create(), Sender()
        session.media.attach(publisher)
        await health.measure(service)
        assert metrics.sessions_stalled._value.get() == 0
        session.media.publisher_state(publisher, "stalled", "no media")
        await health.measure(service)
        assert metrics.sessions_stalled._value.get() == 1
        session.media.publisher_state(publisher, "resumed", "media again")
        await health.measure(service)
        assert metrics.sessions_stalled._value.get() == 0


async def test_free_bytes_are_those_of_the_folder_s_own_disk_and_a_broken_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Path("/dev/shm")
    async with at_the_door(tmp_path, models={"dir": memory / "not-there" / "yet"}) as (service, _, client):
        text = (await client.get("/metrics")).text
        for folder, place in (("data", tmp_path), ("models", memory)):
            told = value(text, f'streamsvc_disk_free_bytes{{folder="{folder}"}}')
            assert told == pytest.approx(shutil.disk_usage(place).free, rel=0.2)

        def broken(_: Path) -> None:
            raise OSError("stale file handle")

        monkeypatch.setattr(shutil, "disk_usage", broken)
        text = (await client.get("/metrics")).text
        assert value(text, 'streamsvc_disk_free_bytes{folder="data"}') == -1
        assert value(text, "streamsvc_process_open_fds") < value(text, "streamsvc_process_max_fds")
        assert service.settings.models.dir.parts[-1] == "yet"


async def test_whether_failover_is_on_is_told_and_costs_no_readiness(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamsvc.workers.supervisor.Worker.fresh", True)
    async with serving(tmp_path) as service:
        assert health.readiness(service)["failover"] is None
        async with node_of(redis_server) as node:
            service.cluster, service.wrong_models = node, {}
            assert health.readiness(service)["failover"] is True
            redis_server.kill()
            await until(lambda: not node.up)
            assert health.readiness(service)["failover"] is False
            assert health.readiness(service)["ready"]
        service.cluster = None
