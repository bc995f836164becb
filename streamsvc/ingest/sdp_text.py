"""Text of an SDP (RFC 8866) -> its sections, and what a section of a BUNDLE inherits. Pure.

Tolerant where senders differ and nothing depends on it: any line end, a byte order mark, blank lines, lines
and attributes of unknown kinds, and any character but NUL in texts (names, titles, labels), which are never
passed on. What is used (ICE, DTLS, codecs, mids) is checked by the callers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, TooLarge

# Security limits (real offers have 60 to 250 lines in a section).
SECTION_LINES = 500
LINE_CHARS = 2000

_BLANK = "\ufeff \t\v\f\r\x1c\x1d\x1e\x1f\x85\xa0"  # around a value that is used
_MEDIA = re.compile(r"([!-~]+) +([0-9]{1,5})(?:/[0-9]{1,5})? +([!-~]+) +(.+)")


@dataclass(frozen=True, slots=True)
class Section:
    """One m-section, or the session's part of an SDP.

    `kind`, `protocol`, `formats`: of the m-line; empty for the session's part. `port`: 0 where it says so.
    `attributes`: name and value in the order of the text; a flag has the value "".
    """

    kind: str
    port: int
    protocol: str
    formats: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]

    def has(self, name: str) -> bool:
        """Whether an attribute is there."""
        return any(known == name for known, _ in self.attributes)

    def values(self, name: str) -> list[str]:
        """All values of an attribute, in order."""
        return [value for known, value in self.attributes if known == name]

    def last(self, name: str) -> str | None:
        """The last value of an attribute; None where it is absent."""
        values = self.values(name)
        return values[-1] if values else None

    @property
    def mid(self) -> str:
        """The section's name in BUNDLE groups; empty if it has none."""
        return self.last("mid") or ""

    def direction(self, session: Section) -> str:
        """Direction of the media: the section's own, else the session's, else sendrecv (RFC 8866 6.7)."""
        for part in (self, session):
            for name, _ in reversed(part.attributes):
                if name in ("sendrecv", "sendonly", "recvonly", "inactive"):
                    return name
        return "sendrecv"


def split_lines(text: str, limits: Limits) -> list[str]:
    """The lines of a body without their ends, blank ones left out.

    Raises:
        TooLarge: it is longer than `limits.sdp_bytes`.
        InvalidRequest: "malformed_sdp": too many or too long lines, or NUL (RFC 8866 section 5).
    """
    if len(text.encode("utf-8", "surrogatepass")) > limits.sdp_bytes:
        raise TooLarge(f"the body is over {limits.sdp_bytes} bytes")
    if "\0" in text:
        raise malformed("a line holds a NUL character")
    lines: list[str] = []
    section = 0
    for line in text.removeprefix("\ufeff").replace("\r", "\n").split("\n"):
        if not line.strip():
            continue
        section = 0 if line.startswith("m=") else section + 1
        if section > SECTION_LINES:
            raise malformed(f"a section has more than {SECTION_LINES} lines")
        if len(line) > LINE_CHARS:
            raise malformed(f"a line has more than {LINE_CHARS} characters")
        lines.append(line)
    return lines


def read_sections(lines: Sequence[str], most: int) -> tuple[Section, list[Section]]:
    """The session's part and the m-sections; at most `most` of these.

    Raises:
        InvalidRequest: "malformed_sdp": it does not begin with v=0, or an m-line is malformed.
    """
    if not lines or lines[0].strip(_BLANK) != "v=0":
        raise malformed("it does not begin with v=0")
    heads: list[str] = [""]
    attributes: list[list[tuple[str, str]]] = [[]]
    for line in lines:
        kind, value = line[:2], line[2:].strip(_BLANK)
        if kind == "m=":
            heads.append(value)
            attributes.append([])
        elif kind == "a=":
            name, colon, value = value.partition(":")
            if not colon:  # a flag: what follows it is not its name
                name = (name.split() or [""])[0]
            attributes[-1].append((name.strip(_BLANK), value.strip(_BLANK)))
        # All others (o=, s=, i=, c=, b= ... and unknown ones) tell nothing that is needed.
    if len(heads) - 1 > most:
        raise malformed(f"it has more than {most} media sections")
    session = Section("", 0, "", (), tuple(attributes[0]))
    return session, [_section(*pair) for pair in zip(heads[1:], attributes[1:], strict=True)]


def bundle_of(session: Section) -> list[tuple[str, ...]]:
    """The mids of each BUNDLE group (RFC 9143), in their order."""
    groups = [value.split() for value in session.values("group")]
    return [tuple(group[1:]) for group in groups if group and group[0] == "BUNDLE"]


def is_rejected(section: Section) -> bool:
    """Whether port 0 means that the section is not offered.

    With a=bundle-only it means that the section has no transport of its own (RFC 9143 section 6).
    """
    return section.port == 0 and not section.has("bundle-only")


def malformed(why: str) -> InvalidRequest:
    """The error of a text that is not an SDP."""
    return InvalidRequest(f"the SDP is malformed: {why}", code="malformed_sdp")


def _section(head: str, attributes: list[tuple[str, str]]) -> Section:
    match = _MEDIA.fullmatch(head)
    if match is None:
        raise malformed("an m-line has not the form 'm=kind port protocol formats'")
    kind, port, protocol, formats = match.groups()
    return Section(kind.lower(), int(port), protocol, tuple(formats.split()), tuple(attributes))
