"""Bytes pass between libav and a media server both ways, until one ends or the relay is closed."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest

from streamsvc.core.errors import SourceError
from streamsvc.ingest.rtmp_relay import RtmpRelay, rtmp_place


def connected(server: socket.socket) -> tuple[RtmpRelay, socket.socket, socket.socket]:
    port = server.getsockname()[1]
    relay = RtmpRelay(rtmp_place(f"rtmp://127.0.0.1:{port}/live/secret", "the stream"), 5.0)
    client = socket.create_connection(("127.0.0.1", urlsplit(relay.url).port or 0), timeout=10)
    theirs, _ = server.accept()
    theirs.settimeout(10)
    return relay, client, theirs


def test_both_directions_pass_and_the_end_of_one_ends_the_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay, client, theirs = connected(server)
        with client, theirs:
            assert relay.url.startswith("rtmp://127.0.0.1:")
            assert relay.url.endswith("/live/secret")
            client.sendall(b"asked")
            assert theirs.recv(100) == b"asked"
            theirs.sendall(b"x" * 300_000)
            got = 0
            while got < 300_000:
                got += len(client.recv(1 << 16))
            theirs.close()
            assert client.recv(100) == b""
        relay.close()
        assert not relay.is_alive()


def test_closing_it_wakes_libav() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay, client, theirs = connected(server)
        with client, theirs:
            theirs.sendall(b"a")
            assert client.recv(1) == b"a"
            relay.close()
            assert client.recv(100) == b""
            assert theirs.recv(100) == b""


def test_one_that_libav_never_comes_to_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = rtmp_place(f"rtmp://127.0.0.1:{server.getsockname()[1]}/live/a", "the stream")
        relay = RtmpRelay(place, 0.2)
        relay.join(10)
        assert not relay.is_alive()


def test_a_server_that_is_not_there_is_told_without_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceError, match="the stream does not answer") as caught:
        RtmpRelay(rtmp_place(f"rtmp://127.0.0.1:{port}/live/secret", "the stream"), 1.0)
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert rtmp_place("rtmp://a.example/live/b", "").port == 1935
