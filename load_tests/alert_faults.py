"""The faults of `load_tests.alerts`: for each alert something that really goes wrong.

What begins a stage starts servers that are well, and returns. A fault is kept up until it is cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket

import httpx

from load_tests import tone_engine
from load_tests.alert_stage import (
    PLACES,
    Stage,
    event_stream,
    fill,
    forever,
    mounted,
    pulses,
    silent_sockets,
)
from load_tests.cluster_nodes import Node, Redis, settings_of
from load_tests.rtp_media import Recording
from load_tests.rtp_sender import Publisher, whip
from load_tests.serve_process import KEY
from tests.builders.free_ports import free_tcp_port
from tests.builders.turn_server import coturn_command
from tests.fakes.http_receiver import listening
from tests.fakes.udp_relay import Link, UdpRelay, service_address, through, without_candidates

RELAYS = 4  # TURN servers: a dead one is left out for a minute, and three failures in a minute make the alert
TURN_SECRET = "a secret of load tests"
DESCRIPTORS = 400
# Root, but bound by the permissions of files as everybody is.
AS_USER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


# --- publishers and subscribers ---------------------------------------------------------------------------


async def publishers(stage: Stage) -> None:
    limits = {"header_seconds": 2.0}
    stage.closing.push_async_callback(stage.collector.aclose)
    collector = await stage.collector.enter_async_context(listening())
    await stage.serve(
        {
            "limits": limits,
            "server": {"private_urls": True},
            "ingest": {"handshake_seconds": 5.0, "video": "full"},
            "store": {"record": "asked", "record_bytes": 100_000},
            "tracing": {"endpoint": collector.url},
        }
    )
    await stage.publish("stays", stage.media.film)
    session = await stage.session_of("stays")
    async with stage.client() as client:  # so that there is a past that no socket's buffer holds
        for word in range(tone_engine.WORDS):
            body = {"when": f'"w{word}"', "cooldown_s": 0}
            (await client.post(f"/v1/sessions/{session}/watches", json=body)).raise_for_status()


async def publisher_vanishes(stage: Stage) -> None:
    publisher = await stage.publish("vanishes")
    await asyncio.sleep(2.0)
    await publisher.vanish()
    await forever()


async def one_too_many(stage: Stage) -> None:
    """Fill all places, and ask for one more each second."""
    for number in itertools.count():
        try:
            await stage.publish(f"more-{number}")
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 503:
                raise
        await asyncio.sleep(1.0)


async def offers_alone(stage: Stage) -> None:
    for number in itertools.count():
        await stage.offer(f"offer-{number}")
        await asyncio.sleep(2.5)


async def says_nothing(stage: Stage) -> None:
    while True:
        with silent_sockets(stage.server.port, 8):
            await asyncio.sleep(2.5)


async def webhook_fails(stage: Stage) -> None:
    session = await stage.session_of("stays")
    async with listening(*[500] * 1000) as receiver, stage.client() as client:
        body = {"when": '"w1"', "webhook": f"{receiver.url}/hook", "cooldown_s": 3600}
        answer = await client.post(f"/v1/sessions/{session}/watches", json=body)
        answer.raise_for_status()
        await forever()


async def recording_too_long(stage: Stage) -> None:
    await stage.play(record=True)
    await forever()


async def collector_dies(stage: Stage) -> None:
    await stage.collector.aclose()
    await forever()


async def slow_subscribers(stage: Stage) -> None:
    """Ten more subscribers every ten seconds, of which each reads a kilobyte a second."""
    session = await stage.session_of("stays")
    made: list[socket.socket] = []
    try:
        for number in itertools.count():
            if number % 20 == 0:
                made += [event_stream(stage.server.port, session) for _ in range(10)]
            for one in made:
                with contextlib.suppress(OSError):  # nothing has come, or it was closed
                    one.recv(512)
            await asyncio.sleep(0.5)
    finally:
        for one in made:
            one.close()


async def serve_stands_still(stage: Stage) -> None:
    """Six seconds of pictures come at once when it goes on: more than the queue of frames holds."""
    film = stage.media.film
    await stage.publish("pictures", Recording(video=film.video, twin=film.twin))
    await pulses(lambda: stage.server.pid, 6.0, 2.5)


# --- ICE servers ------------------------------------------------------------------------------------------


async def relays(stage: Stage) -> None:
    port = free_tcp_port()
    command = coturn_command(stage.folder, "127.0.0.1", port, TURN_SECRET)
    command += [f"--listening-ip=127.0.0.{number}" for number in range(2, RELAYS + 1)]
    stage.folder.mkdir(parents=True, exist_ok=True)
    with (stage.folder / "turn.log").open("wb") as log:
        stage.relays = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    stage.closing.push_async_callback(relays_die, stage)
    urls = [f"turn:127.0.0.{number}:{port}?transport=tcp" for number in range(1, RELAYS + 1)]
    turn = {"urls": urls, "secret": TURN_SECRET}
    await stage.serve({"ingest": {"turn": turn, "handshake_seconds": 5.0}})
    await stage.publish("relayed")


async def relays_die(stage: Stage) -> None:
    with contextlib.suppress(ProcessLookupError):
        stage.relays.kill()
    await stage.relays.wait()


async def dead_relays(stage: Stage) -> None:
    await relays_die(stage)
    for number in itertools.count():
        await stage.offer(f"relayed-{number}")
        await asyncio.sleep(2.5)


# --- speech -----------------------------------------------------------------------------------------------


async def speech(stage: Stage) -> None:
    await stage.serve({"budget": {"ladder": True}})
    await stage.publish("speech", stage.media.film)


async def sound_without_words(stage: Stage) -> None:
    publisher = await stage.publish("whistle", stage.media.whistle)
    try:
        await forever()
    finally:
        await publisher.close()


async def broken_network(stage: Stage) -> None:
    """A publisher whose network is away for one second of three: losses below 0.3 s are no gap."""
    plain = whip(f"{stage.server.address}/whip/broken", KEY)
    made: list[UdpRelay] = []
    async with contextlib.AsyncExitStack() as relays:

        async def relayed(offer: str) -> str:
            answer = await plain(without_candidates(offer))
            made.append(await relays.enter_async_context(UdpRelay(service_address(answer), Link(), 1)))
            return through(answer, made[0].port)

        publisher = Publisher(stage.media.tones)
        try:
            await publisher.connect(relayed)
            publisher.begin()
            while True:
                for loss, seconds in ((0.0, 2.0), (1.0, 1.0)):
                    made[0].up.link = Link(loss=loss)
                    await asyncio.sleep(seconds)
        finally:
            await publisher.close()


async def hear_has_no_processor(stage: Stage) -> None:
    await pulses(lambda: stage.server.workers()["hear"], 1.2, 0.2)


async def hear_is_killed(stage: Stage) -> None:
    killed = 0
    while True:
        pid = stage.server.workers()["hear"]
        if pid != killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed = pid
        await asyncio.sleep(0.05)


# --- disks ------------------------------------------------------------------------------------------------


async def big_disk(stage: Stage) -> None:
    place = await mounted(stage, "disk", "2000m")
    await stage.serve({"store": {"bytes": 600_000}}, place=str(place))
    await stage.publish("stored")


async def disk_gets_low(stage: Stage) -> None:
    file = stage.folder / "disk" / "other"
    try:
        await asyncio.to_thread(fill, file, 1_980_000_000)
        await forever()
    finally:
        file.unlink(missing_ok=True)


async def many_sessions_end(stage: Stage) -> None:
    """Each takes some 30 kB of the disk."""
    async with stage.client() as client:
        for _ in range(60):
            made = (await client.post("/v1/sessions", json={})).raise_for_status().json()
            await client.delete(f"/v1/sessions/{made['id']}")
    await forever()


async def small_disk(stage: Stage) -> None:
    place = await mounted(stage, "disk", "24m")
    await stage.serve(place=str(place), within=AS_USER)
    await stage.publish("stored")


async def disk_is_full(stage: Stage) -> None:
    file = stage.folder / "disk" / "other"
    try:
        for number in itertools.count():
            await asyncio.to_thread(fill, file, 0)
            with contextlib.suppress(httpx.HTTPError):
                await stage.offer(f"logged-{number}")
            await asyncio.sleep(0.25)
    finally:
        file.unlink(missing_ok=True)


async def folder_is_locked(stage: Stage) -> None:
    folder = stage.folder / "disk"
    folder.chmod(0)
    try:
        await forever()
    finally:
        folder.chmod(0o755)


# --- the process ------------------------------------------------------------------------------------------


async def process(stage: Stage) -> None:
    few = ("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}")
    limits = {"unpublished": 500, "unpublished_per_holder": 500, "header_seconds": 600.0}
    await stage.serve({"limits": limits}, within=few)


async def descriptors_run_out(stage: Stage) -> None:
    """Sessions that wait for a publisher, each with three files, and connections that say nothing."""
    async with stage.client() as client:
        for _ in range(8):
            await asyncio.gather(*(client.post("/v1/sessions", json={}) for _ in range(10)))
    with silent_sockets(stage.server.port, 110):
        await forever()


async def restarts(stage: Stage) -> None:
    for _ in range(4):
        stage.server.kill()
        await asyncio.to_thread(stage.server.start)
        await asyncio.sleep(3.0)
    await forever()


async def kill(stage: Stage) -> None:
    await asyncio.to_thread(stage.server.kill)
    await forever()


# --- the cluster ------------------------------------------------------------------------------------------


async def cluster(stage: Stage) -> None:
    stage.redis = Redis(stage.folder / "redis")
    stage.redis.start()
    stage.closing.callback(stage.redis.kill)
    nodes = [Node(name, stage.folder / name, stage.redis, settings_of(PLACES)) for name in ("a", "b")]
    await stage.start(*nodes)
    await stage.publish("shared")


async def node_stands_still(stage: Stage) -> None:
    """Its session goes on at the other node, where its publisher comes again; then it wakes up."""
    node = stage.server.pid
    os.kill(node, signal.SIGSTOP)
    await stage.publishers["shared"].vanish()
    try:
        for _ in range(60):
            await asyncio.sleep(1.0)
            with contextlib.suppress(httpx.HTTPError, TimeoutError):
                await stage.publish("shared", server=1)
                break
    finally:
        os.kill(node, signal.SIGCONT)
    await forever()


async def node_dies(stage: Stage) -> None:
    other = stage.servers[1]
    await asyncio.to_thread(other.kill)
    try:
        await forever()
    finally:
        await asyncio.to_thread(other.start)
        await asyncio.to_thread(other.wait_ready)


async def redis_dies(stage: Stage) -> None:
    stage.redis.kill()
    try:
        await forever()
    finally:
        await asyncio.to_thread(stage.redis.start)
