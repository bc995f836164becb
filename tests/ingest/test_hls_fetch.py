"""HTTP of playlists and segments: credentials, redirects, byte ranges, and servers that break off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from streamsvc.core.errors import SourceError
from streamsvc.ingest import hls_fetch
from streamsvc.ingest.hls_fetch import Decrypted, Fetcher, embedded
from streamsvc.ingest.source_policy import locate

DATA = bytes(range(256)) * 300


class Server:
    """`url`, and the requests: path and headers."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[tuple[str, dict[str, str]]] = []


@pytest.fixture
def server() -> Iterator[Server]:
    """/data: bytes without ranges. /part: with. /short breaks off. /STATUS. /to/PATH redirects."""
    made = Server()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").partition("?")[0]
            made.asked.append((name, dict(self.headers)))
            status, body, more = 200, DATA, {}
            if name.isdecimal():
                status, body = int(name), b""
            elif name.startswith("to/"):
                status, body, more = 302, b"", {"Location": f"/{name[3:]}"}
            elif name == "list.m3u8":
                body, more = b"#EXTM3U\n#EXTINF:3,\ns.ts\n", {"Set-Cookie": "id=7"}
            elif name == "long.m3u8":
                body = b"#EXTM3U\n" + b"#\n" * 100_000
            elif name == "part":
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                status, body = 206, DATA[int(first) : int(last) + 1 if last else None]
            self.send_response(status)
            for key, value in more.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body) + (10 if name == "short" else 0)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        made.url = f"http://127.0.0.1:{running.server_port}"
        yield made
        running.shutdown()
        thread.join()


class Fetching:
    """A fetcher of the server. `damaged`: bodies that broke off."""

    def __init__(self, server: Server) -> None:
        self.damaged = 0
        place = locate(f"{server.url}/list.m3u8?key=secret", ())
        self.fetcher = Fetcher(place, 2.0, True, self._count)

    def _count(self) -> None:
        self.damaged += 1

    def __enter__(self) -> Fetching:
        return self

    def __exit__(self, *arguments: object) -> None:
        self.fetcher.close()


def everything(body: Any, size: int = 999) -> bytes:
    pieces = list(iter(lambda: body.read(size), b""))
    body.close()
    assert all(len(piece) <= size for piece in pieces)
    return b"".join(pieces)


def test_a_playlist_has_absolute_urls_of_where_it_came_from(server: Server) -> None:
    with Fetching(server) as fetching:
        text = fetching.fetcher.playlist(f"{server.url}/to/list.m3u8")
        assert text.splitlines()[-1] == f"{server.url}/s.ts"
        fetching.fetcher.body(f"{server.url}/data", 0, 0)
    assert server.asked[-1][1]["Cookie"] == "id=7", "a cookie of the playlist goes with its segments"


@pytest.mark.parametrize(
    ("path", "code"), [("404", "not_found"), ("403", "refused"), ("500", "refused"), ("data", "corrupt")]
)
def test_each_failure_of_a_playlist_has_its_own_code(server: Server, path: str, code: str) -> None:
    with Fetching(server) as fetching, pytest.raises(SourceError) as caught:
        fetching.fetcher.playlist(f"{server.url}/{path}?key=secret")
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_a_server_that_is_gone_is_no_answer_and_its_segments_are_missing(server: Server) -> None:
    with Fetching(server) as fetching:
        gone = "http://127.0.0.1:1/a.ts"
        with pytest.raises(SourceError) as caught:
            fetching.fetcher.playlist(gone)
        assert (caught.value.code, caught.value.retryable) == ("no_answer", True)
        assert fetching.fetcher.body(gone, 0, 0) is None


def test_a_segment_that_does_not_exist_is_asked_for_once_and_a_failing_server_twice(server: Server) -> None:
    with Fetching(server) as fetching:
        assert fetching.fetcher.body(f"{server.url}/404", 0, 0) is None
        assert [name for name, _ in server.asked] == ["404"]
        assert fetching.fetcher.body(f"{server.url}/503", 0, 0) is None
        assert [name for name, _ in server.asked] == ["404", "503", "503"]


@pytest.mark.parametrize("name", ["data", "part"])
@pytest.mark.parametrize(("first", "end"), [(300, 5300), (300, 0)])
def test_a_byte_range_is_read_whether_the_server_knows_ranges_or_not(
    server: Server, name: str, first: int, end: int
) -> None:
    with Fetching(server) as fetching:
        body = fetching.fetcher.body(f"{server.url}/{name}", first, end)
        assert body is not None
        assert everything(body) == DATA[first : end or None]


def test_a_body_that_breaks_off_ends_and_is_counted(server: Server) -> None:
    with Fetching(server) as fetching:
        body = fetching.fetcher.body(f"{server.url}/short", 0, 0)
        assert body is not None
        assert everything(body) == DATA
        assert fetching.damaged == 1


class Pieces:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, size: int) -> bytes:
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def close(self) -> None:
        return


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 5000])
@pytest.mark.parametrize("size", [1, 16, 999])
def test_an_encrypted_body_loses_its_padding(length: int, size: int) -> None:
    key, vector = bytes(range(16)), bytes(16)
    cipher = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    pad = 16 - length % 16
    data = cipher.update(DATA[:length] + bytes([pad]) * pad) + cipher.finalize()
    assert everything(Decrypted(Pieces(data), key.hex(), vector.hex()), size) == DATA[:length]


def test_data_urls_are_decoded() -> None:
    assert embedded("data:application/octet-stream;base64,AAEC") == b"\0\1\2"
    assert embedded("data:text/plain,a%20b") == b"a b"
    assert embedded("data:;base64,A") == b""


def test_a_playlist_is_read_up_to_a_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hls_fetch, "PLAYLIST_BYTES", 20)
    with Fetching(server) as fetching:
        assert len(fetching.fetcher.playlist(f"{server.url}/long.m3u8")) <= 60
