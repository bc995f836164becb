"""Validation of SDP offers and trickle fragments: within limits, parseable, and servable.

aiortc's parser raises nine classes of exception, and its run time is quadratic in the number of lines. The
limits on lines bound that work, so parsing needs neither a thread nor a timer.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from aiortc import RTCIceCandidate
from aiortc.codecs import CODECS
from aiortc.rtcpeerconnection import find_common_codecs
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, TooLarge, Unprocessable
from streamsvc.core.types import Kind

# Security limits on the parser's work (real offers have 60 to 250 lines in a section).
SECTION_LINES = 500
LINE_CHARS = 2000

DECODERS = {  # RTP name -> libav decoder
    "opus": "opus",
    "g722": "g722",
    "pcmu": "pcm_mulaw",
    "pcma": "pcm_alaw",
    "vp8": "vp8",
    "h264": "h264",
}

_SENDS = ("sendrecv", "sendonly", None)  # None means sendrecv (RFC 8866 section 6.7)
_UFRAG = re.compile(r"[!-~]{4,256}")  # wider than ice-char of RFC 8839: some senders use more of ASCII
_PASSWORD = re.compile(r"[!-~]{22,256}")
_FINGERPRINTS = ("sha-256", "sha-384", "sha-512")


@dataclass(frozen=True, slots=True)
class Offer:
    """A validated offer."""

    text: str  # for aiortc
    kinds: tuple[Kind, ...]  # that the publisher sends
    ufrag: str
    password: str
    candidates: int  # in the offer


@dataclass(frozen=True, slots=True)
class Fragment:
    """A validated trickle fragment (RFC 8840). `ufrag`, `password`: None if absent."""

    ufrag: str | None
    password: str | None
    candidates: tuple[RTCIceCandidate, ...]


def read_offer(text: str, limits: Limits) -> Offer:
    """Validate an offer.

    Raises:
        TooLarge: it is longer than `limits.sdp_bytes`.
        InvalidRequest: "malformed_sdp": not an offer, or more lines, media or candidates than allowed.
        Unprocessable: cannot be served: "no_media", "too_many_tracks", "no_supported_codec", "data_channel",
            "no_bundle", "no_rtcp_mux".
    """
    lines = _lines(text, limits)
    if not lines or lines[0] != "v=0":
        raise _malformed("it does not begin with v=0")
    if sum(line.startswith("m=") for line in lines) > limits.sdp_media:
        raise _malformed(f"it has more than {limits.sdp_media} media sections")
    candidates = sum(line.startswith("a=candidate:") for line in lines)
    if candidates > limits.sdp_candidates:
        raise _malformed(f"it has more than {limits.sdp_candidates} candidates")
    # Lines that aiortc must not see: mDNS candidates, which it would wait for; TCP candidates, which it
    # cannot use; end-of-candidates, since the publisher may still reach us from an address that it did not
    # name; simulcast.
    removed = ("a=end-of-candidates", "a=simulcast", "a=rid:")
    remaining = [
        line
        for line in lines
        if not line.startswith(removed) and (not line.startswith("a=candidate:") or _usable(line))
    ]
    text = "\r\n".join(remaining) + "\r\n"
    try:
        description = SessionDescription.parse(text)
        kinds = _check_description(description)
    except (InvalidRequest, Unprocessable):
        raise
    except Exception as error:  # the parser raises many classes; the text is at fault
        raise _malformed(f"it cannot be parsed ({type(error).__name__})") from None
    ice = description.media[0].ice
    assert ice is not None  # checked by _check_transport
    return Offer(text, kinds, str(ice.usernameFragment), str(ice.password), candidates)


def read_fragment(text: str, limits: Limits) -> Fragment:
    """Validate a trickle fragment; unusable candidates (mDNS, TCP) are left out.

    Raises:
        TooLarge: it is too long.
        InvalidRequest: it is malformed, or has too many candidates.
    """
    ufrag = password = mid = None
    candidates: list[RTCIceCandidate] = []
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
                candidates.append(candidate)
        elif len(line) < 2 or line[1] != "=":
            raise _malformed("a line is not SDP")
    return Fragment(ufrag, password, tuple(candidates))


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
    """Whether a candidate line has a UDP transport and an IP address."""
    fields = line.split()
    if len(fields) < 8 or fields[2].lower() != "udp":
        return False
    try:
        ipaddress.ip_address(fields[4])
        return 0 < int(fields[5]) < 65536
    except ValueError:
        return False


def _check_description(description: SessionDescription) -> tuple[Kind, ...]:
    """Refuse what cannot be served; return the kinds of media that the offer sends."""
    media = description.media
    _check_sections(media)
    _check_bundle(description)
    for section in media:
        _check_transport(section)
    kinds: list[Kind] = [
        "audio" if section.kind == "audio" else "video" for section in media if section.direction in _SENDS
    ]
    if not kinds:
        raise Unprocessable("the offer sends neither audio nor video", code="no_media")
    for section in media:
        _check_codecs(section)
    return tuple(kinds)


def _check_sections(media: list[MediaDescription]) -> None:
    """At most one audio and one video section, each with its own mid."""
    if not media:
        raise Unprocessable("the offer has no media", code="no_media")
    for section in media:
        if section.kind == "application":
            raise Unprocessable(
                "data channels are not supported: offer audio, video or both", code="data_channel"
            )
        if section.kind not in ("audio", "video"):
            raise Unprocessable(f"media of the kind {section.kind[:20]!r} are not supported", code="no_media")
    mids = [section.rtp.muxId for section in media]
    if len(set(mids)) != len(mids) or (len(mids) > 1 and not all(mids)):
        raise _malformed("a=mid is missing or not unique")
    for kind in ("audio", "video"):
        if sum(section.kind == kind for section in media) > 1:
            raise Unprocessable(
                f"more than one {kind} track: publish each in its own session", code="too_many_tracks"
            )


def _check_bundle(description: SessionDescription) -> None:
    """All media must be in one BUNDLE group (RFC 9725 section 4.2)."""
    mids = [section.rtp.muxId for section in description.media]
    bundles = [group for group in description.group if group.semantic == "BUNDLE"]
    if len(bundles) > 1 or (
        len(mids) > 1 and (not bundles or sorted(map(str, bundles[0].items)) != sorted(map(str, mids)))
    ):
        raise Unprocessable("all media must be in one BUNDLE group (RFC 9725 section 4.2)", code="no_bundle")
    if bundles and not set(bundles[0].items) <= set(mids):
        raise _malformed("BUNDLE names a missing section")


def _check_transport(section: MediaDescription) -> None:
    """ICE credentials, a DTLS fingerprint and rtcp-mux must be there."""
    ice, dtls = section.ice, section.dtls
    if (
        ice is None
        or not _UFRAG.fullmatch(ice.usernameFragment or "")
        or not _PASSWORD.fullmatch(ice.password or "")
    ):
        raise _malformed("a=ice-ufrag or a=ice-pwd is missing or too short")
    if dtls is None or not any(f.algorithm.lower() in _FINGERPRINTS for f in dtls.fingerprints):
        raise _malformed("a=setup or a=fingerprint (sha-256) is missing")
    if not section.rtcp_mux:
        raise Unprocessable("a=rtcp-mux is required (RFC 9725 section 4.2)", code="no_rtcp_mux")


def _check_codecs(section: MediaDescription) -> None:
    """At least one offered codec must be supported by aiortc and by us."""
    common = find_common_codecs(CODECS[section.kind], section.rtp.codecs)
    if not any(codec.name.lower() in DECODERS for codec in common):
        raise Unprocessable(
            f"no codec offered for {section.kind} is supported"
            " (audio: Opus, G.722, G.711; video: VP8, H.264)",
            code="no_supported_codec",
        )


def _malformed(why: str) -> InvalidRequest:
    return InvalidRequest(f"the SDP is malformed: {why}", code="malformed_sdp")
