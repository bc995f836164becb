"""SRT stream ids: which session a caller wants to publish to, and the token that it shows.

Two forms: plain, `NAME?token=TOKEN`, and that of SRT's access control (draft-sharabayko-srt appendix B),
`#!::r=NAME,m=publish,s=TOKEN`, where the token may also stand as `token=`, or in the query of `r`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from streamsvc.core.errors import InvalidRequest

_KEYED = "#!::"
_NESTED = "#!"  # other forms of the same standard, which nobody sends
_PATH = "live/"  # as RTMP's application; many encoders put it before the key
_CHARACTERS = 512  # libsrt carries no more (security limit)
_STANDARD = frozenset("urhstm")  # keys of the standard; user and host say nothing here


@dataclass(frozen=True, slots=True)
class StreamId:
    """Which session is published to, and the credential. `token` is "" where none is shown."""

    name: str
    token: str = field(default="", repr=False)


def parse(text: str) -> StreamId:
    """Parse a stream id, untrusted.

    Raises:
        InvalidRequest: it is not of either form, or does not publish a stream. Its text is not quoted.
    """
    if len(text) > _CHARACTERS or not text.isprintable():
        raise _wrong("it is too long, or has unprintable characters")
    if text.startswith(_KEYED):
        return _keyed(text.removeprefix(_KEYED))
    if text.startswith(_NESTED):
        raise _wrong("after #! comes ::, then key=value pairs with commas")
    name, token = _resource(text)
    return StreamId(name, token)


def _keyed(text: str) -> StreamId:
    values: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or key in values:
            raise _wrong("after #!:: come key=value pairs with commas, each key once")
        if key in _STANDARD or key == "token":  # others are an application's own
            values[key] = value
    if values.get("m", "publish") != "publish":
        raise InvalidRequest("this SRT listener takes publishers alone (m=publish)", code="bad_mode")
    if values.get("t", "stream") != "stream":
        raise InvalidRequest("this SRT listener takes streams alone (t=stream)", code="bad_type")
    name, token = _resource(values.get("r", ""))
    shown = {one for one in (token, values.get("token", ""), values.get("s", "")) if one}
    if len(shown) > 1:
        raise _wrong("it shows two different tokens")
    return StreamId(name, shown.pop() if shown else "")


def _resource(text: str) -> tuple[str, str]:
    """Name and token of `NAME?token=TOKEN`."""
    name, _, query = text.partition("?")
    tokens = [value for key, _, value in (one.partition("=") for one in query.split("&")) if key == "token"]
    if len(tokens) > 1:
        raise _wrong("it shows two tokens")
    name = name.removeprefix(_PATH)
    if not name:
        raise _wrong("it names no session; one is NAME, or NAME?token=TOKEN")
    return name, tokens[0] if tokens else ""


def _wrong(why: str) -> InvalidRequest:
    return InvalidRequest(f"the SRT stream id cannot be read: {why}", code="bad_stream_id")
