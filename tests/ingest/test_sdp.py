from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, TooLarge, Unprocessable
from streamsvc.ingest.sdp import read_fragment, read_offer

FIXTURES = Path(__file__).parents[1] / "fixtures"
LIMITS = Limits()
SENDERS = ("chromium_simulcast", "obs", "gstreamer")
PARSE_CPU_SECONDS = 1.0  # far above what a bounded parse takes, far below what an unbounded one does


def offer(name: str) -> str:
    return (FIXTURES / f"{name}.sdp").read_text()


@pytest.mark.parametrize("name", SENDERS)
def test_offers_of_real_senders_are_accepted(name: str) -> None:
    assert sorted(read_offer(offer(name), LIMITS).kinds) == ["audio", "video"]


@pytest.mark.parametrize("name", SENDERS)
def test_their_broken_twins_are_malformed(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_offer(offer(f"{name}_broken"), LIMITS)
    assert (caught.value.status, caught.value.code) == (400, "malformed_sdp")


def test_unusable_candidates_are_removed() -> None:
    text = (
        offer("obs")
        + "a=candidate:2 1 UDP 2122317823 1b2c.local 42513 typ host\n"
        + "a=candidate:3 1 TCP 1 10.0.0.1 9 typ host tcptype active\n"
    )
    passed = read_offer(text, LIMITS).text
    assert "192.168.1.20 42513 typ host" in passed
    assert ".local" not in passed
    assert "tcptype" not in passed
    assert "end-of-candidates" not in passed


def test_simulcast_is_removed() -> None:
    assert "a=simulcast" in offer("chromium_simulcast")
    assert "a=simulcast" not in read_offer(offer("chromium_simulcast"), LIMITS).text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (
            lambda s: (
                re.sub(r"m=video.*", "", s, flags=re.S)
                + "m=audio"
                + s.split("m=audio")[1].split("m=video")[0].replace("mid:0", "mid:7")
            ),
            "too_many_tracks",
        ),
        (
            lambda s: s.replace("opus/48000/2", "speex/16000").replace("H264/90000", "AV1/90000"),
            "no_supported_codec",
        ),
        (lambda s: s.replace("H264/90000", "AV1/90000"), "no_supported_codec"),
        (lambda s: s.replace("a=sendonly", "a=recvonly"), "no_media"),
        (lambda s: s.split("m=audio")[0], "no_media"),
        (lambda s: s.replace("a=group:BUNDLE 0 1\n", ""), "no_bundle"),
        (lambda s: s.replace("a=rtcp-mux\n", ""), "no_rtcp_mux"),
        (
            lambda s: re.sub(
                r"m=video.*", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:1\n", s, flags=re.S
            ),
            "data_channel",
        ),
    ],
)
def test_an_offer_that_cannot_be_served_has_its_own_code(change, code: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Unprocessable) as caught:
        read_offer(change(offer("obs")), LIMITS)
    assert caught.value.code == code


def test_one_kind_alone_is_accepted() -> None:
    text = offer("obs").split("m=video")[0].replace("BUNDLE 0 1", "BUNDLE 0")
    assert read_offer(text, LIMITS).kinds == ("audio",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "v=0\n" + "a=x\n" * 501,
        "v=0\na=" + "x" * 2001,
        "v=0\ns=\0\n",
        offer("obs") + "m=audio 9 UDP/TLS/RTP/SAVPF 0\n" * 5,
        offer("obs") + "a=candidate:1 1 UDP 1 10.0.0.1 9 typ host\n" * 65,
    ],
)
def test_text_that_is_not_an_offer_or_over_a_limit_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_offer(text, LIMITS)


def test_a_long_offer_is_too_large() -> None:
    with pytest.raises(TooLarge):
        read_offer("v=0\n" + "a" * LIMITS.sdp_bytes, LIMITS)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SENDERS), st.data())
def test_a_mutated_offer_is_read_or_refused_in_bounded_time(name: str, data: st.DataObject) -> None:
    lines = offer(name).splitlines()
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(lines) - 1))
        action = data.draw(st.sampled_from(["drop", "double", "swap", "cut", "insert", "flood", "number"]))
        line = lines[place]
        if action == "drop" and len(lines) > 1:
            del lines[place]
        elif action == "double":
            lines.insert(place, line)
        elif action == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], line
        elif action == "cut":
            lines[place] = line[: data.draw(st.integers(0, len(line)))]
        elif action == "insert":
            at = data.draw(st.integers(0, len(line)))
            lines[place] = line[:at] + data.draw(st.text(max_size=8)) + line[at:]
        elif action == "flood":
            lines[place:place] = [line] * data.draw(st.integers(2, 600))
        else:
            lines[place] = re.sub(
                r"\d+", lambda _: str(data.draw(st.integers(-(2**40), 2**40))), line, count=1
            )
    began = time.process_time()
    with contextlib.suppress(InvalidRequest, Unprocessable, TooLarge):
        assert read_offer("\r\n".join(lines), LIMITS).kinds
    assert time.process_time() - began < PARSE_CPU_SECONDS


def test_a_trickle_fragment_is_read() -> None:
    text = (
        "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n"
        "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0"
        " ufrag EsAw network-id 1\r\n"
        "a=candidate:3 1 udp 2122260223 abc.local 61764 typ host\r\na=end-of-candidates\r\n"
    )
    fragment = read_fragment(text, LIMITS)
    assert fragment.ufrag == "EsAw"
    assert [(c.ip, c.port, c.sdpMid) for c in fragment.candidates] == [("192.0.2.1", 61764, "0")]


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "hello",
        "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\n" * 65,
        "a=candidate:1 x udp y 10.0.0.1 9 typ host",
    ],
)
def test_a_malformed_fragment_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        read_fragment(text, LIMITS)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_fragment_is_read_or_refused(text: str) -> None:
    try:
        read_fragment("a=candidate:" + text, LIMITS)
    except InvalidRequest as error:
        assert error.status == 400
