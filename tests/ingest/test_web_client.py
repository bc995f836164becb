"""Each host of each hop is checked and connected by the address that was checked; credentials stay at home.

The doors of a source, each tried with each address that must not be reached: real servers say what came.
"""

from __future__ import annotations

import base64
import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest

from streamsvc.core import host_policy
from streamsvc.core.config import Ingest
from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest.source import SourceSink, open_source
from streamsvc.ingest.source_policy import locate
from streamsvc.ingest.web_client import COOKIES, Body, CheckedNetwork, WebClient
from tests.builders.certificate import certificate
from tests.builders.internet import INSIDE, PUBLIC, Answer, Internet, Site, internet, site, two_sites
from tests.builders.stamped import Part, playlist

SETTINGS = Ingest(open_seconds=4.0, reconnects=0)


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Internet:
    """open.example is public, inside.example is not, turning.example is public when it is asked first."""
    return internet(
        monkeypatch,
        open_example=[PUBLIC],
        inside_example=[INSIDE],
        turning_example=[PUBLIC, INSIDE],
        other_example=[PUBLIC],
    )


@pytest.fixture
def sites(net: Internet) -> Iterator[tuple[Site, Site]]:
    with two_sites() as (public, inside):
        yield public, inside


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return Part(first=10.0).write(tmp_path_factory.mktemp("web") / "s.ts").read_bytes()


def media(*entries: str) -> Answer:
    return Answer(playlist(*entries).encode())


def master(variant: str, sound: str = "") -> Answer:
    head = f'#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="n",DEFAULT=YES,URI="{sound}"\n' if sound else ""
    group = ',AUDIO="a"' if sound else ""
    return Answer(f"#EXTM3U\n{head}#EXT-X-STREAM-INF:BANDWIDTH=1{group}\n{variant}\n".encode())


def key(url: str) -> str:
    return f'#EXT-X-KEY:METHOD=AES-128,URI="{url}"'


# Each door: what the public site serves, whose /start is opened, and which names TARGET.
DOORS: dict[str, Any] = {
    "file-redirect": lambda target: {"/start": Answer(location=target)},
    "second-redirect": lambda target: {"/start": Answer(location="/b"), "/b": Answer(location=target)},
    "playlist-redirect": lambda target: {"/start.m3u8": Answer(location=target)},
    "variant": lambda target: {"/start.m3u8": master(target)},
    "rendition": lambda target: {"/start.m3u8": master("v.m3u8", target), "/v.m3u8": media("s.ts")},
    "segment": lambda target: {"/start.m3u8": media(target)},
    "later-segment": lambda target: {"/start.m3u8": media("s.ts", target)},
    "segment-redirect": lambda target: {"/start.m3u8": media("t.ts"), "/t.ts": Answer(location=target)},
    "key": lambda target: {"/start.m3u8": media(key(target), "s.ts")},
    "map": lambda target: {"/start.m3u8": media(f'#EXT-X-MAP:URI="{target}"', "s.ts")},
}
NO_SEGMENT = ("playlist-redirect", "variant", "rendition", "key", "map")  # what is read from there is none
TARGETS = [
    "http://127.0.0.1:{port}/x.ts",
    "http://169.254.169.254/latest/x.ts",
    "http://[::ffff:127.0.0.1]:{port}/x.ts",
    "http://[64:ff9b::7f00:1]:{port}/x.ts",
    "http://0.0.0.0:{port}/x.ts",
    "http://2130706433:{port}/x.ts",
    "http://inside.example:{port}/x.ts",
    "//inside.example:{port}/x.ts",
]


async def read(url: str, *, private_urls: bool = False) -> int:
    """Read a source to its end; the number of its packets."""
    source = await open_source(url, SETTINGS, session="s", speed=None, private_urls=private_urls)
    frames: list[Any] = []

    async def no_wait() -> None:
        return

    try:
        await source.run(SourceSink(frames.append, no_wait, lambda: 0.0))
    finally:
        await source.close()
    return len(frames)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("door", DOORS)
async def test_no_door_leads_inside(
    net: Internet, sites: tuple[Site, Site], segment: bytes, door: str, target: str
) -> None:
    public, inside = sites
    address = target.format(port=public.port)
    public.pages = DOORS[door](address) | {"/s.ts": Answer(segment)}
    start = next(iter(public.pages))
    url = f"http://open.example:{public.port}{start}?key=secret"
    with pytest.raises(Forbidden) as caught:
        if door == "later-segment":
            await read(url)
        else:
            await open_source(url, SETTINGS, session="s")  # told to who asks for the source
    assert caught.value.code == "private_url"
    host = address.partition("//")[2].partition("/")[0].removesuffix(f":{public.port}").strip("[]")
    assert host in caught.value.message, "the host that is meant"
    assert "secret" not in caught.value.message
    assert inside.asked == []
    assert set(net.connected) == {PUBLIC}


@pytest.mark.parametrize("door", DOORS)
async def test_each_door_leads_inside_where_that_is_allowed(
    net: Internet, sites: tuple[Site, Site], segment: bytes, door: str
) -> None:
    """The twin of the test above: it would see a request."""
    public, inside = sites
    public.pages = DOORS[door](f"http://inside.example:{public.port}/x.ts") | {"/s.ts": Answer(segment)}
    inside.pages = {"/x.ts": Answer(segment)}
    try:
        await read(f"http://open.example:{public.port}{next(iter(public.pages))}", private_urls=True)
    except SourceError:
        assert door in NO_SEGMENT
    assert [path for path, _ in inside.asked][:1] == ["/x.ts"]


@pytest.mark.parametrize("door", ["source", *DOORS])
async def test_a_name_that_turns_inward_is_connected_by_the_address_that_was_checked(
    net: Internet, sites: tuple[Site, Site], segment: bytes, door: str
) -> None:
    """DNS rebinding: the first answer is public, each later one is not."""
    public, inside = sites
    turning = f"http://turning.example:{public.port}/x.ts"
    if door == "source":
        public.pages, start = {"/x.ts": Answer(segment)}, turning
    else:
        public.pages = DOORS[door](turning) | {"/s.ts": Answer(segment), "/x.ts": Answer(segment)}
        start = f"http://open.example:{public.port}{next(iter(public.pages))}"
    try:
        await read(start)
    except SourceError:
        assert door in NO_SEGMENT
    except Forbidden:
        assert net.resolved.count("turning.example") > 1, "only a new connection asks again, and is refused"
    assert "/x.ts" in [path for path, _ in public.asked]
    assert inside.asked == []
    assert set(net.connected) == {PUBLIC}


async def test_the_host_itself_is_refused_before_it_is_connected(
    net: Internet, sites: tuple[Site, Site]
) -> None:
    for host in ("inside.example", "127.0.0.1", "[::ffff:7f00:1]", "localhost"):
        for scheme in ("http", "https", "rtsp", "rtsps"):
            with pytest.raises(Forbidden) as caught:
                await read(f"{scheme}://{host}:{sites[1].port}/a.m3u8")
            assert caught.value.code == "private_url"
    assert net.connected == []


def client(url: str, *, private_urls: bool = False, limit: float = 2.0) -> WebClient:
    return WebClient(locate(url, ()), limit, private_urls)


def get(made: WebClient, url: str) -> tuple[int, str, bytes]:
    """Status, final URL and body."""
    response, final = made.get(url, {})
    with_body = b"".join(response.pieces())
    response.close()
    return response.status, final, with_body


def test_the_server_is_told_its_name_and_redirects_are_followed(sites: tuple[Site, Site]) -> None:
    public, _ = sites
    home = f"http://open.example:{public.port}"
    public.pages.update({f"/{hop}": Answer(location=f"/{hop + 1}") for hop in range(5)})
    public.pages["/5"] = Answer(b"here")
    made = client(f"{home}/0")
    assert get(made, f"{home}/0") == (200, f"{home}/5", b"here")
    assert {headers["Host"] for _, headers in public.asked} == {f"open.example:{public.port}"}
    public.pages["/5"] = Answer(location="/6")
    with pytest.raises(SourceError, match="circle") as caught:
        get(made, f"{home}/0")
    assert (caught.value.code, caught.value.retryable) == ("refused", False)
    made.close()


@pytest.mark.parametrize("target", ["ftp://open.example/x", "file:///etc/passwd", "http://[", "data:,x"])
def test_a_redirect_to_what_is_not_http_is_refused_and_told(sites: tuple[Site, Site], target: str) -> None:
    public, _ = sites
    public.pages = {"/a": Answer(location=target)}
    made = client(f"http://open.example:{public.port}/a")
    with pytest.raises(SourceError, match="refused") as caught:
        get(made, made.place.url)
    assert (caught.value.code, caught.value.retryable) == ("refused", False)
    made.close()


def test_credentials_and_cookies_stay_with_their_origin(sites: tuple[Site, Site]) -> None:
    public, _ = sites
    home = f"http://me:p%40ss@open.example:{public.port}"
    away = f"http://other.example:{public.port}"
    public.pages = {
        "/start": Answer(b"x", headers={"Set-Cookie": "id=7"}),
        "/same": Answer(location="/end"),
        "/away": Answer(location=f"{away}/end"),
        "/end": Answer(b"y"),
    }
    made = client(f"{home}/start")
    for path in ("/start", "/same", "/away"):
        get(made, f"http://open.example:{public.port}{path}")
    seen = [(path, headers.get("Authorization"), headers.get("Cookie")) for path, headers in public.asked]
    basic = f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert seen == [
        ("/start", basic, None),
        ("/same", basic, "id=7"),
        ("/end", basic, "id=7"),
        ("/away", basic, "id=7"),
        ("/end", None, None),
    ]
    other = made.request(f"https://open.example:{public.port}/a", {})
    assert "Authorization" not in other.headers, "another scheme is another origin"
    named = made.request("http://you:two@cdn.example/a.ts#x", {})
    assert base64.b64decode(named.headers["Authorization"].split()[1]) == b"you:two"
    assert str(named.url) == "http://cdn.example/a.ts"
    made.close()


@pytest.mark.parametrize("name", ["open.example", "other.example"])
def test_a_server_must_prove_the_name_that_was_asked_for(
    net: Internet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    served, trusting = certificate(tmp_path, name)
    monkeypatch.setattr(ssl, "create_default_context", lambda: trusting)
    with site(PUBLIC, tls=served) as public:
        public.pages = {"/a": Answer(b"here")}
        made = client(f"https://open.example:{public.port}/a")
        if name == "open.example":
            assert get(made, made.place.url)[2] == b"here"
        else:
            with pytest.raises(SourceError) as caught:
                get(made, made.place.url)
            assert (caught.value.code, public.asked) == ("no_answer", [])
        made.close()


def test_addresses_are_tried_in_turn_and_an_unknown_host_is_no_answer(
    net: Internet, sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    public, _ = sites
    public.pages = {"/a": Answer(b"here")}
    with socket.create_server((PUBLIC, 0)) as closed:
        gone = closed.getsockname()[1]
    made = client(f"http://open.example:{gone}/a", private_urls=True)
    with pytest.raises(SourceError) as caught:
        get(made, made.place.url)
    assert (caught.value.code, caught.value.retryable) == ("no_answer", True)
    with pytest.raises(SourceError, match="not known") as caught:
        get(made, "http://no.such.host.invalid/a")
    assert (caught.value.code, caught.value.retryable) == ("no_answer", True)
    monkeypatch.setattr(host_policy, "addresses", lambda *_: ("127.0.0.9", PUBLIC))
    assert get(made, f"http://open.example:{public.port}/a")[2] == b"here"
    assert net.connected[-2:] == ["127.0.0.9", PUBLIC]
    made.close()


def test_a_name_is_resolved_once_for_a_connection(net: Internet, sites: tuple[Site, Site]) -> None:
    public, _ = sites
    network = CheckedNetwork(private_urls=False)
    network.connect_tcp("turning.example", public.port, 1.0).close()
    assert (net.resolved, net.connected) == (["turning.example"], [PUBLIC])
    with pytest.raises(Forbidden):
        network.connect_tcp("turning.example", public.port, 1.0)
    with pytest.raises(httpcore.ConnectError, match="not known"):
        network.connect_tcp("x" * 64 + ".example", 80, 1.0)
    assert net.connected == [PUBLIC]


def test_compressed_bodies_are_unpacked_in_pieces(sites: tuple[Site, Site]) -> None:
    public, _ = sites
    body = bytes(1 << 22)
    public.pages = {
        "/a": Answer(gzip.compress(body), headers={"Content-Encoding": "gzip"}, ranges=False),
        "/b": Answer(b"no gzip", headers={"Content-Encoding": "br"}, ranges=False),
    }
    made = client(f"http://open.example:{public.port}/a")
    response, _ = made.get(made.place.url, {})
    assert response.length is None
    pieces = list(response.pieces(1 << 16))
    assert b"".join(pieces) == body
    assert max(map(len, pieces)) <= 1 << 16
    response.close()
    damaged: list[int] = []
    response, _ = made.get(f"http://open.example:{public.port}/b", {})
    strange = Body(made, response, 0, None, lambda: damaged.append(1))
    assert (strange.read(10), damaged) == (b"", [1])
    strange.close()
    made.close()


class Dripping:
    """A server that answers one byte each `pause`, without end."""

    def __init__(self, start: bytes, pause: float = 0.02) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._start, self._ended, self._pause = start, threading.Event(), pause
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(self._start)
            while not self._ended.wait(self._pause):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    def __enter__(self) -> Dripping:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()


def test_a_header_that_drips_is_no_answer_in_time() -> None:
    with Dripping(b"HTTP/1.1 200 OK\r\nX-Long: ") as server:
        made = client(f"http://127.0.0.1:{server.port}/a", private_urls=True, limit=0.3)
        with pytest.raises(SourceError, match="in time") as caught:
            made.get(made.place.url, {})
        assert (caught.value.code, caught.value.retryable) == ("no_answer", True)
        made.close()


def test_in_a_hurry_a_body_that_drips_ends() -> None:
    damaged: list[int] = []
    with Dripping(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        made = client(f"http://127.0.0.1:{server.port}/a", private_urls=True, limit=5.0)
        made.hurry(0.3)
        body = Body(made, made.get(made.place.url, {})[0], 0, None, lambda: damaged.append(1))
        pieces = list(iter(lambda: body.read(1000), b""))
        assert damaged == [1] and pieces
        body.close()
        made.close()


def test_a_shoutcast_server_speaks_http() -> None:
    with Dripping(b"ICY 200 OK\r\nicy-name: x\r\n\r\n") as server:
        made = client(f"http://127.0.0.1:{server.port}/", private_urls=True)
        response, _ = made.get(made.place.url, {})
        assert response.status == 200
        assert next(response.pieces()).startswith(b"x")
        response.close()
        made.close()


def test_cookies_are_taken_until_there_are_enough(sites: tuple[Site, Site]) -> None:
    public, _ = sites
    place = f"http://open.example:{public.port}/a"
    for value, kept in (("1", COOKIES), ("x" * 4000, 5)):
        made = client(place)
        for number in range(COOKIES + 5):
            public.pages["/a"] = Answer(b"", headers={"Set-Cookie": f"c{number}={value}"})
            get(made, place)
        assert len(made._cookies.jar) == kept
        made.close()
