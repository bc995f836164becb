"""The publishers of a step of `load_tests.publishers`, in a process of their own (`beside.Beside`)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx

from load_tests import publish_scenario
from load_tests.beside import begun
from load_tests.publish_scenario import LINKS, Scenario
from load_tests.rtp_sender import Exchange, Publisher, whip
from tests.fakes.udp_relay import Link, UdpRelay, service_address, through, without_candidates

STAGGER = 0.137  # seconds between two publishers: who begins all at once is not how people come
SETTLE = 2.0  # seconds after the media, until the last caption is closed


def relayed(url: str, link: Link, seed: int, relays: AsyncExitStack) -> Exchange:
    """The exchange of a WHIP door through a UDP relay of its own."""
    plain = whip(url)

    async def exchange(offer: str) -> str:
        answer = await plain(without_candidates(offer))
        relay = await relays.enter_async_context(UdpRelay(service_address(answer), link, seed))
        return through(answer, relay.port)

    return exchange


async def _publish(scenario: Scenario, folder: Path, urls: Sequence[str]) -> dict[str, Any]:
    if scenario.sender_cpus:
        os.sched_setaffinity(0, scenario.sender_cpus)
    media = (await asyncio.to_thread(publish_scenario.played, scenario, folder)).media
    link = LINKS[scenario.link]
    refused = 0
    taken: list[int] = []
    publishers: dict[int, Publisher] = {}
    async with AsyncExitStack() as relays:
        try:
            for number, url in enumerate(urls):
                exchange = whip(url) if link == Link() else relayed(url, link, scenario.seed + number, relays)
                publishers[number] = Publisher(media)
                try:
                    await publishers[number].connect(exchange)
                    taken.append(number)
                except httpx.HTTPStatusError as error:
                    if error.response.status_code != 503:
                        raise
                    refused += 1
            for place, number in enumerate(taken):
                publishers[number].begin(STAGGER * place)
            begun()
            cpu, started = time.process_time(), time.monotonic()
            for place in range(len(taken)):
                await asyncio.sleep(started + STAGGER * place + scenario.seconds - 0.01 - time.monotonic())
                for track in publishers[taken[place]].tracks:
                    track.paused = True
            spent = (time.process_time() - cpu) / (time.monotonic() - started)
            await asyncio.sleep(SETTLE)
        finally:
            for publisher in publishers.values():
                await publisher.close()
    monotonic = time.monotonic() - time.time()
    return {
        "cpu": spent,
        "refused": refused,
        "publishers": {
            urls[number]: {
                "began": publishers[number].began + monotonic,
                "counts": publishers[number].counts(),
            }
            for number in taken
        },
    }


def send(scenario: dict[str, Any], folder: str, urls: Sequence[str]) -> dict[str, Any]:
    """Publish a scenario's media to each address, once through.

    Returns:
        publishers: by address, `began` (monotonic second of the first packet) and `counts`. refused: how
        many were not taken. cpu: seconds a second of this process while it sent.
    """
    return asyncio.run(_publish(Scenario.model_validate(scenario), Path(folder), urls))
