"""A relay ends where it is closed, where libav does not come, and where the server is not there."""

from __future__ import annotations

import contextlib
import socket

import pytest

from streamsvc.ingest.relay import Relay


class Waiting(Relay):
    """Waits for libav, then for the end of its connection."""

    def run(self) -> None:
        """See threading.Thread."""
        with contextlib.suppress(OSError), self._server, self._listener:
            self._client = self._accepted()
            with self._client:
                self._client.recv(1)


def test_it_ends_where_libav_does_not_come_and_where_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        for limit in (0.2, 60.0):
            relay = Waiting("test", limit, None, lambda: socket.create_connection(server.getsockname()))
            relay.start()
            if limit > 1:
                relay.close()
            relay.join(10)
            assert not relay.is_alive()


def test_closing_it_wakes_libav() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        relay = Waiting("test", 60.0, None, lambda: socket.create_connection(server.getsockname()))
        relay.start()
        host, port = relay.local.split(":")
        with socket.create_connection((host, int(port)), timeout=10) as client, server.accept()[0] as theirs:
            while relay._client is None:
                relay.join(0.01)
            relay.close()
            assert client.recv(1) == theirs.recv(1) == b""


def test_a_server_that_is_not_there_leaves_no_listener_behind() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def refused() -> socket.socket:
        raise ConnectionRefusedError

    with pytest.raises(ConnectionRefusedError):
        Waiting("test", 1.0, listener, refused)
    assert listener.fileno() == -1
