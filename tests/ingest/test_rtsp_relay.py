"""RTSP goes to the checked address alone: names, redirects and TLS. Whole streams: test_source_reader.py."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import pytest

from streamsvc.core.config import Ingest
from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest.rtsp_relay import BODY_BYTES, HEAD_BYTES, Messages, NotRtsp, RtspRelay
from streamsvc.ingest.source import open_source
from streamsvc.ingest.source_policy import locate
from tests.builders.certificate import certificate
from tests.builders.internet import INSIDE, PUBLIC, Internet, internet

OPTIONS = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nPublic: DESCRIBE, SETUP, PLAY\r\n\r\n"


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return internet(monkeypatch, camera_example=[PUBLIC], turning_example=[PUBLIC, INSIDE])


class Camera:
    """A scripted RTSP server: answers each request by the next of its answers. `asked`: the requests."""

    def __init__(
        self, address: str, *answers: bytes, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._socket = socket.create_server((address, port))
        self.port = self._socket.getsockname()[1]
        self.asked: list[bytes] = []
        self._answers, self._tls = answers, tls
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with contextlib.suppress(OSError):
                    if self._tls is not None:
                        connection = self._tls.wrap_socket(connection, server_side=True)
                    with connection:
                        connection.settimeout(10)
                        for answer in self._answers:
                            self.asked.append(connection.recv(4096))
                            connection.sendall(answer)
                        connection.recv(4096)
                connection.close()

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@contextlib.contextmanager
def relay(url: str, *, private_urls: bool = False, limit: float = 2.0) -> Iterator[RtspRelay]:
    made = RtspRelay(locate(url, ()), limit, private_urls)
    try:
        yield made
    finally:
        made.close()


async def refused(url: str, code: str, *, private_urls: bool = False) -> str:
    with pytest.raises((SourceError, Forbidden)) as caught:
        await open_source(url, Ingest(open_seconds=2.0, reconnects=0), session="s", private_urls=private_urls)
    assert caught.value.code == code
    assert not caught.value.retryable
    assert "secret" not in caught.value.message
    return caught.value.message


# --- to the checked address alone ---


@pytest.mark.parametrize(
    "target",
    [
        "rtsp://127.0.0.1:{port}/x",
        "rtsp://inside.example:{port}/x",
        "rtsp://turning.example:{port}/x",
        "http://[",
    ],
)
@pytest.mark.parametrize("status", ["301 Away", "305 Away", "0302 Away", "+302", "\r3\r02"])
async def test_a_redirect_is_not_followed_but_told(net: Internet, target: str, status: str) -> None:
    net.names["inside.example"] = [INSIDE]
    net.names["turning.example"] = [INSIDE]
    with Camera(INSIDE) as inside:
        location = target.format(port=inside.port).encode()
        away = b" R\rTSP/1.0 %b\r\nCSeq: 2\r\nLocation: %b\r\n\r\n" % (status.encode(), location)
        with Camera(PUBLIC, OPTIONS, away) as camera:
            url = f"rtsp://me:secret@camera.example:{camera.port}/live?key=secret"
            told = await refused(url, "refused")
    assert "redirects" in told
    assert target.startswith("http") or target.split("/")[2].split(":")[0] in told
    assert inside.asked == []
    assert {address for address in net.connected if address != INSIDE} == {PUBLIC}


async def test_an_answer_that_hides_a_redirect_ends_the_connection(net: Internet) -> None:
    """libav takes a line of a header that begins with $ for an interleaved packet."""
    with Camera(INSIDE) as inside:
        redirect = b"RTSP/1.0 302 Away\r\nLocation: rtsp://127.0.0.1:%d/x\r\n\r\n" % inside.port
        hidden = b"$\0" + len(redirect).to_bytes(2, "big") + redirect
        first = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n$\0\0\x08\r\n\r\n" + hidden
        with Camera(PUBLIC, first) as camera, pytest.raises(SourceError):
            await open_source(
                f"rtsp://camera.example:{camera.port}/live", Ingest(open_seconds=2.0), session="s"
            )
    assert inside.asked == []


def test_a_name_that_turns_inward_is_connected_by_the_address_that_was_checked(net: Internet) -> None:
    with Camera(PUBLIC) as camera, Camera(INSIDE, port=camera.port) as inside:
        url = f"rtsp://turning.example:{camera.port}/live"
        with relay(url):
            pass
        assert (net.resolved, net.connected) == (["turning.example"], [PUBLIC])
        with pytest.raises(Forbidden):
            RtspRelay(locate(url, ()), 1.0, False)
        assert net.connected == [PUBLIC] and inside.asked == []


def test_the_host_is_asked_by_its_name_and_the_credentials_stay_in_the_url_for_libav(net: Internet) -> None:
    with Camera(PUBLIC, OPTIONS, OPTIONS) as camera:
        with relay(f"rtsp://me:p%40ss@camera.example:{camera.port}/live?key=1") as made:
            assert made.url.startswith("rtsp://me:p%40ss@127.0.0.1:") and made.url.endswith("/live?key=1")
            with pytest.raises(av.error.FFmpegError):
                av.open(made.url, options={"protocol_whitelist": "tcp", "rtsp_transport": "tcp"}, timeout=1.0)
        lines = [request.partition(b"\r\n")[0] for request in camera.asked]
    theirs = b"rtsp://camera.example:%d/live?key=1" % camera.port
    assert lines[0] == b"OPTIONS %b RTSP/1.0" % theirs
    assert lines[1] == b"DESCRIBE %b RTSP/1.0" % theirs


async def test_a_server_of_udp_alone_is_told(net: Internet) -> None:
    description = b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=x\r\nm=audio 0 RTP/AVP 0\r\na=control:t\r\n"
    described = (
        b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: %d\r\n\r\n%b"
        % (len(description), description)
    )
    with Camera(PUBLIC, OPTIONS, described, b"RTSP/1.0 461 No\r\nCSeq: 3\r\n\r\n") as camera:
        told = await refused(f"rtsp://camera.example:{camera.port}/live", "refused")
        assert b"RTP/AVP/TCP" in camera.asked[2] and b"client_port" not in camera.asked[2]
    assert "UDP alone" in told


def test_an_unknown_host_and_a_closed_port_are_no_answer(net: Internet) -> None:
    with socket.create_server((PUBLIC, 0)) as closed:
        port = closed.getsockname()[1]
    for host in ("camera.example", "no.such.host.invalid"):
        with pytest.raises(SourceError) as caught:
            RtspRelay(locate(f"rtsp://me:secret@{host}:{port}/live", ()), 1.0, False)
        assert (caught.value.code, caught.value.retryable) == ("no_answer", True)
        assert "secret" not in caught.value.message


def test_one_client_is_served_and_close_ends_a_relay_that_waits(net: Internet) -> None:
    with Camera(PUBLIC, OPTIONS) as camera, relay(f"rtsp://camera.example:{camera.port}/live") as made:
        port = int(made.url.split(":")[2].split("/")[0])
        with socket.create_connection((INSIDE, port)) as first:
            first.sendall(b"OPTIONS rtsp://127.0.0.1:%d/live RTSP/1.0\r\nCSeq: 1\r\n\r\n" % port)
            assert first.recv(4096) == OPTIONS
            with pytest.raises(OSError):
                socket.create_connection((INSIDE, port), timeout=2.0)
    assert not made.is_alive()


# --- TLS ---


@pytest.mark.parametrize(
    ("name", "public", "trusted", "reached"),
    [
        ("camera.example", True, True, True),
        ("other.example", True, True, False),
        ("camera.example", True, False, False),
        ("other.example", False, False, True),  # a camera in the same network has a certificate of its own
    ],
)
def test_a_public_host_must_prove_its_name(
    net: Internet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    public: bool,
    trusted: bool,
    reached: bool,
) -> None:
    served, trusting = certificate(tmp_path, name)
    plain = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting if trusted else plain())
    address = PUBLIC if public else INSIDE
    net.names["camera.example"] = [address]
    with Camera(address, OPTIONS, tls=served) as camera:
        url = f"rtsps://camera.example:{camera.port}/live"
        if not reached:
            with pytest.raises(SourceError, match="TLS"):
                RtspRelay(locate(url, ()), 2.0, True)
            return
        with relay(url, private_urls=True, limit=1.0) as made:
            port = int(made.url.split(":")[2].split("/")[0])
            with socket.create_connection((INSIDE, port)) as client:
                time.sleep(1.2)  # over the limit: what TLS says of its own is no answer
                client.sendall(b"OPTIONS rtsp://127.0.0.1:%d/live RTSP/1.0\r\nCSeq: 1\r\n\r\n" % port)
                assert client.recv(4096) == OPTIONS
        assert camera.asked[0].startswith(b"OPTIONS rtsps://camera.example:%d/live " % camera.port)


# --- messages ---

PIECES = [
    b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n",
    b"$\0\0\x05\r\n\r\n$",
    b"RTSP/1.0 200 OK\nContent-Length: 6\n\n$\r\n\r\n.",
    b"$\1\0\0",
    b"\r\n",
    b"RTSP/1.0 200 OK\r\nContent-Length:\t2 \r\n\r\n\r\n",
    b"GET_PARAMETER * RTSP/1.0\r\n\r\n",
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_messages_and_packets_are_cut_wherever_they_are_split(size: int) -> None:
    messages, stream = Messages(), b"".join(PIECES)
    found = [one for at in range(0, len(stream), size) for one in messages.feed(stream[at : at + size])]
    assert found == PIECES


@pytest.mark.parametrize(
    "stream",
    [
        b"x" * (HEAD_BYTES + 1),
        b"RTSP/1.0 200 OK\r\n$\1\1\4abcd\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r$\1\1\4abcd\r\n\r\n",
        b"\r$\1\1\4abcd\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\0\r\nRTSP/1.0 302 x\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 0x9\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES + 1),
        b"RTSP/1.0 200 OK\r\nContent-Length: %b\r\n\r\n" % (b"9" * 5000),
    ],
    ids=[
        *("endless-header", "packet-in-a-header", "behind-a-cr", "at-the-start", "zero-ends-a-header"),
        *("odd-length", "two-lengths", "large-body", "endless-number"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(stream: bytes) -> None:
    with pytest.raises(NotRtsp):
        list(Messages().feed(stream))
