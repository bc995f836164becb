"""Speech over a lossy network: the relay does what it is told, by its seed, and the difference is judged."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from load_tests.lossy import FRAME, POINTS, Run, Speech, points, publish, table, verdict
from streamsvc.core.types import SAMPLE_RATE
from tests.builders.fake_service import at_the_door
from tests.builders.service import open_session
from tests.fakes.udp_relay import Link, LinkState, service_address, through, without_candidates

ANSWER = (
    "v=0\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=candidate:1 1 udp 2130706431 10.0.0.2 5000 typ host\r\n"
    "a=candidate:2 1 udp 2130706431 127.0.0.1 5001 typ host\r\na=end-of-candidates\r\n"
)


def arrivals(link: Link, seed: int = 1, every: float = 0.02, size: int = 100) -> list[float | None]:
    state = LinkState(link, seed)
    return [state.arrival(n * every, size) for n in range(2000)]


def test_a_link_loses_its_share_and_the_same_seed_loses_the_same() -> None:
    link = Link(loss=0.05, jitter=0.05)
    came = arrivals(link)
    assert came == arrivals(link)
    assert came != arrivals(link, seed=2)
    assert 70 <= came.count(None) <= 130
    late = [at - n * 0.02 for n, at in enumerate(came) if at is not None]
    assert 0 <= min(late) < 0.002 and 0.048 < max(late) <= 0.05


def test_jitter_lets_datagrams_overtake_others_unless_the_link_is_ordered() -> None:
    overtaken = [at for at in arrivals(Link(jitter=0.05)) if at is not None]
    assert overtaken != sorted(overtaken)
    ordered = [at for at in arrivals(Link(jitter=0.05, ordered=True)) if at is not None]
    assert ordered == sorted(ordered)


def test_a_rate_is_kept_and_what_would_wait_too_long_is_dropped() -> None:
    link = Link(delay=0.1, rate=1000.0, burst=200, queue=0.5)
    state = LinkState(link, 1)
    came = [state.arrival(0.0, 100) for _ in range(10)]
    assert came[:7] == [pytest.approx(at) for at in (0.1, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]
    assert came[7:] == [None] * 3
    assert state.counts == {"sent": 10, "dropped": 3}
    assert state.arrival(1.0, 100) == pytest.approx(1.1)


def test_the_answer_leads_to_the_relay_alone_and_the_offer_to_nobody() -> None:
    assert service_address(ANSWER) == ("127.0.0.1", 5001)
    assert [line for line in through(ANSWER, 6000).split("\r\n") if "candidate" in line] == [
        "a=candidate:1 1 udp 2130706431 127.0.0.1 6000 typ host"
    ]
    assert without_candidates(ANSWER) == "v=0\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\n"


def test_speech_is_sent_whole_and_then_silence() -> None:
    async def main() -> None:
        speech = Speech(np.full(2 * FRAME, 0.5, np.float32))
        pieces = [(await speech.recv()).to_ndarray() for _ in range(3)]
        assert [bool(piece.any()) for piece in pieces] == [True, True, False]
        assert not speech.over.is_set()

    asyncio.run(main())


def test_more_wrong_words_than_promised_and_a_network_that_loses_nothing_are_wrong() -> None:
    clean = Run(False, 2, 100, 1000, 0, 0, {})
    assert verdict([clean, Run(True, 4, 100, 1000, 50, 50, {"packet_loss": 1.0})]) == []
    bad = [clean, Run(True, 5, 100, 1000, 50, 50, {"packet_loss": 1.0})]
    assert points(bad) == pytest.approx(3.0) and points(bad) > POINTS
    assert verdict(bad) == ["3.0 points more words are wrong with loss"]
    assert verdict([clean, Run(True, 2, 100, 1000, 0, 0, {})]) == ["nothing was lost in a run with loss"]
    assert "| lossy   | 5.0 " in table(bad) and "packet_loss 1.0" in table(bad)


@pytest.mark.load
async def test_what_the_relay_loses_the_service_misses(tmp_path: Path) -> None:
    async with at_the_door(tmp_path) as (_, _, client):
        session = await open_session(client)
        samples = np.zeros(round(2.0 * SAMPLE_RATE), np.float32)
        relay, missing = await publish(client, session, samples, Link(loss=0.3, jitter=0.01), 1)
    assert relay.up.counts["lost"] > 20
    assert missing > 10
