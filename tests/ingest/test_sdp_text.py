"""An SDP's text is split into sections; what senders write differently, and texts, do not matter."""

from __future__ import annotations

import pytest

from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, TooLarge
from streamsvc.ingest.sdp_text import Section, bundle_of, is_rejected, read_sections, split_lines

LIMITS = Limits()
TEXT = (
    "v=0\r\ns=a\r\na=group:BUNDLE 0 1\r\na=sendonly\r\n"
    "m=audio 9 X 0\r\na=mid:0\r\nm=video 0 Y 96 97\r\na=inactive\r\n"
)


def read(text: str) -> tuple[Section, list[Section]]:
    return read_sections(split_lines(text, LIMITS), LIMITS.sdp_media)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\r\n", "\n"),
        lambda text: text.replace("\r\n", "\r"),
        lambda text: text.replace("\r\n", "\r\r\n"),
        lambda text: text.rstrip(),
        lambda text: "\ufeff" + text,
        lambda text: "\r\n" + text + "\r\n \r\n",
        lambda text: text.replace("\r\n", " \t\r\n"),
        lambda text: text.replace("s=a", "s=caf\u00e9 \u2028 \x85 \u200f \x1b[1m \x0b \u00ad \u00a0 \t end"),
        lambda text: text.replace(
            "s=a", "i=\x01\x7f\x1c\x1d\r\nu=\u3000\r\nz=\r\n?\r\nfoo bar\r\na\r\na=\r\n="
        ),
        lambda text: text.replace("a=mid:0", "a=\u200bx\u2029y:\u0085z\r\na=mid: 0"),
    ],
    ids=[
        "LF",
        "CR",
        "CRCRLF",
        "unended",
        "BOM",
        "blank lines",
        "trailing blanks",
        "texts",
        "unknown",
        "names",
    ],
)
def test_line_ends_blanks_texts_and_unknown_lines_do_not_matter(change) -> None:  # type: ignore[no-untyped-def]
    session, sections = read(change(TEXT))
    assert bundle_of(session) == [("0", "1")]
    assert [(one.kind, one.port, one.protocol, one.formats) for one in sections] == [
        ("audio", 9, "X", ("0",)),
        ("video", 0, "Y", ("96", "97")),
    ]
    assert [one.mid for one in sections] == ["0", ""]
    assert [one.direction(session) for one in sections] == ["sendonly", "inactive"]


def test_a_direction_is_sendrecv_where_neither_section_nor_session_says_it() -> None:
    session, (section,) = read("v=0\nm=audio 9 X 0\n")
    assert section.direction(session) == "sendrecv"


def test_a_flag_counts_whatever_follows_it() -> None:
    _, (section,) = read("v=0\nm=audio 9 X 0\na=rtcp-mux rtcp-mux\n")
    assert section.has("rtcp-mux")


def test_port_0_is_a_refusal_unless_the_section_is_bundle_only() -> None:
    _, sections = read("v=0\nm=audio 0 X 0\nm=video 0 X 96\na=bundle-only\nm=video 9/2 X 96\n")
    assert [is_rejected(section) for section in sections] == [True, False, False]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "v=0"),
        ("hello", "v=0"),
        ("v=0\ns=\0\n", "NUL"),
        ("v=0\nm=audio nine X 0\n", "m-line"),
        ("v=0\nm=audio 9 X\n", "m-line"),
        ("v=0\n" + "m=audio 9 X 0\n" * 5, "more than 4 media"),
        ("v=0\n" + "a=x\n" * 501, "500 lines"),
        ("v=0\na=" + "x" * 2001, "2000 characters"),
    ],
)
def test_text_that_is_not_an_sdp_is_named(text: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        read(text)
    assert caught.value.code == "malformed_sdp"


def test_a_long_text_is_too_large() -> None:
    with pytest.raises(TooLarge):
        split_lines("v=0\n" + "a" * LIMITS.sdp_bytes, LIMITS)
