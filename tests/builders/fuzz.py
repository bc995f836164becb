"""Generated requests and socket conversations for the whole application, served in this process.

Requests come from the OpenAPI document and are mutated: wrong types, odd digits, half surrogates, huge
numbers, deep nesting, raw bytes. Nothing leaves the process: host names are not resolved.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Scope

PATIENCE = 20.0  # seconds for the answer to one case
STREAM_SECONDS = 0.02  # that a client follows an endless answer
SESSION = "fuzzed"  # a session that is there


@dataclass(frozen=True)
class Request:
    """One HTTP request; `headers` beside the content type."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()
    body: bytes = b""


@dataclass(frozen=True)
class Conversation:
    """What a client of one socket sends."""

    path: str
    query: str = ""
    headers: tuple[tuple[str, bytes], ...] = ()
    subprotocols: tuple[str, ...] = ()
    messages: tuple[str | bytes, ...] = ()


@dataclass
class Reply:
    """What came back; `status` 0: nothing."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def _scope(kind: str, path: str, query: str, headers: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    named = {name.lower() for name, _ in headers}
    host = [] if "host" in named else [(b"host", b"127.0.0.1")]
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3" if kind == "http" else "2.4"},
        "http_version": "1.1",
        "path": path,
        "raw_path": quote(path, errors="replace").encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": host + [(name.lower().encode(), value) for name, value in headers],
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 80),
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }


async def request(app: ASGIApp, case: Request) -> Reply:
    """Send one request. Whatever the application raises is raised."""
    scope: Scope = _scope("http", case.path, case.query, case.headers) | {
        "method": case.method,
        "scheme": "http",
    }
    reply, over, sent = Reply(), asyncio.Event(), False

    async def receive() -> Message:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": case.body, "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reply.status = message["status"]
            reply.headers = {
                name.decode().lower(): value.decode("latin-1") for name, value in message["headers"]
            }
            asyncio.get_running_loop().call_later(STREAM_SECONDS, over.set)
        elif message["type"] == "http.response.body":
            reply.body += message.get("body", b"")

    async with asyncio.timeout(PATIENCE):
        await app(scope, receive, send)
    return reply


async def converse(app: ASGIApp, case: Conversation) -> list[Message]:
    """Hold one conversation; returns all that the application sent. Whatever it raises is raised."""
    scope: Scope = _scope("websocket", case.path, case.query, case.headers) | {
        "scheme": "ws",
        "subprotocols": list(case.subprotocols),
    }
    waiting: asyncio.Queue[Message] = asyncio.Queue()
    waiting.put_nowait({"type": "websocket.connect"})
    got: list[Message] = []

    async def send(message: Message) -> None:
        if any(one["type"] == "websocket.close" for one in got):
            raise RuntimeError("sent after the close")
        got.append(message)
        if message.get("text") is not None:  # as the server does, and as a client reads it
            json.loads(message["text"].encode(), parse_constant=_no_json)
        if message["type"] == "websocket.accept":
            for said in case.messages:
                name = "text" if isinstance(said, str) else "bytes"
                waiting.put_nowait({"type": "websocket.receive", name: said})
            hang_up = {"type": "websocket.disconnect", "code": 1006}
            asyncio.get_running_loop().call_later(STREAM_SECONDS, waiting.put_nowait, hang_up)

    async with asyncio.timeout(PATIENCE):
        await app(scope, waiting.get, send)
    return got


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# --- what is generated --------------------------------------------------------------------------------------

ODD = (
    "", " ", "0", "-1", "²", "a.²", "٣", "1e400", "nan", "inf", "-inf", "9" * 30, "9" * 5000, "-" + "9" * 30,
    "http://[", "http://[::1", "http://a:99999/", "http://a:b/", "file://[", "file:///\0", "rtsp://", "//",
    "..",
    "\0", "\r\nX: y", "é", "😀", "\ud800", "%", "%zz", "a" * 300, "null", "[", "{", "fuzzed", "max", "en",
    "klingon",
    "file:/etc/passwd", "http://127.0.0.1:1/x", "http://[::1]:1/x.m3u8", "http://xn--/",
    "http://" + "a" * 70 + "/",
    "data:image/png;base64,iVBORw0KGgo=", "data:", "====", "iVBORw0KGgo=", "/9j/", "*", "caption.*", "[!",
    "a,b,,",
)  # fmt: skip
_words = st.one_of(st.sampled_from(ODD), st.text(max_size=12))
_wire_words = _words.map(lambda text: text.encode("utf-8", "replace").decode())
_atoms = st.one_of(
    st.none(), st.booleans(), _words, st.integers(), st.floats(),
    st.sampled_from([10**30, -(10**30), 2**63, 1e308, "x" * 3000]),
)  # fmt: skip
_flat = st.one_of(_atoms, st.lists(_atoms, max_size=3), st.dictionaries(_words, _atoms, max_size=3))
_values = st.one_of(_flat, st.lists(_flat, max_size=2), st.dictionaries(_words, _flat, max_size=2))
_deep = st.sampled_from(
    [b"[" * 100_000, b'{"a":' * 3000, b"[" * 400 + b"]" * 400, b'{"a":' * 400 + b"1" + b"}" * 400]
)
_raw = st.one_of(
    st.binary(max_size=40),
    _deep,
    st.sampled_from([b"9" * 5000, b"NaN", b"\xff\xfe{}", b'{"text":"\\ud800"}']),
)
HEADERS = (
    "last-event-id", "authorization", "accept", "content-type", "host", "origin", "range", "if-match",
    "if-none-match",
    "accept-language", "sec-fetch-site", "cookie", "x-forwarded-for", "content-length", "expect", "te",
    "upgrade",
    "access-control-request-method", "access-control-request-headers", "dg-x", "accept-encoding",
)  # fmt: skip
_header_values = st.one_of(
    _wire_words.map(lambda text: text.replace("\r", "").replace("\n", "").replace("\0", "").encode()),
    st.sampled_from([
        b"Bearer x", b"Bearer \xff", b"Token \xb2", b"Bearer eyJhbGciOiJub25lIn0.e30.",
        b"text/event-stream", b"\xff\xb2",
        b"application/sdp", b"bytes=\xb2-", b"bytes=5-1", b"http://[", b"[", b"[::1", b"http://localhost",
        b"0-\xb2",
    ]),
)  # fmt: skip
_headers = st.lists(st.tuples(st.sampled_from(HEADERS), _header_values), max_size=2).map(tuple)


def _with_place(schema: Mapping[str, Any], document: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _right(schema: Mapping[str, Any], document: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values of the kind that a schema names, at the edges of it too."""
    schema = _with_place(schema, document)
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "const" in schema:
        return st.just(schema["const"])
    for name in ("anyOf", "oneOf"):
        if name in schema:
            return st.one_of(*(_right(one, document) for one in schema[name]))
    match schema.get("type"):
        case "object":
            return _objects(schema, document)
        case "array":
            return st.lists(_right(schema.get("items", {}), document), max_size=3)
        case "integer":
            return st.integers()
        case "number":
            return st.floats() | st.integers(-5, 5000)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return _words
    return _values


def _objects(schema: Mapping[str, Any], document: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    fields = {
        name: _right(one, document) | _mutated(one, document)
        for name, one in schema.get("properties", {}).items()
    }
    required = set(schema.get("required", ()))
    if not fields:
        return st.dictionaries(_words, _atoms, max_size=3)
    return st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in required},
        optional={name: fields[name] for name in fields if name not in required},
    )


def _mutated(schema: Mapping[str, Any], document: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    return _values


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode()  # lone surrogates become \ud800, NaN and Infinity their names


def _bodies(operation: Mapping[str, Any], document: Mapping[str, Any]) -> st.SearchStrategy[bytes]:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return st.just(b"") | _raw
    schema = next(iter(content.values())).get("schema", {})
    right = _right(schema, document).map(_encoded)
    return st.one_of(right, right, right, _values.map(_encoded), _raw)


def _parameters(operation: Mapping[str, Any], place: str) -> list[str]:
    return [one["name"] for one in operation.get("parameters", ()) if one["in"] == place]


def _query(names: Sequence[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.sampled_from([*names, "exp", "sig", "x"]), st.one_of(_wire_words, st.just("1")))
    raw = st.sampled_from(
        ["%", "a=%ff", "exp=²&sig=²".encode().decode("latin-1").encode("ascii", "replace").decode(), "&&="]
    )
    return st.lists(pairs, max_size=3).map(lambda some: "&".join(f"{a}={quote(b)}" for a, b in some)) | raw


@st.composite
def requests(draw: st.DrawFn, document: Mapping[str, Any]) -> Request:
    """A request to some route of an OpenAPI document, or to none."""
    path = draw(
        st.sampled_from(
            [*sorted(document["paths"]), "/docs", "/openapi.json", "/", "/web/page.js", "/whip", "/none"]
        )
    )
    operations = document["paths"].get(path, {})
    methods = [*sorted(operations), *sorted(operations), "get", "post", "put", "options", "head", "brew"]
    method = draw(st.sampled_from(methods))
    operation = operations.get(method, {})
    for name in _parameters(operation, "path") or ["session_id", "session"]:
        value = draw(st.just(SESSION) | st.just(SESSION) | _wire_words)
        path = path.replace("{" + name + "}", value)
    names = _parameters(operation, "query") or [
        "types",
        "after",
        "epoch",
        "at",
        "encoding",
        "sample_rate",
        "model",
    ]
    headers = draw(_headers)
    if not any(name == "content-type" for name, _ in headers):
        headers = (*headers, ("content-type", b"application/sdp" if "whip" in path else b"application/json"))
    return Request(method.upper(), path, draw(_query(names)), headers, draw(_bodies(operation, document)))


# --- sockets ------------------------------------------------------------------------------------------------

_KINDS = (
    "ping", "question.ask", "question.cancel", "watch.add", "watch.remove", "session.update",
    "input_audio_buffer.append", "input_audio_buffer.commit", "input_audio_buffer.clear", "session.close",
    "KeepAlive", "Finalize", "CloseStream", "Configure", "Unknown",
)  # fmt: skip
_FIELDS = (
    "id", "text", "deadline_ms", "audience", "image", "response_format", "when", "cooldown_s", "watch_id",
    "language",
    "vocabulary", "replace", "translate", "audio", "session", "event_id",
)  # fmt: skip
_AUDIO = {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "transcription": {"model": "x"}}}
_updates = st.sampled_from([
    {"type": "transcription", "audio": _AUDIO}, {"audio": {"input": {"turn_detection": None}}},
    {"audio": None},
])  # fmt: skip
_socket_fields = st.dictionaries(st.sampled_from(_FIELDS), _values | _updates, max_size=4)
_events = st.tuples(st.sampled_from(_KINDS), _socket_fields).map(
    lambda pair: json.dumps({"type": pair[0]} | pair[1])
)
_texts = st.one_of(_events, _events, _values.map(json.dumps), _wire_words, _deep.map(bytes.decode))
SOCKETS = (f"/v1/sessions/{SESSION}/events", f"/v1/sessions/{SESSION}/audio", "/v1/realtime", "/v1/listen")
_NAMES = (
    "types", "epoch", "after", "client", "encoding", "sample_rate", "channels", "model", "language", "intent",
    "endpointing", "interim_results", "keyterm", "utterance_end_ms",
)  # fmt: skip


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A conversation on some socket."""
    path = draw(st.sampled_from([*SOCKETS, *SOCKETS, SOCKETS[0], "/v1/sessions/none/events", "/v1/nowhere"]))
    query = "intent=transcription" if path == "/v1/realtime" and draw(st.booleans()) else draw(_query(_NAMES))
    protocols = draw(
        st.lists(st.sampled_from(["streamsvc.v1", "streamsvc.token.²", "token", "realtime", "é"]), max_size=2)
    )
    messages = draw(st.lists(st.one_of(_texts, _texts, st.binary(max_size=64)), max_size=6))
    return Conversation(path, query, draw(_headers), tuple(protocols), tuple(messages))
