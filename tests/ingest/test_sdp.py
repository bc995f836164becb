from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, TooLarge, Unprocessable
from streamsvc.ingest.sdp import Offer, complete_answer, read_fragment, read_offer

FIXTURES = Path(__file__).parents[1] / "fixtures"
LIMITS = Limits()
SENDERS = ("chromium_simulcast", "obs", "gstreamer")
FIELD = sorted((FIXTURES / "field_sdp").glob("*.sdp"))  # kinds of offers from public reports
SHAPES = sorted(path.stem for path in (FIXTURES / "offers").glob("*.sdp"))
DATA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=mid:2\na=sctp-port:5000\n"
PASSWORD = "abcdefghijklmnopqrstuvwx"
PRINT = "sha-256 " + ":".join(["AB"] * 32)
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
        (lambda s: re.sub("m=(audio|video) [0-9]+", r"m=\1 0", s), "no_media"),
        (lambda s: s.split("m=audio")[0] + DATA.replace("mid:2", "mid:0"), "no_media"),
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


@pytest.mark.parametrize("path", FIELD, ids=[path.stem for path in FIELD])
def test_offers_of_the_field_are_accepted_whole(path: Path) -> None:
    read = read_offer(path.read_text(), LIMITS)
    assert read.kinds == (("audio",) if "pcmu" in path.stem else ("audio", "video"))
    assert all(one.sends for one in read.media)


def shape(name: str) -> Offer:
    """The offer of a kind of sender, with what it writes otherwise than others do."""
    return read_offer((FIXTURES / "offers" / f"{name}.sdp").read_text(), LIMITS)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_an_offer_is_understood_and_passed_on_in_one(name: str) -> None:
    read = shape(name)
    for one in SessionDescription.parse(read.text).media:
        assert one.ice is not None
        assert one.dtls is not None
        assert (one.ice.password, one.rtcp_mux, one.dtls.fingerprints[0].value) == (PASSWORD, True, PRINT[8:])


def test_only_what_can_be_reached_is_passed_on_as_a_candidate() -> None:
    assert re.findall("a=candidate:(.*)", shape("firefox").text) == [
        "0 1 UDP 2122252543 192.0.2.61 60591 typ host\r",
        "1 1 UDP 1686052863 203.0.113.7 60591 typ srflx raddr 192.0.2.61 rport 60591\r",
    ]
    pion = shape("pion_lite_ipv6_av1_first")
    assert re.findall("a=candidate:.* (.*) 50324", pion.text) == ["2001:db8::1"]
    assert pion.candidates == 3, "the limit counts all"
    assert "a=ice-lite" in pion.text
    assert "a=extmap:200 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r" in pion.text


def test_candidates_of_a_refused_section_are_kept() -> None:
    read = shape("libdatachannel_data_first")
    assert "192.0.2.97 54778 typ host" in read.text
    assert "a=group:BUNDLE video-stream\r" in read.text


def test_the_publisher_is_the_dtls_client_unless_it_cannot_be() -> None:
    def setup(text: str) -> set[str]:
        return set(re.findall("a=setup:(.*)\r", read_offer(text, LIMITS).text))

    whole = offer("obs")
    assert setup(whole) == {"active"}
    assert setup(whole.replace("a=setup:actpass\n", "")) == {"active"}, "the default of RFC 4145"
    assert setup(whole.replace("actpass", "active")) == {"active"}
    assert setup(whole.replace("actpass", "passive")) == {"passive"}
    with pytest.raises(InvalidRequest, match="setup"):
        setup(whole.replace("actpass", "holdconn"))


TRANSPORT = ("ice-ufrag", "ice-pwd", "fingerprint", "setup", "rtcp-mux")


@pytest.mark.parametrize("where", ["session", "first", "second"])
@pytest.mark.parametrize("name", [*TRANSPORT, "all"])
def test_what_one_place_of_a_bundle_says_holds_for_all_its_sections(name: str, where: str) -> None:
    """The control has every line in both sections; these leave it in one place only."""
    text = (FIXTURES / "field_sdp" / "h264_42e01f_control.sdp").read_text()
    names = TRANSPORT if name == "all" else [name]
    moved = "".join(
        line for line in text.split("m=video")[1].splitlines(True) if line[2:].startswith((*names,))
    )
    assert moved
    bare = "".join(line for line in text.splitlines(True) if not line[2:].startswith((*names,)))
    place = {"session": "m=audio", "first": "m=video", "second": None}[where]
    moved_text = bare.replace(place, moved + place) if place else bare + moved
    read, control = read_offer(moved_text, LIMITS), read_offer(text, LIMITS)
    assert (read.text, read.kinds, read.ufrag) == (control.text, control.kinds, control.ufrag)
    if name != "setup":
        with pytest.raises((InvalidRequest, Unprocessable)):
            read_offer(bare, LIMITS)


def test_a_section_s_own_transport_goes_before_that_of_the_session() -> None:
    text = offer("obs").replace("a=mid:0\n", "a=mid:0\na=ice-ufrag:first\na=ice-pwd:" + PASSWORD + "\n")
    read = read_offer(text, LIMITS)
    assert (read.ufrag, read.password) == ("first", PASSWORD)


def test_a_direction_of_the_session_holds_for_sections_without_one() -> None:
    text = offer("obs").replace("a=sendonly\n", "").replace("m=audio", "a=recvonly\nm=audio")
    with pytest.raises(Unprocessable) as caught:
        read_offer(text, LIMITS)
    assert caught.value.code == "no_media"
    assert read_offer(text.replace("a=mid:1", "a=mid:1\na=sendonly"), LIMITS).kinds == ("video",)


def test_the_answer_has_every_section_in_its_place() -> None:
    read = shape("browser_receives_too")
    assert read.kinds == ("audio",)
    sections = [
        f"m=audio 5 UDP/TLS/RTP/SAVPF 111\r\na=mid:{mid}\r\n" for mid in (0, 2)
    ]  # as aiortc answers the accepted ones
    answer = complete_answer("v=0\r\na=group:BUNDLE 0 2\r\n" + "".join(sections), read)
    assert re.findall("(?m)^(m=.*|a=mid:.*|a=group.*)\r$", answer) == [
        "a=group:BUNDLE 0 2",
        *("m=audio 5 UDP/TLS/RTP/SAVPF 111", "a=mid:0"),
        *("m=video 0 UDP/TLS/RTP/SAVPF 45", "a=mid:1"),
        *("m=audio 5 UDP/TLS/RTP/SAVPF 111", "a=mid:2"),
        *("m=video 0 UDP/TLS/RTP/SAVPF 96", "a=mid:3"),
    ]


def test_the_answer_repeats_the_protocol_and_has_no_bundle_where_none_was_offered() -> None:
    text = (
        offer("obs")
        .split("m=video")[0]
        .replace("a=group:BUNDLE 0 1\n", "")
        .replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF")
    )
    read = read_offer(text, LIMITS)
    answer = complete_answer("v=0\r\na=group:BUNDLE 0\r\nm=audio 5 UDP/TLS/RTP/SAVPF 111\r\n", read)
    assert answer == "v=0\r\nm=audio 5 RTP/SAVPF 111\r\n"


def test_a_data_channel_is_refused_by_itself() -> None:
    read = read_offer(offer("obs").replace("BUNDLE 0 1", "BUNDLE 0 1 2") + DATA, LIMITS)
    assert read.kinds == ("audio", "video")
    assert "m=application" not in read.text
    assert [one.choice is None for one in read.media] == [False, False, True]


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
