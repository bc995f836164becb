"""A server of chat completions on loopback, as strict as the protocol allows, that answers by script.

`tests/engines/test_remote_chat.py` lets the official client talk to it, which proves that it speaks the real
protocol.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import select
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from enum import Enum
from typing import Any

import jsonschema
from PIL import Image

MAX_PIXELS, MAX_BYTES = 786_432, 300_000  # of a picture
_TEXT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string", "minLength": 1}},
}
_IMAGE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["type", "image_url"],
    "properties": {
        "type": {"const": "image_url"},
        "image_url": {
            "type": "object",
            "additionalProperties": False,
            "required": ["url"],
            "properties": {
                "url": {"type": "string", "pattern": "^data:image/jpeg;base64,"},
                "detail": {"enum": ["auto", "low", "high"]},
            },
        },
    },
}


def _message(role: str, *parts: Any) -> dict[str, Any]:
    content = [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"oneOf": list(parts)}},
    ]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["role", "content"],
        "properties": {"role": {"const": role}, "content": {"oneOf": content}},
    }


_STOPS = {"type": "array", "minItems": 1, "maxItems": 4, "items": {"type": "string", "minLength": 1}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["model", "messages", "stream"],
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "oneOf": [
                    _message("system", _TEXT),
                    _message("user", _TEXT, _IMAGE),
                    _message("assistant", _TEXT),
                ]
            },
        },
        "stream": {"const": True},
        "response_format": {
            "type": "object",
            "required": ["type", "json_schema"],
            "properties": {
                "type": {"const": "json_schema"},
                "json_schema": {"type": "object", "required": ["name", "schema"]},
            },
        },
        "stream_options": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"include_usage": {"type": "boolean"}},
        },
        "max_tokens": {"type": "integer", "minimum": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "stop": {
            "oneOf": [
                {"type": "string"},
                {"type": "array", "minItems": 1, "maxItems": 4, "items": {"type": "string", "minLength": 1}},
            ]
        },
    },
}


class Mark(Enum):
    """Of a script."""

    HOLD = "wait until the test lets it go on, or the client has left"
    CUT = "close the connection in the middle"


@dataclass(frozen=True)
class Reply:
    """One answer: what is sent, part by part; each in a chunk of its own."""

    parts: Sequence[bytes | Mark]
    status: int = 200
    headers: Mapping[str, str] = field(
        default_factory=lambda: {"Content-Type": "text/event-stream; charset=utf-8"}
    )


def chunk(delta: Mapping[str, Any] | None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a stream; without a delta it has no choices."""
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    )
    whole = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "seer",
        "choices": choices,
        **more,
    }
    return b"data: " + json.dumps(whole, ensure_ascii=False).encode() + b"\n\n"


ROLE = chunk({"role": "assistant", "content": ""})
USAGE = chunk(None, usage={"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11})
DONE = b"data: [DONE]\n\n"


def stream(*texts: str | Mark, finish: str = "stop") -> Reply:
    """A stream as OpenAI's: the role, texts, the reason of the end, the end."""
    parts = [text if isinstance(text, Mark) else chunk({"content": text}) for text in texts]
    return Reply([ROLE, *parts, chunk({}, finish), DONE])


def refused(
    status: int,
    code: str | None = None,
    message: str = "no",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Reply:
    """An error as JSON."""
    body = {
        "error": {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}
    }
    return Reply([json.dumps(body).encode()], status, {"Content-Type": "application/json", **(headers or {})})


@dataclass
class Fake:
    """What the server does, and what it was asked.

    `script`: the replies in order; the last one answers all further requests. `complaints`: what was wrong
    with requests.
    """

    script: list[Reply]
    key: str = ""
    models: Sequence[str] = ("seer", "reader")
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)  # of the clients' ends, one a request
    complaints: list[str] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)  # a reply has come to HOLD
    left: threading.Event = field(default_factory=threading.Event)  # a client has gone during HOLD

    def pictures(self) -> list[Image.Image]:
        """Those of the last request."""
        content = self.asked[-1]["messages"][-1]["content"]
        return [
            _picture(part["image_url"]["url"])
            for part in content
            if isinstance(part, dict) and part["type"] == "image_url"
        ]


def _picture(url: str) -> Image.Image:
    data = base64.b64decode(url.removeprefix("data:image/jpeg;base64,"), validate=True)
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert picture.format == "JPEG"
    assert len(data) <= MAX_BYTES
    assert picture.width * picture.height <= MAX_PIXELS
    assert not picture.getexif()
    return picture


def _wrong(fake: Fake, path: str, headers: Message, body: bytes) -> Reply | None:
    """The error that a request deserves, if any."""
    if path != "/v1/chat/completions":
        return refused(404, "unknown_url")
    if headers.get("Authorization") != (f"Bearer {fake.key}" if fake.key else None):
        return refused(401, "invalid_api_key", f"Incorrect API key provided: {headers.get('Authorization')}")
    try:
        asked = json.loads(body)
        jsonschema.validate(asked, SCHEMA)
        assert headers["Content-Type"] == "application/json"
        for message in asked["messages"]:
            for part in message["content"]:
                if isinstance(part, dict) and part["type"] == "image_url":
                    _picture(part["image_url"]["url"])
    except (ValueError, OSError, AssertionError, jsonschema.ValidationError) as error:
        fake.complaints.append(f"{type(error).__name__}: {str(error)[:300]}")
        return refused(400, "invalid_request_error")
    fake.asked.append(asked)
    return None if asked["model"] in fake.models else refused(404, "model_not_found")


def _handler(fake: Fake) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fake.ports.append(self.client_address[1])
            reply = _wrong(fake, self.path, self.headers, body)
            if reply is None:
                reply = fake.script.pop(0) if len(fake.script) > 1 else fake.script[0]
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for part in reply.parts:
                    if part is Mark.CUT or (part is Mark.HOLD and not self._held()):
                        self.close_connection = True
                        return
                    if isinstance(part, bytes):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                self.wfile.write(b"0\r\n\r\n")

        def _held(self) -> bool:
            """Whether the client is still there when the test lets it go on."""
            fake.held.set()
            while not fake.go.wait(0.02):
                readable, _, _ = select.select([self.connection], [], [], 0)
                if readable and not self.connection.recv(1):
                    fake.left.set()
                    return False
            return True

        def log_message(self, *arguments: object) -> None:
            return

    return Handler


@contextlib.contextmanager
def serving(fake: Fake, tls: ssl.SSLContext | None = None) -> Iterator[Fake]:
    """The server, on a port of its own; at the end it has nothing to complain of."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    fake.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield fake
    finally:
        fake.go.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert not fake.complaints, fake.complaints
