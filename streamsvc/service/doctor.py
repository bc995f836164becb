"""`streamsvc doctor`: what on this machine would keep the service from working, and what to do about it.

Each check looks at one thing and takes a few seconds at most. Nothing is changed, and no key is shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psutil
from aioice import stun
from rich.console import Console

from streamsvc.cluster.redis_client import RedisClient, items, text
from streamsvc.cluster.registry import Registry
from streamsvc.core import clock
from streamsvc.core.config import Cluster, Settings
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.core.web_address import port_range
from streamsvc.ingest import rtmp_nginx, sandbox, srt_program
from streamsvc.service.certificate import certificate
from streamsvc.service.engine_table import vision_runtime, wrong_models

Verdict = Literal["ok", "warning", "fault"]
ICE_SECONDS = 2.0  # that an ICE server has to answer
_GB = 1e9
_FREE_DISK = 2 * _GB  # bytes; less is a warning
_FREE_MEMORY = 1.5 * _GB
_DESCRIPTORS = 4096
_EXPIRES_SOON = timedelta(days=14)
_COLOURS: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "fault": "red"}
_UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
_DEFAULT_PORTS = {"stun": 3478, "turn": 3478, "stuns": 5349, "turns": 5349}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found. `advice`: what to do; "" where nothing is wrong."""

    check: str
    verdict: Verdict
    text: str
    advice: str = ""


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """What is found on this machine for a service with these settings, one check after the other."""
    yield _port(settings.server.host, settings.server.port)
    yield _udp(settings.server.host, settings.ingest.udp_ports, settings.limits.sessions)
    for url in (*settings.ingest.ice_servers, *settings.ingest.turn.urls):
        yield await _ice_server(url)
    yield await asyncio.to_thread(_sandbox, settings.ingest.sandbox)
    if settings.ingest.rtmp_listen:
        yield _rtmp(settings.ingest.rtmp_listen)
    if settings.ingest.srt_listen:
        yield _srt(settings.ingest.srt_listen)
    if settings.cluster.url is not None:
        yield await _redis(settings.cluster)
    yield _tls(settings)
    yield _weights(await asyncio.to_thread(wrong_models, settings))
    yield _vision(await asyncio.to_thread(vision_runtime, settings))
    yield await asyncio.to_thread(_gpu, settings)
    yield _clock()
    for name, folder in (("data", settings.data_dir), ("models", settings.models.dir)):
        yield _disk(name, folder)
    yield _memory()
    yield _descriptors()


async def show(settings: Settings) -> bool:
    """Print the findings; returns whether one is a fault."""
    console, faulty = Console(highlight=False, soft_wrap=True), False
    async for finding in examine(settings):
        console.print(f"[{_COLOURS[finding.verdict]}]{finding.verdict:8}[/] {finding.check:12} ", end="")
        console.print(finding.text, markup=False)
        if finding.advice:
            console.print(f"{'':22}-> {finding.advice}", markup=False)
        faulty = faulty or finding.verdict == "fault"
    return faulty


def _port(host: str, port: int) -> Finding:
    if port == 0:
        return Finding("port", "ok", "any free TCP port is taken")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            advice = "choose another with --port, or stop what listens there (it may be this service)"
            return Finding("port", "fault", f"TCP {host} {port}: {error.strerror}", advice)
    return Finding("port", "ok", f"TCP {host} {port} is free")


async def _redis(settings: Cluster) -> Finding:
    """Whether the Redis of the cluster answers, and keeps what it is given."""
    try:
        redis = RedisClient(settings)
    except ConfigError as error:
        return Finding("redis", "fault", "the package redis is not installed", error.message)
    try:
        nodes = await Registry(redis, settings, "", 0.0).nodes()
        evicts = items(await redis.run("CONFIG", "GET", "maxmemory-policy"))
    except StreamsvcError as error:
        advice = "start it, or correct cluster.url, its password, or what this user may do"
        return Finding("redis", "fault", error.message, advice)
    except (ValueError, TypeError):
        advice = "choose another cluster.prefix"
        return Finding("redis", "fault", "it holds something else below cluster.prefix", advice)
    finally:
        await redis.close()
    if evicts and text(evicts[-1]) != "noeviction":
        told = f"maxmemory-policy is {text(evicts[-1])}: with its memory full it forgets sessions"
        return Finding("redis", "warning", told, "set maxmemory-policy noeviction")
    return Finding("redis", "ok", f"it answers; nodes of the cluster that live: {len(nodes)}")


def _udp(host: str, ports: str, publishers: int) -> Finding:
    if ports and len(port_range(ports)) < publishers:
        told = f"ingest.udp_ports has {len(port_range(ports))} ports for {publishers} publishers"
        return Finding("udp", "warning", told, "each needs one: widen the range, or lower limits.sessions")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            return Finding(
                "udp", "fault", f"no UDP port: {error.strerror}", "WebRTC needs UDP: allow it here"
            )
    return Finding("udp", "ok", "UDP ports can be opened; that publishers reach them a firewall must allow")


async def _ice_server(url: str) -> Finding:
    scheme, _, rest = url.partition(":")
    parts = urlsplit(f"//{rest}")
    name = f"{scheme}:{parts.hostname}"  # without a user name or a key
    if scheme not in _DEFAULT_PORTS or not parts.hostname:
        advice = 'write "stun:host:port" or "turn:host:port" in ingest.ice_servers'
        return Finding("ice", "fault", f"{name} is no ICE server", advice)
    advice = "publishers behind NAT cannot reach this server; check host, port and firewall"
    try:
        await _bind_by_stun(parts.hostname, parts.port or _DEFAULT_PORTS[scheme])
    except (OSError, TimeoutError):
        return Finding("ice", "warning", f"{name} does not answer within {ICE_SECONDS:.0f} s", advice)
    return Finding("ice", "ok", f"{name} answers")


async def _bind_by_stun(host: str, port: int) -> None:
    """Send a STUN binding request (RFC 8489) until an answer comes. Raises OSError, TimeoutError."""
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: object) -> None:
            if not answered.done():
                answered.set_result(None)

        def error_received(self, error: Exception) -> None:
            if not answered.done():
                answered.set_exception(error)

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(ICE_SECONDS):
        transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(host, port))
        try:
            request = bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST))
            while not answered.done():
                transport.sendto(request)
                await asyncio.wait({answered}, timeout=0.5)
            answered.result()
        finally:
            transport.close()


def _rtmp(listen: str) -> Finding:
    try:
        rtmp_nginx.installed()
        rtmp_nginx.free(listen)
    except ConfigError as error:
        advice = "install what is missing, or stop what listens there (it may be this service)"
        return Finding("rtmp", "fault", error.message, advice)
    return Finding("rtmp", "ok", f"nginx with its RTMP module is there, TCP {listen} is free")


def _srt(listen: str) -> Finding:
    try:
        srt_program.check_library()
        srt_program.bound(listen).close()
    except ConfigError as error:
        advice = "install what is missing, or stop what listens there (it may be this service)"
        return Finding("srt", "fault", error.message, advice)
    return Finding("srt", "ok", f"libsrt is there, UDP {listen} is free")


def _tls(settings: Settings) -> Finding:
    from cryptography import x509  # imported here: it takes a while, and TLS is off by default

    if settings.server.tls_self_signed:
        return Finding("tls", "ok", "a self-signed certificate is made at start; browsers warn of it")
    try:
        files = certificate(settings)
        if files is None:
            advice = "browsers give camera and microphone to https or localhost alone: use --tls, or a proxy"
            if settings.server.host in ("127.0.0.1", "localhost", "::1"):
                advice = ""
            return Finding("tls", "warning" if advice else "ok", "TLS is off", advice)
        found = x509.load_pem_x509_certificate(Path(files[0]).read_bytes())
    except (StreamsvcError, OSError, ValueError) as error:
        text = error.message if isinstance(error, StreamsvcError) else "the certificate cannot be read"
        return Finding("tls", "fault", text, "check server.tls_cert and server.tls_key")
    left = found.not_valid_after_utc - clock.utc()
    if left < timedelta(0):
        return Finding("tls", "fault", f"the certificate expired {-left.days} days ago", "renew it")
    if left < _EXPIRES_SOON:
        return Finding("tls", "warning", f"the certificate expires in {left.days} days", "renew it")
    return Finding("tls", "ok", f"the certificate is valid for {left.days} days")


def _sandbox(mode: str) -> Finding:
    if mode == "off":
        advice = 'set ingest.sandbox = "auto": what a stranger wrote is better not parsed by the service'
        return Finding("sandbox", "warning", "files and URLs are read by the service itself", advice)
    layers = sandbox.examine()
    text = f"files and URLs are read by processes {sandbox.described(layers)}"
    if sandbox.enough(layers, loopback=True):
        return Finding("sandbox", "ok", text)
    advice = "install libseccomp2, and allow user namespaces to this user or container, for RTSP above all"
    refused = mode == "require" and not sandbox.enough(layers)
    return Finding("sandbox", "fault" if refused else "warning", text, advice)


def _weights(wrong: Mapping[str, str]) -> Finding:
    if wrong:
        return Finding(
            "weights", "fault", " ".join(wrong.values()), f"streamsvc models pull {' '.join(wrong)}"
        )
    return Finding("weights", "ok", "all models are there, with the sha256 of the registry")


def _vision(runtime: str) -> Finding:
    if not runtime:
        advice = "streamsvc models pull measures it; else the first start does, for half a minute"
        return Finding("vision", "warning", "no runtime is chosen yet for the vision encoder", advice)
    return Finding("vision", "ok", f"the vision encoder runs in {runtime}")


def _gpu(settings: Settings) -> Finding:
    if settings.models.profile != "gpu" and settings.hear.device != "cuda":
        return Finding("gpu", "ok", "not used by these settings")
    if shutil.which("nvidia-smi") is None or not Path("/dev/nvidiactl").exists():
        advice = 'install its driver, or set models.profile = "embedded" and hear.device = "cpu"'
        return Finding("gpu", "fault", "no NVIDIA GPU is to be seen here", advice)
    return Finding("gpu", "ok", "an NVIDIA GPU is there")


def _clock() -> Finding:
    """By adjtimex(2), read-only: whether the kernel says that the clock is not disciplined."""
    buffer = ctypes.create_string_buffer(512)  # struct timex with modes 0; `status` is at byte 40
    with contextlib.suppress(AttributeError, OSError):
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) >= 0:
            if int.from_bytes(buffer.raw[40:44], "little") & _UNSYNCHRONISED:
                text = "nothing keeps this machine's clock right (the kernel says: unsynchronised)"
                advice = "run chrony or systemd-timesyncd: tokens and signed addresses expire by it"
                return Finding("clock", "warning", text, advice)
            return Finding("clock", "ok", "the clock is synchronised")
    return Finding("clock", "warning", "the kernel does not tell whether the clock is synchronised")


def _disk(name: str, folder: Path) -> Finding:
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        text = f"{name} folder {folder}: {error.strerror}"
        return Finding("disk", "fault", text, "make it writable, or set server.data_dir or models.dir")
    if free < _FREE_DISK:
        text = f"{name} folder {folder}: {free / _GB:.1f} GB free"
        return Finding("disk", "warning", text, "make room: what cannot be stored is lost at a restart")
    return Finding("disk", "ok", f"{name} folder {folder}: {free / _GB:.0f} GB free")


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    cores = os.cpu_count() or 1
    text = f"{free / _GB:.1f} GB of memory available, {cores} cores"
    if free < _FREE_MEMORY:
        return Finding("memory", "fault", text, "the models need 1.5 GB: stop other programs")
    if cores < 2:
        return Finding("memory", "warning", text, "captions keep their times with two cores or more")
    return Finding("memory", "ok", text)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _DESCRIPTORS:
        advice = f"ulimit -n {min(_DESCRIPTORS, hard)}, or LimitNOFILE= in the systemd unit"
        return Finding("descriptors", "warning", f"{soft} files may be open at once", advice)
    return Finding("descriptors", "ok", f"{soft} files may be open at once")
