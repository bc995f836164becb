"""The codec of the answer: the first that can be decoded, as it was offered."""

from __future__ import annotations

import base64

import pytest

from streamsvc.core.errors import InvalidRequest
from streamsvc.ingest.sdp_codecs import Choice, choose
from streamsvc.ingest.sdp_text import Section


def section(formats: str, *attributes: str, kind: str = "video") -> Section:
    pairs = (attribute.partition(":") for attribute in attributes)
    return Section(
        kind, 9, "UDP/TLS/RTP/SAVPF", tuple(formats.split()), tuple((name, value) for name, _, value in pairs)
    )


def told(choice: Choice | None) -> list[tuple[str, int | None, dict[str, object]]]:
    """Name, payload type and parameters of each codec of the answer."""
    assert choice is not None
    return [(codec.name, codec.payloadType, dict(codec.parameters)) for codec in choice.codecs]


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        "",
        *(
            f"packetization-mode=1;profile-level-id={profile}"
            for profile in (
                *("42e01f", "42001f", "4d001f", "4D0028", "58001f", "640032", "640c1f", "64001F"),
                *(
                    "6e0032",
                    "7a0033",
                    "f40034",
                    "2c0033",
                    "53001f",
                    "56001f",
                    "4d401f",
                    "42c034",
                    "ffffff",
                    "",
                ),
            )
        ),
        "profile-level-id=640032",
        " profile-level-id=4d001f; packetization-mode=1 ; level-asymmetry-allowed=1 ",
        "Profile-Level-Id=4d001f;Packetization-Mode=0",
        "sprop-parameter-sets=?;packetization-mode=1",
    ],
)
def test_any_h264_profile_is_answered_as_it_was_offered(parameters: str | None) -> None:
    lines = ["rtpmap:96 H264/90000"] + ([] if parameters is None else [f"fmtp:96 {parameters}"])
    ((name, number, answered),) = told(choose(section("96", *lines)))
    assert (name, number) == ("H264", 96)
    offered = {
        name.strip().lower(): value.strip()
        for name, _, value in (pair.partition("=") for pair in (parameters or "").split(";"))
    }
    for key in ("profile-level-id", "packetization-mode", "level-asymmetry-allowed"):
        assert answered.get(key) == offered.get(key), "repeated where it was offered, absent where it was not"
    assert "sprop-parameter-sets" not in answered


def test_interleaved_h264_is_passed_over() -> None:
    mode = ["rtpmap:96 H264/90000", "fmtp:96 packetization-mode=2"]
    assert choose(section("96", *mode)) is None
    assert told(choose(section("96 97", *mode, "rtpmap:97 h264/90000")))[0][:2] == ("H264", 97)


def test_the_first_codec_that_can_be_decoded_is_taken_with_its_retransmissions() -> None:
    lines = [
        *("rtpmap:45 AV1/90000", "rtpmap:46 rtx/90000", "fmtp:46 apt=45", "rtpmap:49 H265/90000"),
        *(
            "rtpmap:39 H264/90000",
            "fmtp:39 packetization-mode=0;profile-level-id=4d001f",
            "rtcp-fb:39 nack pli",
        ),
        *("rtcp-fb:* nack", "rtcp-fb:39 ccm fir", "rtpmap:40 rtx/90000", "fmtp:40 apt=39;rtx-time=3000"),
        *("rtpmap:96 VP8/90000", "rtpmap:97 rtx/90000", "fmtp:97 apt=96", "rtpmap:118 red/90000"),
        *("rtpmap:120 ulpfec/90000", "fmtp:77 unknown=1", "rtpmap:121 x/1"),
    ]
    choice = choose(section("45 46 49 39 40 96 97 118 120", *lines))
    assert told(choice) == [
        ("H264", 39, {"packetization-mode": "0", "profile-level-id": "4d001f"}),
        ("rtx", 40, {"apt": 39}),
    ]
    assert choice is not None
    assert [(one.type, one.parameter) for one in choice.codecs[0].rtcpFeedback] == [
        ("nack", None),
        ("nack", "pli"),
    ]


@pytest.mark.parametrize(
    ("formats", "lines", "name"),
    [
        ("0", [], "PCMU"),
        ("8", [], "PCMA"),
        ("9", [], "G722"),
        ("3 18 8 101", ["rtpmap:101 telephone-event/8000", "fmtp:101 0-15", "fmtp:18 annexb=no"], "PCMA"),
        ("9 0 8", ["rtpmap:9 G722/8000/1"], "G722"),
        ("0 111", ["rtpmap:111 OPUS/48000/2"], "opus"),
        ("111 0", ["rtpmap:111 opus/48000"], "opus"),
        ("100", ["rtpmap:100 pcma/8000"], "PCMA"),
    ],
)
def test_audio_of_static_payload_types_needs_no_rtpmap(formats: str, lines: list[str], name: str) -> None:
    assert told(choose(section(formats, *lines, kind="audio")))[0][0] == name


def test_a_static_type_is_what_its_rtpmap_says_and_no_video() -> None:
    assert choose(section("0", "rtpmap:0 speex/8000", kind="audio")) is None
    assert choose(section("0")) is None
    assert choose(section("111", "rtpmap:111 opus/48000/2")) is None


@pytest.mark.parametrize(
    "lines",
    [
        ["rtpmap:111 speex/16000"],
        ["rtpmap:111 multiopus/48000/6"],
        ["rtpmap:111 PCMU/16000"],
        ["rtpmap:111 PCMU/8000/2"],
        [],
    ],
)
def test_audio_that_cannot_be_decoded_is_not_chosen(lines: list[str]) -> None:
    assert choose(section("111", *lines, kind="audio")) is None


@pytest.mark.parametrize(
    ("formats", "line"),
    [
        ("x", "rtpmap:0 PCMU/8000"),
        ("200", ""),
        ("72", ""),
        ("96", "rtpmap:96 VP8"),
        ("96", "rtpmap:96 VP8/fast"),
    ],
)
def test_a_malformed_format_is_named(formats: str, line: str) -> None:
    with pytest.raises(InvalidRequest, match=r"rtpmap|payload types"):
        choose(section(formats, line, kind="audio"))


def test_parameter_sets_of_the_offer_are_kept_for_the_decoder() -> None:
    sets = [bytes.fromhex("6764001f"), bytes.fromhex("68ee3c80")]
    text = ",".join(base64.b64encode(one).decode() for one in sets)
    choice = choose(section("96", "rtpmap:96 H264/90000", f"fmtp:96 sprop-parameter-sets={text}"))
    assert choice is not None
    assert choice.parameter_sets == b"".join(b"\0\0\0\1" + one for one in sets)
