"""Mutated RTP and RTCP of a publisher that has every right to send: does the session live?

    python -m load_tests.rtp_mutations [--packets 100000] [--seed 7] [--json FILE]

A publisher (aiortc, a process of its own) sends a tone in Opus and pictures in VP8, then another one pictures
in H.264, over real ICE, DTLS and SRTP to a service in this process, whose models are stand-ins: they get
samples and pictures alone. Beside what it sends, mutants of its own packets are handed over behind SRTP, at
a pace that leaves half of the event loop free: ICE consent that is not answered six times ends a call as if
the publisher had left. Mutants have bits flipped, are cut short or lengthened, or have wrong header fields,
padding, extensions, jumps of sequence and time, other payload types and streams, or broken codec payloads;
and there are RTCP compounds of random headers. Promises: no packet raises (aiortc would end the call) or
takes more than STALL ms of CPU time, no line with a traceback is logged, memory grows by GROWTH MB at most
once the first tenth has been sent, the session lives, and captions and pictures come again after it. Exit
status 1: a promise was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import gc
import json
import logging
import os
import random
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import structlog
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack

from load_tests import report
from load_tests.serve_process import memory_mb
from streamsvc.core import clock, malloc
from streamsvc.ingest import aiortc_hooks, consent
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.fake_service import serving
from tests.builders.webrtc import Noise

CODECS = ("VP8", "H264")
STALL, GROWTH = 50.0, 20.0  # milliseconds, MB
KEPT = 2000  # packets of the publisher that are mutated, the newest
BATCH = 2  # mutants in one go
PAUSE = 0.002  # seconds at least between them, and as long as they took: ICE must not wait
PATIENCE = 60.0
RTCP_SHARE = 0.15  # of the mutants


class Tone(AudioStreamTrack):
    """Two seconds of a tone, which the stand-in of the hear model takes for speech, and one of silence."""

    async def recv(self) -> Any:
        """The next 20 ms."""
        frame: Any = await super().recv()
        if frame.pts // frame.sample_rate % 3 == 2:
            return frame
        wave = (b"\x00\x30" * 10 + b"\x00\xd0" * 10) * (frame.samples // 20 + 1)
        frame.planes[0].update(wave[: frame.samples * 2])
        return frame


# --- mutants --------------------------------------------------------------------------------------------


def _flipped(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randint(0, len(data)) :]


def _lengthened(rng: random.Random, data: bytearray) -> None:
    data += rng.randbytes(rng.randint(1, 1200))


def _header(rng: random.Random, data: bytearray) -> None:
    data[0] = 0x80 | rng.randrange(64)  # padding, extension, number of sources


def _padded(rng: random.Random, data: bytearray) -> None:
    data[0] |= 0x20
    data[-1] = rng.choice((0, 1, len(data) & 0xFF, 255))


def _extended(rng: random.Random, data: bytearray) -> None:
    data[0] |= 0x10
    words = rng.randint(0, 4)
    told = rng.choice((words, words, 0, 0xFFFF, rng.randrange(1 << 16)))
    profile = rng.choice((0xBEDE, 0x1000, rng.randrange(1 << 16)))
    data[12:12] = profile.to_bytes(2, "big") + told.to_bytes(2, "big") + rng.randbytes(4 * words)


def _jumped(rng: random.Random, data: bytearray) -> None:
    if rng.random() < 0.7:
        data[2:4] = rng.randbytes(2)
    if rng.random() < 0.7:
        data[4:8] = rng.randbytes(4)


def _other_type(rng: random.Random, data: bytearray) -> None:
    data[1] = rng.choice((rng.randrange(96, 128), rng.randrange(256)))


def _other_stream(rng: random.Random, data: bytearray) -> None:
    data[8:12] = rng.randbytes(4)


def _payload(rng: random.Random, data: bytearray) -> None:
    size = rng.choice((0, 1, 2, 3, len(data) - 12))
    data[12:] = rng.randbytes(max(0, size))


def _payload_head(rng: random.Random, data: bytearray) -> None:
    for place in range(12, min(len(data), 12 + rng.randint(1, 6))):
        data[place] = rng.randrange(256)


MUTATIONS = (
    _flipped, _cut, _lengthened, _header, _padded, _extended, _jumped, _other_type, _other_stream, _payload,
    _payload_head,
)  # fmt: skip


def mutant(rng: random.Random, packet: bytes) -> bytes:
    """A packet with one to three mutations; still RTP of version 2 at first sight."""
    data = bytearray(packet)
    for _ in range(rng.randint(1, 3)):
        if len(data) >= 12:
            rng.choice(MUTATIONS)(rng, data)
    return bytes(data)


def rtcp(rng: random.Random, known: int) -> bytes:
    """A compound of one to four packets, random but for their types. `known`: a stream of the publisher."""
    compound = bytearray()
    for _ in range(rng.randint(1, 4)):
        body = bytearray(rng.randbytes(4 * rng.randint(0, 12)))
        if len(body) >= 4 and rng.random() < 0.7:
            body[:4] = known.to_bytes(4, "big")
        words = rng.choice((len(body) // 4, len(body) // 4, len(body) // 4, rng.randrange(1 << 16)))
        compound += bytes((rng.choice((0x80, 0xA0)) | rng.randrange(32), rng.randint(199, 208)))
        compound += words.to_bytes(2, "big") + body
    if rng.random() < 0.3:
        _flipped(rng, compound)
    if rng.random() < 0.1:
        _cut(rng, compound)
    return bytes(compound)


# --- the run --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Figures:
    """What became of the mutants of one publisher.

    `refused`: that aiortc could not handle. `raised`: by exception, with one packet each, in hex.
    `slowest`: milliseconds of CPU time of one packet. `growth`: MB. `again`: what came after the mutants, by
    kind.
    """

    codec: str
    sent: int = 0
    refused: int = 0
    raised: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0
    growth: float = 0.0
    lived: bool = False
    again: dict[str, bool] = field(default_factory=dict)
    tracebacks: int = 0


@contextmanager
def _tracebacks() -> Iterator[list[str]]:
    """Collect what is logged with a traceback, by anyone."""
    found: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info or "Traceback" in record.getMessage():
                found.append(record.name)

    handler = Collecting()
    logging.getLogger().addHandler(handler)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(handler)


async def publisher(codec: str) -> None:
    """Publish until the standard input ends; offer and answer are lines of it, as JSON."""
    sender = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    sender.addTransceiver(Tone(), "sendonly")
    pictures = sender.addTransceiver(Noise(), "sendonly")
    offered = RTCRtpSender.getCapabilities("video").codecs
    pictures.setCodecPreferences([one for one in offered if one.name in (codec, "rtx")])
    await sender.setLocalDescription(await sender.createOffer())
    for connection in aiortc_hooks.ice_connections(sender):
        consent.be_patient(connection, aiortc_hooks.check_consent)
    print(json.dumps(sender.localDescription.sdp), flush=True)
    answer = json.loads(await asyncio.to_thread(sys.stdin.readline))
    await sender.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await asyncio.to_thread(sys.stdin.read)
    await sender.close()


@asynccontextmanager
async def publishing(service: Service, session: Session, codec: str) -> AsyncIterator[None]:
    """Have a process publish in a session."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "load_tests.rtp_mutations", "--publish", codec), stdin=PIPE, stdout=PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        offer = json.loads(await process.stdout.readline())
        publication = await service.publications.publish(session.id, offer)
        process.stdin.write(json.dumps(publication.peer.sdp).encode() + b"\n")
        yield
    finally:
        process.stdin.close()
        await process.wait()


def _transport(session: Session) -> Any:
    peer: Any = session.media.publisher
    return peer._pc.getTransceivers()[0].receiver.transport


@contextmanager
def _collected(session: Session) -> Iterator[list[bytes]]:
    """Collect the RTP packets of the publisher, behind SRTP: the newest KEPT."""
    transport = _transport(session)
    handle, packets = transport._handle_rtp_data, list[bytes]()

    async def handle_rtp(data: bytes, **named: Any) -> None:
        packets.append(bytes(data))
        del packets[:-KEPT]
        await handle(data, **named)

    transport._handle_rtp_data = handle_rtp
    try:
        yield packets
    finally:
        transport._handle_rtp_data = handle


async def _until(condition: Any, seconds: float = PATIENCE) -> bool:
    until = clock.now() + seconds
    while not condition():
        if clock.now() > until:
            return False
        await asyncio.sleep(0.02)
    return True


async def mutate(session: Session, packets: list[bytes], found: Figures, count: int, seed: int) -> None:
    """Hand so many mutants over, behind SRTP."""
    rng = random.Random(seed)
    transport, peer = _transport(session), session.media.publisher
    assert peer is not None
    at_first, turn = 0.0, clock.now()
    for number in range(count):
        packet = rng.choice(packets)
        if rng.random() < RTCP_SHARE:
            data = rtcp(rng, int.from_bytes(packet[8:12], "big"))
            handle = transport._handle_rtcp_data
        else:
            data = mutant(rng, packet)
            handle = functools.partial(transport._handle_rtp_data, arrival_time_ms=0)
        began = time.thread_time()
        try:
            await handle(data)
        except Exception as error:
            found.raised.setdefault(f"{type(error).__name__} in {_place(error)}", data.hex())
        found.slowest = max(found.slowest, 1000 * (time.thread_time() - began))
        found.sent += 1
        if number % BATCH == 0:
            await asyncio.sleep(max(PAUSE, clock.now() - turn))
            turn = clock.now()
        if number == count // 10:
            at_first = _memory()
    found.growth = _memory() - at_first
    found.refused = int(peer.stats()["refused"])


def _memory() -> float:
    """MB of this process, once what is free has gone back, as it does in serve every minute."""
    gc.collect()
    malloc.trim()
    return memory_mb(os.getpid())


def _place(error: BaseException) -> str:
    """Where an exception was raised: file and function, without a word of it."""
    trace = error.__traceback__
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{Path(code.co_filename).name}:{code.co_name}"


async def run(folder: Path, codec: str, *, packets: int, seed: int) -> Figures:
    """One publisher, its mutants, and what comes after them."""
    found = Figures(codec)
    heard: dict[str, int] = Counter()
    with _tracebacks() as traces:
        async with serving(folder, budget={"ladder": False, "admission": False}) as service:
            session = await service.sessions.create()
            reading = asyncio.create_task(_read(session, heard))
            try:
                async with publishing(service, session, codec):
                    with _collected(session) as sent:
                        begun = await _until(lambda: heard["caption.final"] and len(sent) > 200)
                    assert begun, "the publisher's own packets give no captions"
                    await mutate(session, sent, found, packets, seed)
                    heard.clear()
                    found.lived = session.state is State.LIVE
                    for kind in ("caption.final", "keyframe.sampled"):
                        found.again[kind] = await _until(lambda kind=kind: heard[kind])
            finally:
                session.end("over")
                await session.over.wait()
                await reading
    found.tracebacks = len(traces)
    return found


async def _read(session: Session, heard: dict[str, int]) -> None:
    subscription = session.log.subscribe()
    while (batch := await subscription.next()) is not None:
        for _, text in batch:
            heard[json.loads(text)["type"]] += 1


def verdict(found: Figures) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = [f"{found.codec}: {error}: {packet}" for error, packet in found.raised.items()]
    if found.slowest > STALL:
        wrong.append(f"{found.codec}: a packet took {found.slowest:.0f} ms")
    if found.growth > GROWTH:
        wrong.append(f"{found.codec}: memory grew by {found.growth:.1f} MB")
    if not found.lived:
        wrong.append(f"{found.codec}: the session has ended")
    wrong += [f"{found.codec}: no {kind} came after it" for kind, came in found.again.items() if not came]
    if found.tracebacks:
        wrong.append(f"{found.codec}: {found.tracebacks} tracebacks were logged")
    return wrong


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--packets", type=int, default=100_000, help="mutants in all (%(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="(%(default)s)")
    parser.add_argument("--publish", choices=CODECS, help=argparse.SUPPRESS)  # be the publisher
    chosen = parser.parse_args()
    if chosen.publish:
        asyncio.run(publisher(chosen.publish))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    malloc.fix_mmap_threshold()  # as serve does
    all_found = []
    for codec in CODECS:
        with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
            share = chosen.packets // len(CODECS)
            all_found.append(asyncio.run(run(Path(folder), codec, packets=share, seed=chosen.seed)))
        print(f"{codec}: {all_found[-1].growth:+.1f} MB", file=sys.stderr, flush=True)
    told = "\n".join(str({**asdict(found), "raised": list(found.raised)}) for found in all_found)
    wrong = [line for found in all_found for line in verdict(found)]
    report.finish(told, all_found, wrong, chosen.json)


if __name__ == "__main__":
    main()
