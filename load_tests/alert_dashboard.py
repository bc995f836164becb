"""A cluster that plays for two minutes, and what the panels of the dashboard show of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import httpx

from load_tests.alert_faults import broken_network
from load_tests.alert_stage import PLACES, Media, Stage, merged
from load_tests.cluster_nodes import Node, Redis, settings_of
from load_tests.dashboard_picture import Panel, panels
from load_tests.prometheus_process import SPEED, Prometheus
from load_tests.serve_process import KEY
from load_tests.subscriber import Subscriber
from tests.fakes.http_receiver import listening

SECONDS = 120.0
QUESTIONS = ("What was said last?", "What is on the screen?", "How many words were said?")


async def played(folder: Path, media: Media, prometheus: Prometheus) -> list[Panel]:
    """The panels of two nodes with publishers, subscribers, questions and a watch.

    A worker is killed, a publisher's network is away now and then, Redis is away for five seconds, and
    publishers are refused, so that lines leave 0.
    """
    stage = Stage(folder, media)
    async with stage.closing:
        await _begin(stage)
        await prometheus.scrape(stage.targets)
        async with asyncio.timeout(10 * SECONDS), asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_ask(stage))
            losing = tasks.create_task(broken_network(stage))
            await _small_faults(stage)
            asking.cancel()
            losing.cancel()
        return await panels(prometheus, SECONDS, SPEED)


async def _begin(stage: Stage) -> None:
    collector = await stage.closing.enter_async_context(listening())
    receiver = await stage.closing.enter_async_context(listening())
    stage.redis = Redis(stage.folder / "redis")
    stage.redis.start()
    stage.closing.callback(stage.redis.kill)
    settings = merged(
        settings_of(PLACES),
        {
            "tracing": {"endpoint": collector.url},
            "server": {"private_urls": True},
            "budget": {"ladder": True},
        },
    )
    await stage.start(*(Node(name, stage.folder / name, stage.redis, settings) for name in ("a", "b")))
    for name, server in (("lecture", 0), ("talk", 0), ("film", 1)):
        await stage.publish(name, stage.media.film, server)
        session = await stage.session_of(name, server)
        for _ in range(3):
            reader = Subscriber(stage.servers[server].address, session, KEY)
            await stage.closing.enter_async_context(reader)
        async with stage.client(server) as client:
            watch = {"when": '"w1"', "webhook": f"{receiver.url}/hook", "cooldown_s": 5}
            (await client.post(f"/v1/sessions/{session}/watches", json=watch)).raise_for_status()


async def _ask(stage: Stage) -> None:
    session = await stage.session_of("lecture")
    async with stage.client() as client:
        while True:
            for question in QUESTIONS:
                with contextlib.suppress(httpx.HTTPError):
                    await client.post(f"/v1/sessions/{session}/questions", json={"text": question})
                await asyncio.sleep(3.0)


async def _small_faults(stage: Stage) -> None:
    part = SECONDS / 6
    await asyncio.sleep(2 * part)
    with contextlib.suppress(ProcessLookupError):
        os.kill(stage.server.workers()["see"], signal.SIGKILL)
    await asyncio.sleep(part)
    stage.redis.kill()
    await asyncio.sleep(5.0)
    await asyncio.to_thread(stage.redis.start)
    await asyncio.sleep(part)
    for number in range(2 * PLACES):
        with contextlib.suppress(httpx.HTTPError, TimeoutError):
            await stage.offer(f"over-{number}")
    await asyncio.sleep(2 * part)
