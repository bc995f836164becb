"""A medium by HTTP is a file: ranges, seeks, breaks, endless streams; errors are kept and told."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamsvc.core.config import Ingest
from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest import source_fetch
from streamsvc.ingest.source_fetch import WebFile, open_input
from streamsvc.ingest.source_policy import locate
from tests.builders.clips import clip
from tests.builders.internet import INSIDE, PUBLIC, Answer, Site, internet, site, two_sites
from tests.builders.stamped import Part, hear

DATA = bytes(number * 7 % 251 for number in range(600_000))
SETTINGS = Ingest(open_seconds=2.0, reconnects=0)


@pytest.fixture
def web() -> Iterator[Site]:
    with site("127.0.0.1") as made:
        yield made


@contextlib.contextmanager
def opened(web: Site, limit: float = 2.0) -> Iterator[tuple[WebFile, list[int]]]:
    """/a of the site, and an entry for each time that it broke off."""
    damaged: list[int] = []
    place = locate(f"http://me:secret@127.0.0.1:{web.port}/folder/../a?key=secret", ())
    file = open_input(place, limit, True, lambda: damaged.append(1))
    try:
        yield file, damaged
    finally:
        file.close()


def rest(file: WebFile) -> bytes:
    return b"".join(iter(lambda: file.read(32768), b""))


def serve(web: Site, *answers: Answer) -> None:
    web.pages = {"/folder/../a": list(answers), "/a": list(answers)}


def spans(web: Site) -> list[str]:
    return [headers.get("Range", "") for _, headers in web.asked]


def test_bytes_are_fetched_where_libav_seeks_and_only_when_it_reads(web: Site) -> None:
    serve(web, Answer(DATA))
    with opened(web) as (file, damaged):
        assert (file.name, file.length, file.seekable()) == ("a", len(DATA), True)
        assert file.peek(16) == DATA[:16]
        assert file.read(10) == DATA[:10]
        assert file.seek(0, 2) == len(DATA) == file.tell()
        assert file.seek(500_000) == 500_000
        assert file.seek(-2, 1) == 499_998
        assert len(web.asked) == 1, "a seek asks for nothing"
        assert file.read(5) == DATA[499_998:500_003]
        assert spans(web) == ["bytes=0-", "bytes=499998-"]
        file.seek(500_100)
        assert file.read(5) == DATA[500_100:500_105]
        assert len(web.asked) == 2, "what lies a little ahead is read through"
        file.seek(-5, 2)
        assert rest(file) == DATA[-5:]
        file.seek(len(DATA) + 9)
        assert file.read(9) == b""
        file.seek(0)
        assert rest(file) == DATA
        assert (file.error, damaged) == (None, [])


def test_without_ranges_there_is_no_seek_but_an_end(web: Site) -> None:
    serve(web, Answer(DATA, ranges=False))
    with opened(web) as (file, _):
        assert (file.length, file.seekable()) == (len(DATA), False)
        assert rest(file) == DATA


def test_a_server_that_takes_exception_to_ranges_is_asked_without(web: Site) -> None:
    serve(web, Answer(status=416), Answer(b"all", ranges=False))
    with opened(web) as (file, _):
        assert rest(file) == b"all"
    assert spans(web) == ["bytes=0-", ""]


def test_a_compressed_medium_is_unpacked_and_has_no_length(web: Site) -> None:
    serve(web, Answer(gzip.compress(DATA), headers={"Content-Encoding": "gzip"}, ranges=False))
    with opened(web) as (file, _):
        assert (file.length, file.seekable()) == (None, False)
        assert rest(file) == DATA


def test_a_body_that_breaks_off_goes_on_where_it_broke_and_is_counted(web: Site) -> None:
    serve(web, Answer(DATA, cut=200_000), Answer(DATA, cut=1000), Answer(DATA))
    with opened(web) as (file, damaged):
        assert rest(file) == DATA
        assert (file.error, len(damaged)) == (None, 2)
    assert spans(web) == ["bytes=0-", "bytes=400000-", "bytes=599000-"]


def test_a_body_that_breaks_off_again_and_again_is_told(web: Site) -> None:
    serve(web, Answer(DATA, cut=200_000), Answer(DATA, cut=200_000))
    with opened(web) as (file, damaged):
        assert rest(file) == DATA[:400_000]
        assert isinstance(file.error, SourceError)
        assert (file.error.code, file.error.retryable) == ("no_answer", True)
        assert "secret" not in str(file.error)
        assert len(damaged) == source_fetch.TRIES
        assert file.read(10) == b"", "an error stays"


def test_without_ranges_a_body_that_breaks_off_is_told(web: Site) -> None:
    serve(web, Answer(DATA, cut=200_000, ranges=False))
    with opened(web) as (file, damaged):
        assert rest(file) == DATA[:400_000]
        assert file.error is not None and len(damaged) == 1


def test_a_server_that_forgets_ranges_later_is_read_from_the_start(web: Site) -> None:
    serve(web, Answer(DATA), Answer(DATA, ranges=False))
    with opened(web) as (file, _):
        file.seek(590_000)
        assert rest(file) == DATA[590_000:]


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "not_found"), (410, "not_found"), (401, "refused"), (403, "refused"), (500, "refused")],
)
def test_each_status_has_its_error(web: Site, status: int, code: str) -> None:
    serve(web, Answer(status=status))
    with pytest.raises(SourceError, match=str(status)) as caught, opened(web):
        pass
    assert (caught.value.code, caught.value.retryable) == (code, False)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_gone_when_it_goes_on_is_told(web: Site) -> None:
    serve(web, Answer(DATA), Answer(b"<p>There is no such page.</p>" * 30_000, status=404))
    with opened(web) as (file, _):
        file.seek(590_000)
        assert file.read(10) == b""
        assert file.error is not None


def test_a_range_that_is_redirected_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = internet(monkeypatch, open_example=[PUBLIC], inside_example=[INSIDE])
    with two_sites() as (public, inside):
        public.pages = {"/a": [Answer(DATA), Answer(location=f"http://inside.example:{public.port}/a")]}
        file = open_input(locate(f"http://open.example:{public.port}/a", ()), 2.0, False, lambda: None)
        file.seek(590_000)
        assert file.read(10) == b""
        assert isinstance(file.error, Forbidden) and "inside.example" in file.error.message
        file.close()
        assert (inside.asked, set(net.connected)) == ([], {PUBLIC})


@pytest.mark.parametrize("length", ["", "Content-Length: 999999\r\n"])
def test_in_opening_a_body_that_stands_still_is_no_answer_not_an_end(length: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = locate(f"http://127.0.0.1:{server.getsockname()[1]}/a", ())

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(f"HTTP/1.1 200 OK\r\n{length}\r\nstart".encode())
                connection.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        file = open_input(place, 0.5, True, lambda: None)
        assert rest(file) == b"start"
        assert isinstance(file.error, SourceError)
        assert (file.error.code, file.error.retryable) == ("no_answer", True)
        file.close()
        thread.join()


# --- read as a source ---


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.wav", "a.ogg"])
@pytest.mark.parametrize("ranges", [True, False])
async def test_a_recording_is_the_same_by_http_as_on_disk(
    tmp_path: Path, web: Site, name: str, ranges: bool
) -> None:
    if name == "a.mp4" and not ranges:
        pytest.skip("its index lies at its end")
    audio = {"a.wav": "pcm_s16le", "a.ogg": "libopus"}.get(name, "aac")
    path = clip(tmp_path / name, video=None if name in ("a.wav", "a.ogg") else "libx264", audio=audio)
    web.pages = {f"/{name}": Answer(path.read_bytes(), ranges=ranges)}
    local, remote = await hear(path), await hear(f"http://127.0.0.1:{web.port}/{name}", SETTINGS)
    assert [frame.payload for frame in remote.frames] == [frame.payload for frame in local.frames]
    assert remote.stats["reconnects"] == 0, "it has an end, and is no live stream"


async def test_a_redirect_to_the_medium_is_followed(tmp_path: Path, web: Site) -> None:
    """Field kind K."""
    data = clip(tmp_path / "a.mp4", video="libx264").read_bytes()
    web.pages = {"/live": Answer(location="/b"), "/b": Answer(location="/a.mp4"), "/a.mp4": Answer(data)}
    heard = await hear(f"http://127.0.0.1:{web.port}/live", SETTINGS)
    assert len(heard.frames) > 50
    web.pages["/live"] = Answer(location="/live")
    with pytest.raises(SourceError, match="redirects in a circle") as caught:
        await hear(f"http://127.0.0.1:{web.port}/live", SETTINGS)
    assert (caught.value.code, caught.value.status, caught.value.retryable) == ("refused", 422, False)


async def test_a_recording_that_breaks_off_is_counted_and_goes_on(tmp_path: Path, web: Site) -> None:
    path = Part(seconds=6.0, video="mpeg4").write(tmp_path / "a.mkv")
    data = path.read_bytes()
    web.pages = {"/a.mkv": [Answer(data, cut=len(data) // 2), Answer(data)]}
    heard = await hear(f"http://127.0.0.1:{web.port}/a.mkv", SETTINGS)
    assert heard.sound == (await hear(path)).sound
    assert heard.stats["damaged"] == 1


async def test_a_recording_that_breaks_off_for_good_is_an_error(tmp_path: Path, web: Site) -> None:
    data = Part(seconds=6.0, video="mpeg4").write(tmp_path / "a.ts").read_bytes()
    web.pages = {"/a.ts": Answer(data, cut=len(data) // 2, ranges=False)}
    with pytest.raises(SourceError, match="stopped answering") as caught:
        await hear(f"http://127.0.0.1:{web.port}/a.ts", SETTINGS)
    assert (caught.value.code, caught.value.retryable) == ("no_answer", True)


async def test_a_playlist_without_its_name_is_read_as_one(tmp_path: Path, web: Site) -> None:
    data = Part(first=10.0).write(tmp_path / "s.ts").read_bytes()
    text = "\ufeff#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\ns.ts\n#EXT-X-ENDLIST\n"
    web.pages = {"/live": Answer(text.encode()), "/s.ts": Answer(data)}
    heard = await hear(f"http://127.0.0.1:{web.port}/live", SETTINGS)
    assert len(heard.sound) == 1


async def test_a_medium_by_http_cannot_name_a_file(
    tmp_path: Path, web: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip(tmp_path / "b.mkv")
    monkeypatch.chdir(tmp_path)
    web.pages = {"/a.ffconcat": Answer(b"ffconcat version 1.0\nfile b.mkv\n")}
    with pytest.raises(SourceError):
        await hear(f"http://127.0.0.1:{web.port}/a.ffconcat", SETTINGS)


class Endless:
    """A server of an endless stream that hangs up after a file, and is gone (404) after the second time."""

    def __init__(self, data: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/live"
        self.connections = 0
        self._data = data
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    connection.recv(4096)
                    if self.connections > 2:
                        connection.sendall(b"HTTP/1.0 404 Gone\r\n\r\n")
                        continue
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n" + self._data)

    def __enter__(self) -> Endless:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


async def test_an_endless_stream_is_live_and_is_opened_again(tmp_path: Path) -> None:
    with Endless(Part(seconds=3.0).write(tmp_path / "a.ts").read_bytes()) as server:
        heard = await hear(server.url, Ingest(open_seconds=2.0, reconnects=1))
    assert (heard.stats["reconnects"], server.connections) == (1, 3)
    assert len(heard.sound) == 2, "what comes after it broke off is heard too"
