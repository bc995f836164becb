"""Mutants of RTP and RTCP: they differ by the seed, and a session outlives some hundred of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from aiortc import RTCDtlsTransport

from load_tests import rtp_mutations
from load_tests.rtp_mutations import CODECS, Figures, mutant, rtcp, run, verdict
from streamsvc.ingest import aiortc_hooks

PACKET = b"\x80\x60\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03" + bytes(range(50))


def test_mutants_are_rtp_at_first_sight_and_the_same_for_the_same_seed() -> None:
    made = [mutant(random.Random(seed), PACKET) for seed in range(200)]
    assert made == [mutant(random.Random(seed), PACKET) for seed in range(200)]
    assert len(set(made)) > 180
    assert made.count(PACKET) < 10
    compounds = {rtcp(random.Random(seed), 3) for seed in range(200)}
    assert len(compounds) > 190


FINE = Figures("VP8", 100, lived=True, again={"caption.partial": True})


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({}, ""),
        ({"raised": {"IndexError in rtp.py:parse": "80"}}, "VP8: IndexError in rtp.py:parse: 80"),
        ({"slowest": 51.0}, "VP8: a packet took 51 ms"),
        ({"growth": 21.0}, "VP8: memory grew by 21.0 MB"),
        ({"lived": False}, "VP8: the session has ended"),
        ({"again": {"caption.partial": False}}, "VP8: no caption.partial came after it"),
        ({"tracebacks": 1}, "VP8: 1 tracebacks were logged"),
    ],
)
def test_each_promise_that_is_missed_is_told(change: dict[str, object], wrong: str) -> None:
    assert verdict(replace(FINE, **change)) == ([wrong] if wrong else [])  # type: ignore[arg-type]


@pytest.mark.load
@pytest.mark.parametrize("codec", CODECS)
async def test_a_session_outlives_mutants_of_its_publishers_packets(codec: str, tmp_path: Path) -> None:
    found = await run(tmp_path, codec, packets=200, seed=7)
    assert found.sent == 200
    assert verdict(replace(found, slowest=0.0, growth=0.0)) == []  # of a machine that does other things


@pytest.mark.load
async def test_what_a_packet_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = RTCDtlsTransport._handle_rtcp_data

    async def broken(transport: RTCDtlsTransport, data: bytes) -> None:
        if data == b"a mutant":  # the publisher's own would end the call
            raise IndexError("a word")
        await handle(transport, data)

    monkeypatch.setattr(rtp_mutations, "rtcp", lambda *_: b"a mutant")
    monkeypatch.setattr(RTCDtlsTransport, "_handle_rtcp_data", broken)
    monkeypatch.setattr(aiortc_hooks, "drop_broken_packets", lambda *_: None)
    found = await run(tmp_path, "VP8", packets=30, seed=7)
    assert list(found.raised) == ["IndexError in test_rtp_mutations.py:broken"]
