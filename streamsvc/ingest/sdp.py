"""Validation of SDP offers and trickle fragments, and the answer's text.

aiortc never sees a publisher's text: what was understood is written anew for it, in the form that its parser
takes (which raises nine classes of exception, knows nothing that a BUNDLE or the session passes on to a
section, and compares H.264 profiles). The answer then repeats what was offered: payload types, profile,
protocol and the sections that were refused.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aiortc import RTCIceCandidate
from aiortc.codecs import HEADER_EXTENSIONS
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.sdp import candidate_from_sdp

from streamsvc.core.config import Limits
from streamsvc.core.errors import Unprocessable
from streamsvc.core.types import Kind
from streamsvc.ingest.sdp_codecs import Choice, choose
from streamsvc.ingest.sdp_text import (
    Section,
    bundle_of,
    is_rejected,
    malformed,
    read_sections,
    split_lines,
)

_UFRAG = re.compile(r"[!-~]{4,256}")  # wider than ice-char of RFC 8839: some senders use more of ASCII
_PASSWORD = re.compile(r"[!-~]{22,256}")
_CREDENTIALS = ("ice-ufrag", "ice-pwd")
_MID = re.compile(r"[!-~]{1,256}")
_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # that aiortc compares
_EXTENSIONS = {known.uri for kind in ("audio", "video") for known in HEADER_EXTENSIONS[kind]}
# The DTLS role to write for aiortc. A publisher that leaves it to us is the client: every stack can be, and
# its certificate may then be of any kind (a client's cipher suites name the kinds that it takes).
_SETUP = {"actpass": "active", "active": "active", "passive": "passive"}


@dataclass(frozen=True, slots=True)
class Media:
    """One m-section of an offer. `sends`: the publisher sends it. `choice`: None where it is refused."""

    kind: str
    protocol: str
    formats: tuple[str, ...]
    mid: str
    sends: bool
    choice: Choice | None


@dataclass(frozen=True, slots=True)
class Offer:
    """A validated offer."""

    text: str  # for aiortc: the accepted sections alone
    kinds: tuple[Kind, ...]  # that the publisher sends
    ufrag: str
    password: str
    candidates: int  # in the offer
    media: tuple[Media, ...]  # all sections, in order
    bundled: bool  # it has a BUNDLE group

    @property
    def accepted(self) -> list[tuple[Media, Choice]]:
        """The sections that aiortc sees, in order."""
        return [(one, one.choice) for one in self.media if one.choice is not None]


@dataclass(frozen=True, slots=True)
class Fragment:
    """A validated trickle fragment (RFC 8840). `ufrag`, `password`: None if absent."""

    ufrag: str | None
    password: str | None
    candidates: tuple[RTCIceCandidate, ...]


@dataclass(frozen=True, slots=True)
class _Transport:
    """The one transport of all sections."""

    ufrag: str
    password: str
    fingerprints: tuple[str, ...]
    setup: str
    lite: bool


def read_offer(text: str, limits: Limits) -> Offer:
    """Validate an offer.

    Raises:
        TooLarge: it is longer than `limits.sdp_bytes`.
        InvalidRequest: "malformed_sdp": not an offer, or more lines, media or candidates than allowed.
        Unprocessable: cannot be served: "no_media", "too_many_tracks", "no_supported_codec", "no_bundle",
            "no_rtcp_mux".
    """
    session, sections = read_sections(split_lines(text, limits), limits.sdp_media)
    bundles = bundle_of(session)
    media = tuple(_media(section, session) for section in sections)
    live = [section for section, one in zip(sections, media, strict=True) if one.choice is not None]
    kinds = _kinds(media)
    _check_mids(sections, live, bundles)
    lines = [value for part in (session, *sections) for value in part.values("candidate")]
    if len(lines) > limits.sdp_candidates:
        raise malformed(f"it has more than {limits.sdp_candidates} candidates")
    candidates = list(dict.fromkeys(line for line in lines if _usable(line)))
    for line in candidates:
        _candidate(line)
    mids = bundles[0] if bundles else ()
    # The section whose transport all share is the group's first (RFC 9143 section 7.2); where it says
    # nothing, the session does, or another section of the group.
    order = [*live, *(section for section in sections if section.mid in mids and section not in live)]
    order.sort(key=lambda section: mids.index(section.mid) if section.mid in mids else len(mids))
    sources = [*order[:1], session, *order[1:]]
    transport = _transport(sources, session)
    for section in live:
        if not any(part.has("rtcp-mux") or part.has("rtcp-mux-only") for part in (section, *sources)):
            raise Unprocessable("a=rtcp-mux is required (RFC 9725 section 4.2)", code="no_rtcp_mux")
    written = _write(session, live, [one.choice for one in media if one.choice], transport, candidates)
    return Offer(
        "\r\n".join(written) + "\r\n",
        kinds,
        transport.ufrag,
        transport.password,
        len(lines),
        media,
        bool(bundles),
    )


def complete_answer(answer: str, offer: Offer) -> str:
    """The whole answer: aiortc's, in the offered protocols, with the refused sections in their places."""
    session, *accepted = re.split(r"(?=^m=)", answer, flags=re.MULTILINE)
    if not offer.bundled:
        session = re.sub(r"a=group:BUNDLE.*\r\n", "", session)
    parts = [session]
    for one in offer.media:
        if one.choice is not None:
            parts.append(accepted.pop(0).replace(" UDP/TLS/RTP/SAVPF ", f" {one.protocol} ", 1))
        else:  # RFC 9429 section 5.3.1
            mid = [f"a=mid:{one.mid}"] if _MID.fullmatch(one.mid) else []
            head = f"m={one.kind} 0 {one.protocol} {' '.join(one.formats)}"
            parts.append("\r\n".join([head, "c=IN IP4 0.0.0.0", "a=inactive", *mid, ""]))
    return "".join(parts)


def read_fragment(text: str, limits: Limits) -> Fragment:
    """Validate a trickle fragment; unusable candidates (mDNS, TCP) are left out.

    Raises:
        TooLarge: it is too long.
        InvalidRequest: it is malformed, or has too many candidates.
    """
    ufrag = password = mid = None
    candidates: list[RTCIceCandidate] = []
    count = 0
    for line in split_lines(text, limits):
        name, _, value = line.partition(":")
        value = value.strip()
        if name == "a=ice-ufrag":
            ufrag = value
        elif name == "a=ice-pwd":
            password = value
        elif name == "a=mid":
            mid = value
        elif name == "a=candidate":
            count += 1
            if count > limits.sdp_candidates:
                raise malformed(f"it has more than {limits.sdp_candidates} candidates")
            if _usable(value):
                candidate = _candidate(value)
                candidate.sdpMid = mid
                candidates.append(candidate)
        elif len(line) < 2 or line[1] != "=":
            raise malformed("a line is not SDP")
    return Fragment(ufrag, password, tuple(candidates))


def _media(section: Section, session: Section) -> Media:
    """What becomes of a section. One that sends is served or the offer is refused, never half of it.

    Raises:
        Unprocessable: "no_supported_codec", "no_media".
    """
    choice = None
    offered = not is_rejected(section)
    sends = offered and section.direction(session) in ("sendrecv", "sendonly")
    if section.kind in ("audio", "video") and offered:
        choice = choose(section)
        if choice is None and sends:
            raise Unprocessable(
                f"no codec offered for {section.kind} is supported"
                " (audio: Opus, G.722, G.711; video: VP8, H.264)",
                code="no_supported_codec",
            )
    # Data channels and the like are refused by themselves (port 0): nobody's media are in them.
    return Media(section.kind, section.protocol, section.formats, section.mid, sends, choice)


def _kinds(media: Sequence[Media]) -> tuple[Kind, ...]:
    """Kinds that are sent, at most one section of each (RFC 9725 section 4.4)."""
    kinds: list[Kind] = [
        "audio" if one.kind == "audio" else "video" for one in media if one.choice and one.sends
    ]
    if not kinds:
        raise Unprocessable("the offer sends neither audio nor video", code="no_media")
    for kind in kinds:
        if kinds.count(kind) > 1:
            raise Unprocessable(
                f"more than one {kind} track: publish each in its own session", code="too_many_tracks"
            )
    return tuple(kinds)


def _check_mids(
    sections: Sequence[Section], live: Sequence[Section], bundles: Sequence[tuple[str, ...]]
) -> None:
    """All accepted media must be in one BUNDLE group (RFC 9725 section 4.2), each with its own mid."""
    mids = [section.mid for section in live]
    if len(set(mids)) != len(mids) or not all(_MID.fullmatch(mid) for mid in mids if len(mids) > 1 or mid):
        raise malformed("a=mid is missing or not unique")
    if len(bundles) > 1 or (len(mids) > 1 and (not bundles or not set(mids) <= set(bundles[0]))):
        raise Unprocessable("all media must be in one BUNDLE group (RFC 9725 section 4.2)", code="no_bundle")
    if bundles and not set(bundles[0]) <= {section.mid for section in sections}:
        raise malformed("BUNDLE names a missing section")


def _transport(sources: Sequence[Section], session: Section) -> _Transport:
    """ICE credentials, certificate and DTLS role, each of the first source that has it."""
    pairs = [[part.last(name) or session.last(name) or "" for name in _CREDENTIALS] for part in sources]
    ufrag, password = next((pair for pair in pairs if all(pair)), ("", ""))
    if not _UFRAG.fullmatch(ufrag) or not _PASSWORD.fullmatch(password):
        raise malformed("a=ice-ufrag or a=ice-pwd is missing or too short")
    prints = (tuple(_fingerprints(part)) for part in sources)
    fingerprints = next((found for found in prints if found), ())
    if not fingerprints:
        raise malformed("a=fingerprint (sha-256, sha-384 or sha-512) is missing")
    # An absent a=setup means active (RFC 4145 section 4.1).
    setup = next((value for part in sources if (value := part.last("setup"))), "active").lower()
    if setup not in _SETUP:
        raise malformed("a=setup is neither actpass, active nor passive")
    return _Transport(
        ufrag, password, fingerprints, _SETUP[setup], any(part.has("ice-lite") for part in sources)
    )


def _fingerprints(part: Section) -> Iterator[str]:
    """The fingerprints that can be compared, as aiortc reads them."""
    for value in part.values("fingerprint"):
        algorithm, _, digest = value.partition(" ")
        size = _DIGEST_BYTES.get(algorithm.lower())
        if size is None:
            continue
        if not re.fullmatch(rf"(?:[0-9A-Fa-f]{{2}}:){{{size - 1}}}[0-9A-Fa-f]{{2}}", digest.strip()):
            raise malformed(f"a=fingerprint of {algorithm.lower()} has not {size} bytes in hexadecimal")
        yield f"{algorithm.lower()} {digest.strip().upper()}"


def _write(
    session: Section,
    live: Sequence[Section],
    choices: Sequence[Choice],
    transport: _Transport,
    candidates: Sequence[str],
) -> list[str]:
    """The lines of an offer for aiortc."""
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=-", "t=0 0"]
    if all(section.mid for section in live):
        lines.append("a=group:BUNDLE " + " ".join(section.mid for section in live))
    if transport.lite:
        lines.append("a=ice-lite")
    for number, (section, choice) in enumerate(zip(live, choices, strict=True)):
        types = " ".join(str(codec.payloadType) for codec in choice.codecs)
        lines += [f"m={section.kind} 9 UDP/TLS/RTP/SAVPF {types}", "c=IN IP4 0.0.0.0"]
        lines += [f"a=mid:{section.mid}"] if section.mid else []
        lines += [f"a={section.direction(session)}", "a=rtcp-mux", f"a=setup:{transport.setup}"]
        lines += [f"a=ice-ufrag:{transport.ufrag}", f"a=ice-pwd:{transport.password}"]
        lines += [f"a=fingerprint:{value}" for value in transport.fingerprints]
        lines += _extensions(section)
        for codec in choice.codecs:
            lines += _codec_lines(codec)
        lines += [f"a=ssrc:{ssrc} cname:-" for ssrc in _ssrcs(section)]
        if number == 0:
            lines += [f"a=candidate:{candidate}" for candidate in candidates]
    return lines


def _codec_lines(codec: RTCRtpCodecParameters) -> Iterator[str]:
    """One codec with parameters that aiortc takes; it answers with those that `Choice` holds."""
    yield f"a=rtpmap:{codec.payloadType} {codec}"
    for feedback in codec.rtcpFeedback:
        yield f"a=rtcp-fb:{codec.payloadType} {feedback.type} {feedback.parameter or ''}".rstrip()
    if codec.name == "H264":
        yield f"a=fmtp:{codec.payloadType} packetization-mode=1;profile-level-id=42e01f"
    elif codec.name == "rtx":
        yield f"a=fmtp:{codec.payloadType} apt={codec.parameters['apt']}"


def _extensions(section: Section) -> Iterator[str]:
    """The header extensions that aiortc uses; their ids may take two bytes (RFC 8285 section 4.3)."""
    for value in section.values("extmap"):
        number, _, rest = value.partition(" ")
        number = number.partition("/")[0]
        uri = rest.split()[0] if rest.split() else ""
        if uri in _EXTENSIONS and number.isdecimal() and 0 < int(number) < 256:
            yield f"a=extmap:{int(number)} {uri}"


def _ssrcs(section: Section) -> list[int]:
    """The stream's SSRC, and that of its retransmissions where a=ssrc-group:FID pairs them (RFC 5576)."""
    for value in section.values("ssrc-group"):
        name, *numbers = value.split()
        if name.upper() == "FID" and len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            return [int(number) for number in numbers]
    told = (value.split()[0] for value in section.values("ssrc") if value.split())
    return [int(number) for number in told if number.isdecimal()][:1]


def _usable(value: str) -> bool:
    """Whether a candidate is of UDP, with an IP address, and for RTP (mDNS would be waited for)."""
    fields = value.split()
    if len(fields) < 8 or fields[2].lower() != "udp" or "%" in fields[4]:
        return False
    if fields[1].isdecimal() and int(fields[1]) != 1:  # 2 is RTCP, which shares our one socket
        return False
    try:
        ipaddress.ip_address(fields[4])
        return 0 < int(fields[5]) < 65536
    except ValueError:
        return False


def _candidate(value: str) -> RTCIceCandidate:
    try:
        return candidate_from_sdp(value)
    except Exception as error:  # of several classes; the text is at fault
        raise malformed(f"a candidate cannot be parsed ({type(error).__name__})") from None
