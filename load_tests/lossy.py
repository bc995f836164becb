"""Speech by WebRTC over a lossy network: word error rate with the loss and without, in turns.

    python -m load_tests.lossy [--turns 3] [--seconds 90] [--loss 0.05] [--jitter 0.05] [--json FILE]

The same recording is published in real time (aiortc, Opus) through a UDP relay on loopback
(tests/fakes/udp_relay.py), with nothing changed, and with a share of the datagrams of both directions lost
and the others late by a random part of the jitter, so that some overtake others. Each run is a session of its
own. Exit status 1: the mean word error rate is more than POINTS above that without loss, or nothing was lost.
Audio is never asked for again (no NACK), and what is missing becomes silence.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import mean
from typing import Any

import av
import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from load_tests import report
from load_tests.hearing import MEDIA
from load_tests.serve_process import Serve
from load_tests.subscriber import Subscriber
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import Samples, read, truth_of
from streamsvc.evaluation.score_captions import errors, norm
from tests.builders.service import open_session
from tests.fakes.udp_relay import Link, UdpRelay, service_address, through, without_candidates

RECORDING = "speech/crimson_26_motikatika.flac"
POINTS = 2.0
FRAME = SAMPLE_RATE // 50  # samples of a packet
TAIL = 2.0  # seconds of silence after it, so that its last words settle
PATIENCE = 60.0


class Speech(MediaStreamTrack):
    """Samples in real time, then silence; `over` is set when all have been sent."""

    kind = "audio"

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        quiet = np.zeros(round(TAIL * SAMPLE_RATE), np.float32)
        self._samples = np.concatenate([samples, quiet])
        self._sent = 0
        self._began = 0.0
        self.over = asyncio.Event()

    async def recv(self) -> Any:
        """The next 20 ms."""
        self._began = self._began or time.monotonic()
        await asyncio.sleep(self._began + self._sent / SAMPLE_RATE - time.monotonic())
        piece = self._samples[self._sent : self._sent + FRAME]
        if len(piece) < FRAME:
            self.over.set()
            piece = np.zeros(FRAME, np.float32)
        frame = av.AudioFrame.from_ndarray((piece[None] * 32767).astype(np.int16), "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._sent, Fraction(1, SAMPLE_RATE)
        self._sent += FRAME
        return frame


@dataclass(frozen=True, slots=True)
class Run:
    """One run. `errors`, `words`: of the recognition. `sent`, `lost`: datagrams to the service.

    `missing`: RTP packets that the service counts as lost. `gaps`: seconds told as caption.gap, by reason:
    on a busy machine what the models could not keep up with is told too (overload).
    """

    lossy: bool
    errors: int
    words: int
    sent: int
    lost: int
    missing: int
    gaps: dict[str, float]

    @property
    def wer(self) -> float:
        """Word error rate in percent."""
        return 100 * self.errors / max(1, self.words)


async def publish(
    client: httpx.AsyncClient, session: str, samples: Samples, link: Link, seed: int
) -> tuple[UdpRelay, int]:
    """Publish samples in a session through a relay; the relay, and the packets that the service missed."""
    sender = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    speech = Speech(samples)
    try:
        sender.addTransceiver(speech, "sendonly")
        await sender.setLocalDescription(await sender.createOffer())
        answer = await client.post(
            (await client.get(f"/v1/sessions/{session}")).json()["whip_url"],
            content=without_candidates(sender.localDescription.sdp),
            headers={"Content-Type": "application/sdp"},
        )
        answer.raise_for_status()
        async with UdpRelay(service_address(answer.text), link, seed) as relay:
            sdp = through(answer.text, relay.port)
            await sender.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
            async with asyncio.timeout(len(samples) / SAMPLE_RATE + TAIL + PATIENCE):
                await speech.over.wait()
            stats = (await client.get(f"/v1/sessions/{session}/stats")).json()["ingest"]
            return relay, int(stats.get("audio_lost", 0))
    finally:
        await sender.close()


async def play(server: Serve, samples: Samples, words: Sequence[str], link: Link, seed: int) -> Run:
    """One run: the recording in a session of its own."""
    async with httpx.AsyncClient(base_url=server.address, timeout=PATIENCE) as client:
        session = await open_session(client, language="en")
        async with Subscriber(server.address, session, types="caption.*,session.closed") as reader:
            relay, missing = await publish(client, session, samples, link, seed)
            await client.delete(f"/v1/sessions/{session}")
            await reader.until(lambda one: one.kind == "session.closed", PATIENCE)
            events = [one.event for one in reader.came]
    heard = [word for event in events if event["type"] == "caption.final" for word in norm(event["text"])]
    gaps: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event["type"] == "caption.gap":
            gaps[event["reason"]] += event["end"] - event["start"]
    return Run(
        link.loss > 0,
        int(errors(words, heard).sum()),
        len(words),
        relay.up.counts["sent"],
        relay.up.counts["lost"],
        missing,
        {reason: round(seconds, 2) for reason, seconds in gaps.items()},
    )


def points(runs: Sequence[Run]) -> float:
    """By how much the mean word error rate is higher with loss, in percent points."""
    with_loss, without = (
        [run.wer for run in runs if run.lossy],
        [run.wer for run in runs if not run.lossy],
    )
    return mean(with_loss) - mean(without)


def verdict(runs: Sequence[Run]) -> list[str]:
    """What was promised and missed; [] if nothing."""
    wrong = []
    if (more := points(runs)) > POINTS:
        wrong.append(f"{more:.1f} points more words are wrong with loss")
    if not all(run.lost and run.missing for run in runs if run.lossy):
        wrong.append("nothing was lost in a run with loss")
    return wrong


def table(runs: Sequence[Run]) -> str:
    """A line for each run."""
    heads = ("network", "WER %", "words", "datagrams", "lost", "RTP missing", "gaps s")
    return markdown_table(
        heads,
        [
            (
                "lossy" if run.lossy else "clean",
                f"{run.wer:.1f}",
                *(str(value) for value in (run.words, run.sent, run.lost, run.missing)),
                ", ".join(f"{reason} {seconds}" for reason, seconds in run.gaps.items()),
            )
            for run in runs
        ],
    )


async def _measured(chosen: argparse.Namespace, folder: Path) -> list[Run]:
    recording = (chosen.media / RECORDING).resolve()
    truth = truth_of(recording)
    if truth is None:
        raise SystemExit(f"no transcript of {recording}: real recordings are not part of the project")
    samples, words = read(recording, chosen.seconds), truth.until(chosen.seconds).words
    lossy = Link(loss=chosen.loss, jitter=chosen.jitter)
    runs = []
    with Serve(folder, {"budget": {"ladder": False, "admission": False}}) as server:
        await asyncio.to_thread(server.wait_ready)
        for turn in range(chosen.turns):
            for link in (Link(), lossy):
                runs.append(await play(server, samples, words, link, turn))
                print(runs[-1], file=sys.stderr, flush=True)
    return runs


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--turns", type=int, default=3, help="without loss and with it (%(default)s)")
    parser.add_argument("--seconds", type=float, default=90.0, help="of the recording (%(default)s)")
    parser.add_argument("--loss", type=float, default=0.05, help="share of datagrams (%(default)s)")
    parser.add_argument("--jitter", type=float, default=0.05, help="seconds (%(default)s)")
    parser.add_argument("--media", type=Path, default=MEDIA, help="folder of recordings (%(default)s)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lossy-") as folder:
        runs = asyncio.run(_measured(chosen, Path(folder)))
    report.finish(f"{table(runs)}\n{points(runs):+.1f} points", runs, verdict(runs), chosen.json)


if __name__ == "__main__":
    main()
