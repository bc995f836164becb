"""Formats of an m-section -> the codec to answer with, and its retransmissions. Pure.

A payload type keeps the number and the parameters that the publisher offered. Any H.264 profile is taken, for
libav decodes them all.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from aiortc.rtcrtpparameters import ParametersDict, RTCRtcpFeedback, RTCRtpCodecParameters

from streamsvc.ingest.sdp_text import Section, malformed

DECODERS = {  # RTP name -> libav decoder
    "opus": "opus",
    "g722": "g722",
    "pcmu": "pcm_mulaw",
    "pcma": "pcm_alaw",
    "vp8": "vp8",
    "h264": "h264",
}
# RTP name -> media type as aiortc spells it, clock rate in Hz, channels. G.722: RFC 3551 section 4.5.2.
_SUPPORTED: dict[str, tuple[str, int, int | None]] = {
    "opus": ("audio/opus", 48_000, 2),
    "g722": ("audio/G722", 8000, 1),
    "pcmu": ("audio/PCMU", 8000, 1),
    "pcma": ("audio/PCMA", 8000, 1),
    "vp8": ("video/VP8", 90_000, None),
    "h264": ("video/H264", 90_000, None),
}
_STATIC = {0: "PCMU/8000", 8: "PCMA/8000", 9: "G722/8000"}  # needs no a=rtpmap (RFC 3551 section 6)
_RTCP = range(72, 77)  # payload types that RTCP would be taken for (RFC 5761 section 4)
_FEEDBACK = (("nack", ""), ("nack", "pli"), ("goog-remb", ""))  # that aiortc sends
# Parameters of H.264 that an answer repeats (RFC 6184 section 8.2.2); others describe the sender's stream.
_SYMMETRIC = ("level-asymmetry-allowed", "packetization-mode", "profile-level-id")


@dataclass(frozen=True, slots=True)
class Choice:
    """What a section is answered with. `codecs`: the chosen one, then its retransmissions (RTX).

    `parameter_sets`: H.264 parameter sets told in the offer, in Annex B format; empty if there are none.
    """

    codecs: tuple[RTCRtpCodecParameters, ...]
    parameter_sets: bytes = b""


@dataclass(frozen=True, slots=True)
class _Format:
    payload_type: int
    name: str  # in lower case
    rate: int
    channels: int  # 1 where it is not said
    parameters: dict[str, str]


def choose(section: Section) -> Choice | None:
    """The first supported codec in the publisher's order, Opus before other audio; None if there is none.

    Raises:
        InvalidRequest: "malformed_sdp": a payload type or an rtpmap is malformed.
    """
    formats = _formats(section)
    supported = [one for one in formats if _is_supported(one, section.kind)]
    if not supported:
        return None
    chosen = next((one for one in supported if one.name == "opus"), supported[0])
    codecs = [_parameters(chosen, section)]
    for one in formats:
        repeats = one.parameters.get("apt") == str(chosen.payload_type)
        if one.name == "rtx" and one.rate == chosen.rate and repeats:
            codecs.append(_rtx(one, chosen, section.kind))
    return Choice(tuple(codecs), _parameter_sets(chosen))


def _formats(section: Section) -> list[_Format]:
    """All formats of an audio or video section, in the publisher's order; those without a name left out."""
    names: dict[int, str] = dict(_STATIC) if section.kind == "audio" else {}
    parameters: dict[int, dict[str, str]] = {}
    for value in section.values("rtpmap"):
        told, _, name = value.partition(" ")
        if not told.isdecimal() or "/" not in name:
            raise malformed("an a=rtpmap has not the form 'number name/rate'")
        names[int(told)] = name.strip()
    for value in section.values("fmtp"):
        told, _, text = value.partition(" ")
        if told.isdecimal():
            parameters.setdefault(int(told), {}).update(_pairs(text))
    formats: list[_Format] = []
    for text in section.formats:
        if not text.isdecimal() or int(text) > 127 or int(text) in _RTCP:
            raise malformed(f"an m-line of {section.kind} names something else than payload types")
        number = int(text)
        if number not in names:
            continue
        name, rate, *rest = names[number].split("/")
        if not rate.strip().isdecimal():
            raise malformed("an a=rtpmap has no clock rate")
        channels = int(rest[0]) if rest and rest[0].strip().isdecimal() else 1
        formats.append(_Format(number, name.lower(), int(rate), channels, parameters.get(number, {})))
    return formats


def _pairs(text: str) -> dict[str, str]:
    """Parameters of an a=fmtp; their names are not case-sensitive (RFC 8866 section 6.15)."""
    pairs = (pair.partition("=") for pair in text.split(";") if pair.strip())
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _is_supported(one: _Format, kind: str) -> bool:
    known = _SUPPORTED.get(one.name)
    if known is None or not known[0].startswith(kind) or one.rate != known[1]:
        return False
    if one.name == "h264":  # mode 2 interleaves pictures, and needs packets that aiortc does not read
        return one.parameters.get("packetization-mode", "0") in ("0", "1")
    return one.name in ("opus", "vp8") or one.channels == 1


def _parameters(one: _Format, section: Section) -> RTCRtpCodecParameters:
    media_type, rate, channels = _SUPPORTED[one.name]
    repeated: ParametersDict = {}
    if one.name == "h264":
        repeated |= {name: one.parameters[name] for name in _SYMMETRIC if name in one.parameters}
    offered: set[tuple[str, str]] = set()
    for value in section.values("rtcp-fb"):
        number, _, feedback = value.partition(" ")
        if number in ("*", str(one.payload_type)):
            kind, _, parameter = feedback.strip().partition(" ")
            offered.add((kind, parameter.strip()))
    feedbacks = [
        RTCRtcpFeedback(kind, parameter or None)
        for kind, parameter in _FEEDBACK
        if section.kind == "video" and (kind, parameter) in offered
    ]
    return RTCRtpCodecParameters(media_type, rate, channels, one.payload_type, feedbacks, repeated)


def _rtx(one: _Format, chosen: _Format, kind: str) -> RTCRtpCodecParameters:
    return RTCRtpCodecParameters(
        f"{kind}/rtx", one.rate, None, one.payload_type, [], {"apt": chosen.payload_type}
    )


def _parameter_sets(one: _Format) -> bytes:
    """H.264 parameter sets of the offer, which some encoders send nowhere else (RFC 6184 section 8.1)."""
    if one.name != "h264":
        return b""
    found = b""
    for text in one.parameters.get("sprop-parameter-sets", "").split(","):
        try:
            unit = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return b""
        if unit:
            found += b"\0\0\0\1" + unit
    return found
