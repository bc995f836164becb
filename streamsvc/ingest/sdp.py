"""The one door for SDP: what comes through is within limits, parses, and can be served.

aiortc's parser raises nine kinds of exception, and some texts keep it busy for seconds because it searches lists line by
line (FIELD_NOTES 6). It needs no thread and no timer here: the number of lines is limited, and with it the work.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from aiortc import RTCIceCandidate
from aiortc.codecs import CODECS
from aiortc.rtcpeerconnection import find_common_codecs
from aiortc.sdp import SessionDescription, candidate_from_sdp

from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, TooLarge, Unprocessable
from streamsvc.core.types import Kind

# Security limits: they bound the parser's work (real offers have 60 to 250 lines in a section).
SECTION_LINES = 500
LINE_CHARS = 2000

DECODERS = {
    "opus": "opus",
    "g722": "g722",
    "pcmu": "pcm_mulaw",
    "pcma": "pcm_alaw",
    "vp8": "vp8",
    "h264": "h264",
}  # RTP name: libav's

_SENDS = ("sendrecv", "sendonly", None)  # no direction is sendrecv (RFC 8866 section 6.7)
_UFRAG = re.compile(r"[!-~]{4,256}")  # RFC 8839 says ice-char; some senders use more of ASCII
_PASSWORD = re.compile(r"[!-~]{22,256}")
_FINGERPRINTS = ("sha-256", "sha-384", "sha-512")


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer. `text`: what aiortc is given. `kinds`: what will be sent. `candidates`: how many came with it."""

    text: str
    kinds: tuple[Kind, ...]
    ufrag: str
    password: str
    candidates: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """A checked trickle fragment (RFC 8840). `ufrag`, `password`: None where it names none."""

    ufrag: str | None
    password: str | None
    candidates: tuple[RTCIceCandidate, ...]


def read_offer(text: str, limits: Limits) -> Offer:
    """Check an offer.

    Raises:
        TooLarge: it is longer than `limits.sdp_bytes`.
        InvalidRequest: it is no offer ("malformed_sdp"), or has more lines, media or candidates than allowed.
        Unprocessable: it is one that cannot be served: "no_media", "too_many_tracks", "no_supported_codec", "data_channel".
    """
    lines = _lines(text, limits)
    if not lines or lines[0] != "v=0":
        raise _malformed("it does not begin with v=0")
    if sum(line.startswith("m=") for line in lines) > limits.sdp_media:
        raise _malformed(f"it has more than {limits.sdp_media} media sections")
    candidates = sum(line.startswith("a=candidate:") for line in lines)
    if candidates > limits.sdp_candidates:
        raise _malformed(f"it has more than {limits.sdp_candidates} candidates")
    # What aiortc would wait for (mDNS names), cannot use (TCP) or would conclude too early ("no more candidates", while
    # the publisher still reaches us from an address that it did not name) does not reach it. One layer is taken of a simulcast.
    dropped = ("a=end-of-candidates", "a=simulcast", "a=rid:")
    kept = [
        line
        for line in lines
        if not line.startswith(dropped) and (not line.startswith("a=candidate:") or _usable(line))
    ]
    text = "\r\n".join(kept) + "\r\n"
    try:
        description = SessionDescription.parse(text)
        kinds = _kinds(description)
    except (InvalidRequest, Unprocessable):
        raise
    except (
        Exception
    ) as error:  # the parser asserts, indexes, converts; whatever it raises, the text is at fault
        raise _malformed(f"it cannot be parsed ({type(error).__name__})") from None
    ice = description.media[0].ice
    assert ice is not None  # `_kinds` has looked
    return Offer(text, kinds, str(ice.usernameFragment), str(ice.password), candidates)


def read_fragment(text: str, limits: Limits) -> Fragment:
    """Check a trickle fragment; candidates that cannot be used (mDNS, TCP) are left out.

    Raises:
        TooLarge: it is too long.
        InvalidRequest: it cannot be read, or has too many candidates.
    """
    ufrag = password = mid = None
    found: list[RTCIceCandidate] = []
    count = 0
    for line in _lines(text, limits):
        name, _, value = line.partition(":")
        if name == "a=ice-ufrag":
            ufrag = value
        elif name == "a=ice-pwd":
            password = value
        elif name == "a=mid":
            mid = value
        elif name == "a=candidate":
            count += 1
            if count > limits.sdp_candidates:
                raise _malformed(f"it has more than {limits.sdp_candidates} candidates")
            if _usable(line):
                try:
                    candidate = candidate_from_sdp(value)
                except Exception as error:
                    raise _malformed(f"a candidate cannot be parsed ({type(error).__name__})") from None
                candidate.sdpMid = mid
                found.append(candidate)
        elif len(line) < 2 or line[1] != "=":
            raise _malformed("a line is no SDP")
    return Fragment(ufrag, password, tuple(found))


def _lines(text: str, limits: Limits) -> list[str]:
    if len(text.encode("utf-8", "surrogatepass")) > limits.sdp_bytes:
        raise TooLarge(f"the body is over {limits.sdp_bytes} bytes")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    section = 0
    for line in lines:
        section = 0 if line.startswith("m=") else section + 1
        if section > SECTION_LINES:
            raise _malformed(f"a section has more than {SECTION_LINES} lines")
        if len(line) > LINE_CHARS:
            raise _malformed(f"a line has more than {LINE_CHARS} characters")
        if not line.isprintable():
            raise _malformed("a line holds control characters")
    return lines


def _usable(line: str) -> bool:
    """Whether a candidate line names a UDP address that can be checked."""
    bits = line.split()
    if len(bits) < 8 or bits[2].lower() != "udp":
        return False
    try:
        ipaddress.ip_address(bits[4])
        return 0 < int(bits[5]) < 65536
    except ValueError:
        return False


def _kinds(description: SessionDescription) -> tuple[Kind, ...]:
    """The kinds of media that will come."""
    media = description.media
    kinds: list[Kind] = []
    if not media:
        raise Unprocessable("the offer has no media", code="no_media")
    for section in media:
        if section.kind not in ("audio", "video"):
            if section.kind == "application":
                raise Unprocessable(
                    "data channels are not served here: offer audio, video or both", code="data_channel"
                )
            raise Unprocessable(f"media of the kind {section.kind[:20]!r} are not served", code="no_media")
    mids = [section.rtp.muxId for section in media]
    if len(set(mids)) != len(mids) or (len(mids) > 1 and not all(mids)):
        raise _malformed("a=mid is missing or not unique")
    for kind in ("audio", "video"):
        if sum(section.kind == kind for section in media) > 1:
            raise Unprocessable(
                f"more than one {kind} track: publish each in a session of its own", code="too_many_tracks"
            )
    bundles = [group for group in description.group if group.semantic == "BUNDLE"]
    if len(bundles) > 1 or (
        len(media) > 1 and (not bundles or sorted(map(str, bundles[0].items)) != sorted(map(str, mids)))
    ):
        raise Unprocessable("all media must be in one BUNDLE group (RFC 9725 section 4.2)", code="no_bundle")
    if bundles and not set(bundles[0].items) <= set(mids):
        raise _malformed("BUNDLE names a section that is not there")
    for section in media:
        ice = section.ice
        if (
            ice is None
            or not _UFRAG.fullmatch(ice.usernameFragment or "")
            or not _PASSWORD.fullmatch(ice.password or "")
        ):
            raise _malformed("a=ice-ufrag or a=ice-pwd is missing or too short")
        if section.dtls is None or not any(
            f.algorithm.lower() in _FINGERPRINTS for f in section.dtls.fingerprints
        ):
            raise _malformed("a=setup or a=fingerprint (sha-256) is missing")
        if not section.rtcp_mux:
            raise Unprocessable("a=rtcp-mux is required (RFC 9725 section 4.2)", code="no_rtcp_mux")
        if section.direction in _SENDS:
            kinds.append("audio" if section.kind == "audio" else "video")
    if not kinds:
        raise Unprocessable("the offer sends neither audio nor video", code="no_media")
    for section in media:
        common = [
            codec
            for codec in find_common_codecs(CODECS[section.kind], section.rtp.codecs)
            if codec.name.lower() in DECODERS
        ]
        if not common:
            raise Unprocessable(
                f"no codec offered for {section.kind} is supported (audio: Opus, G.722, G.711; video: VP8, H.264)",
                code="no_supported_codec",
            )
    return tuple(kinds)


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"the SDP is malformed: {why}", code="malformed_sdp")
