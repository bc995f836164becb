"""An Internet on loopback: names resolve as a test says, and each connection that is tried is recorded.

PUBLIC passes as a public address, INSIDE is what must not be reached; both have real servers.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from streamsvc.core import host_policy

PUBLIC = "127.0.0.5"
INSIDE = "127.0.0.1"


@dataclass
class Internet:
    """`names`: what each name resolves to, at the first, the second, ... time; the last answer stays.

    `connected`: addresses of all connections that were tried. `resolved`: names, in order.
    """

    names: dict[str, list[str]]
    connected: list[str] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)


def internet(monkeypatch: pytest.MonkeyPatch, **names: list[str]) -> Internet:
    """Pretend one. `names`: an underscore stands for a dot."""
    net = Internet({name.replace("_", "."): answers for name, answers in names.items()})
    resolve, is_public, connect = socket.getaddrinfo, host_policy.is_public, socket.socket.connect

    def getaddrinfo(host: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in net.names:
            net.resolved.append(name)
            answers = net.names[name]
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        return resolve(host, *arguments, **more)

    def recorded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            net.connected.append(address[0])
        connect(self, address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(host_policy, "is_public", lambda address: address == PUBLIC or is_public(address))
    monkeypatch.setattr(socket.socket, "connect", recorded)
    return net


@dataclass
class Answer:
    """An answer to a GET. `location`: it redirects there. `cut`: bytes of the body that are not sent."""

    body: bytes = b""
    status: int = 200
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    cut: int = 0


@dataclass
class Site:
    """A web server. `pages`: by path; of a list one by one. `asked`: path and headers of each request."""

    port: int
    pages: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answer(self, path: str) -> Answer:
        """The next answer of a path."""
        found = self.pages.get(path, Answer(status=404))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found


@contextlib.contextmanager
def site(address: str, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Run one at an address of loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, dict(self.headers)))
            answer = made.answer(self.path.partition("?")[0])
            body, status, headers = answer.body, answer.status, dict(answer.headers)
            if answer.location:
                status, headers["Location"] = 302, answer.location
            span = self.headers.get("Range", "").removeprefix("bytes=")
            if span and answer.ranges and status == 200:
                first, _, last = span.partition("-")
                headers["Content-Range"] = f"bytes {first}-{last or len(body) - 1}/{len(body)}"
                body, status = body[int(first) : int(last) + 1 if last else None], 206
            self.send_response(status)
            headers.setdefault("Content-Length", str(len(body)))
            for name, value in headers.items():
                if value:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            with contextlib.suppress(OSError):  # the reader has gone
                self.wfile.write(body[: len(body) - answer.cut])

        def log_message(self, *arguments: object) -> None:
            return

    with ThreadingHTTPServer((address, port), Handler) as running:
        made = Site(running.server_port)
        if tls is not None:
            running.socket = tls.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield made
        finally:
            running.shutdown()
            thread.join()


@contextlib.contextmanager
def two_sites() -> Iterator[tuple[Site, Site]]:
    """One at PUBLIC, one at INSIDE, at the same port."""
    with contextlib.ExitStack() as stack:
        for last in (False,) * 9 + (True,):
            public = stack.enter_context(site(PUBLIC))
            try:
                inside = stack.enter_context(site(INSIDE, public.port))
                break
            except OSError:  # taken there: another one
                if last:
                    raise
        yield public, inside
