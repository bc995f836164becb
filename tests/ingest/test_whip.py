from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import sys
import wave
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import av
import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI, Request

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.errors import (
    CapacityError,
    Conflict,
    Forbidden,
    InvalidRequest,
    RateLimited,
    StreamsvcError,
    Unauthorized,
    Unprocessable,
)
from streamsvc.core.types import EncodedFrame, Grants
from streamsvc.ingest.peer import FrameSink, Peer, answer
from streamsvc.ingest.whip import EVENTS_REL, FRAGMENT, Publication, router
from tests.builders.gstreamer import PROGRAM, SYSTEM_PYTHON

SDP = {"Content-Type": "application/sdp"}


class FakePeer:
    def __init__(self) -> None:
        self.sdp = "v=0 answer"
        self.etag = '"one"'
        self.fragments: list[str] = []
        self.fails: StreamsvcError | None = None

    async def add_candidates(self, fragment: str) -> None:
        if self.fails:
            raise self.fails
        self.fragments.append(fragment)

    async def close(self) -> None:
        pass


class FakeHost:
    limits = Limits()
    public_url = ""

    def __init__(self) -> None:
        self.peer = FakePeer()
        self.fails: StreamsvcError | None = None
        self.refuses: StreamsvcError | None = None
        self.live: dict[str, Publication] = {}
        self.offers: list[str] = []

    def authorise(self, request: Request) -> Grants:
        if self.refuses:
            raise self.refuses
        return Grants("t", "*", frozenset({"publish"}), None, "t")

    async def publish(self, session: str | None, offer: str, request: Request) -> Publication:
        if self.fails:
            raise self.fails
        self.offers.append(offer)
        self.live["secret"] = Publication(session or "0.new", "secret", self.peer)
        return self.live["secret"]

    def find(self, resource: str) -> Publication | None:
        return self.live.get(resource)

    async def end(self, resource: str) -> None:
        del self.live[resource]

    def ice_links(self, grants: Grants) -> Sequence[str]:
        return [
            '<stun:stun.example.org:3478>; rel="ice-server"',
            '<turn:turn.example.org>; rel="ice-server"; username="u"',
        ]


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
async def client(host: FakeHost) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(router(host))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(("path", "session"), [("/whip", "0.new"), ("/whip/0.abc", "0.abc")])
async def test_an_offer_is_answered_with_201_and_all_headers(
    client: httpx.AsyncClient, host: FakeHost, path: str, session: str
) -> None:
    response = await client.post(path, content="v=0 offer", headers=SDP)
    assert response.status_code == 201
    assert response.text == "v=0 answer"
    assert response.headers["content-type"].startswith("application/sdp")
    assert response.headers["etag"] == '"one"'
    assert response.headers["accept-patch"] == FRAGMENT
    assert str(response.url.join(response.headers["location"])) == f"http://localhost/whip/{session}/secret"
    links = response.headers.get_list("link")
    assert f'</v1/sessions/{session}/events>; rel="{EVENTS_REL}"' in links
    assert sum('rel="ice-server"' in link for link in links) == 2
    assert host.offers == ["v=0 offer"]


async def test_the_location_is_valid_behind_a_proxy_with_its_own_path(client: httpx.AsyncClient) -> None:
    location = (await client.post("/whip/0.abc", content="v=0", headers=SDP)).headers["location"]
    assert (
        str(httpx.URL("https://example.org/live/whip/0.abc").join(location))
        == "https://example.org/live/whip/0.abc/secret"
    )


@pytest.mark.parametrize("path", ["/whip", "/whip/0.abc"])
async def test_with_a_public_url_the_addresses_begin_with_it(
    client: httpx.AsyncClient, host: FakeHost, path: str
) -> None:
    host.public_url = "https://example.org/live"
    response = await client.post(path, content="v=0", headers=SDP)
    session = "0.new" if path == "/whip" else "0.abc"
    assert response.headers["location"] == f"https://example.org/live/whip/{session}/secret"
    assert f"<https://example.org/live/v1/sessions/{session}/events>" in response.headers["link"]


async def resource(client: httpx.AsyncClient) -> str:
    response = await client.post("/whip/0.abc", content="v=0", headers=SDP)
    return str(response.url.join(response.headers["location"]))


async def test_candidates_are_trickled_with_the_right_etag_only(
    client: httpx.AsyncClient, host: FakeHost
) -> None:
    url = await resource(client)
    kind = {"Content-Type": FRAGMENT}
    assert (await client.patch(url, content="a=x", headers=kind)).status_code == 428
    assert (await client.patch(url, content="a=x", headers=kind | {"If-Match": '"old"'})).status_code == 412
    assert (await client.patch(url, content="a=x", headers=SDP | {"If-Match": '"one"'})).status_code == 415
    assert host.peer.fragments == []
    assert (await client.patch(url, content="a=x", headers=kind | {"If-Match": '"one"'})).status_code == 204
    assert host.peer.fragments == ["a=x"]


async def test_an_ice_restart_is_422_and_the_session_continues(
    client: httpx.AsyncClient, host: FakeHost
) -> None:
    url = await resource(client)
    host.peer.fails = Unprocessable("no restart", code="ice_restart")
    response = await client.patch(url, content="a=x", headers={"Content-Type": FRAGMENT, "If-Match": "*"})
    assert (response.status_code, response.json()["error"]["code"]) == (422, "ice_restart")
    assert "secret" in host.live


async def test_delete_ends_a_publication_once(client: httpx.AsyncClient) -> None:
    url = await resource(client)
    assert (await client.delete(url)).status_code == 200
    assert (await client.delete(url)).status_code == 404


async def test_a_resource_of_another_session_is_not_found(client: httpx.AsyncClient) -> None:
    await resource(client)
    assert (await client.delete("/whip/0.other/secret")).status_code == 404


@pytest.mark.parametrize("path", ["/whip", "/whip/0.abc", "/whip/0.abc/secret"])
async def test_options_needs_no_token_and_names_the_content_types(
    client: httpx.AsyncClient, host: FakeHost, path: str
) -> None:
    host.refuses = Unauthorized("no token")
    response = await client.options(path)
    assert response.status_code in (200, 204)
    assert response.headers["accept-post"] == "application/sdp"
    assert "link" not in response.headers


@pytest.mark.parametrize("path", ["/whip", "/whip/0.abc"])
async def test_options_with_a_token_name_the_ice_servers(client: httpx.AsyncClient, path: str) -> None:
    links = (await client.options(path)).headers.get_list("link")
    assert links[1] == '<turn:turn.example.org>; rel="ice-server"; username="u"'


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/whip"), ("PUT", "/whip/0.abc"), ("GET", "/whip/0.abc/secret"), ("POST", "/whip/0.abc/secret")],
)
async def test_other_methods_are_405_with_the_allowed_ones(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == 405
    assert "OPTIONS" in response.headers["allow"]
    assert response.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("x", code="malformed_sdp"), 400),
        (Unprocessable("x", code="no_media"), 422),
        (Conflict("x", code="second_publisher"), 409),
        (RateLimited("x"), 429),
        (CapacityError("x", retry_after=7), 503),
    ],
)
async def test_errors_of_the_service_keep_their_status_and_body(
    client: httpx.AsyncClient, host: FakeHost, error: StreamsvcError, status: int
) -> None:
    host.fails = error
    response = await client.post("/whip", content="v=0", headers=SDP)
    assert response.status_code == status
    assert response.json() == error.body()
    if status == 503:
        assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize(("error", "status"), [(Unauthorized("x"), 401), (Forbidden("x"), 403)])
async def test_each_verb_needs_a_token(
    client: httpx.AsyncClient, host: FakeHost, error: StreamsvcError, status: int
) -> None:
    url = await resource(client)
    host.refuses = error
    for method in ("POST", "PATCH", "DELETE"):
        response = await client.request(
            method, "/whip" if method == "POST" else url, content="v=0", headers=SDP
        )
        assert response.status_code == status


async def test_another_content_type_is_415(client: httpx.AsyncClient) -> None:
    assert (
        await client.post("/whip", content="{}", headers={"Content-Type": "application/json"})
    ).status_code == 415
    assert (
        await client.post("/whip", content="v=0", headers={"Content-Type": "Application/SDP; charset=utf-8"})
    ).status_code == 201


async def test_a_large_body_is_413_and_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 16_384
            yield bytes(16_384)

    response = await client.post("/whip", content=endless(), headers=SDP)
    assert response.status_code == 413
    assert sent <= Limits().sdp_bytes + 2 * 16_384
    assert (await client.post("/whip", content=bytes(200_000), headers=SDP)).status_code == 413
    fragment = {"Content-Type": FRAGMENT, "If-Match": "*"}
    large = await client.patch(await resource(client), content=bytes(200_000), headers=fragment)
    assert large.status_code == 413


async def test_a_name_in_another_charset_is_no_reason_to_refuse(
    client: httpx.AsyncClient, host: FakeHost
) -> None:
    assert (await client.post("/whip", content=b"v=0\ns=caf\xe9\n", headers=SDP)).status_code == 201
    assert host.offers == ["v=0\ns=caf\ufffd\n"]


# --- a real client: FFmpeg's WHIP muxer, in its own process ---


class RealHost(FakeHost):
    """Answers with real peers."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[EncodedFrame] = []
        self.states: list[tuple[str, str]] = []
        self.numbers: dict[str, float] = {}
        self.ended = asyncio.Event()
        self.peers: list[Peer] = []

    async def publish(self, session: str | None, offer: str, request: Request) -> Publication:
        def note_state(state: str, reason: str) -> None:
            self.states.append((state, reason))

        sink = FrameSink(str(session), clock.now(), self.frames.append, note_state)
        peer = await answer(offer, Ingest(), self.limits, sink)
        self.peers.append(peer)
        self.live["secret"] = Publication(str(session), "secret", peer)
        return self.live["secret"]

    async def end(self, resource: str) -> None:
        await super().end(resource)
        self.numbers = self.peers[-1].stats()
        self.ended.set()


@contextlib.asynccontextmanager
async def publishing(*command: str) -> AsyncIterator[tuple[RealHost, asyncio.subprocess.Process]]:
    """WHIP on a loopback port, and a program publishing to it; ADDRESS in its command is the address."""
    host, app = RealHost(), FastAPI()
    app.include_router(router(host))
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.setblocking(False)
        server = uvicorn.Server(
            uvicorn.Config(app, ws="none", lifespan="off", log_config=None, loop="asyncio")
        )
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/whip/0.abc"
        program = await asyncio.create_subprocess_exec(
            *(word.replace("ADDRESS", address) for word in command),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield host, program
        finally:
            with contextlib.suppress(ProcessLookupError):
                program.kill()
            await program.communicate()
            for peer in host.peers:
                await peer.close()
            server.should_exit = True
            await serving


FFMPEG = (sys.executable, "-m", "tests.fakes.whip_publisher", "ADDRESS", "2")


def certificate(folder: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> tuple[str, str]:
    """Paths of a new certificate and its key."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - datetime.timedelta(1), now + datetime.timedelta(1)
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(paths[0]), str(paths[1])


needs_muxer = pytest.mark.skipif("whip" not in av.formats_available, reason="this PyAV has no WHIP muxer")


@needs_muxer
@pytest.mark.parametrize("kind", ["ECDSA", "RSA"])
async def test_ffmpeg_publishes_audio_and_video_without_loss_and_says_goodbye(
    tmp_path: Path, kind: str
) -> None:
    """Its muxer is the DTLS server, so our cipher suites must suit its certificate."""
    key = (
        ec.generate_private_key(ec.SECP256R1()) if kind == "ECDSA" else rsa.generate_private_key(65537, 2048)
    )
    async with publishing(*FFMPEG, *certificate(tmp_path, key)) as (host, program):
        async with asyncio.timeout(30):
            await host.ended.wait()
            assert await program.wait() == 0
        assert host.states[0] == ("connected", "")
        of = {kind: [frame for frame in host.frames if frame.kind == kind] for kind in ("audio", "video")}
        assert (len(of["audio"]), len(of["video"])) == (100, 50)
        assert {frame.codec for frame in host.frames} == {"opus", "h264"}
        assert host.numbers["audio_lost"] == host.numbers["video_holes"] == host.numbers["refused"] == 0
        assert sum(frame.keyframe for frame in of["video"]) == 2
        assert of["video"][0].keyframe
        assert abs(of["audio"][-1].at - of["video"][-1].at) < 0.2


@needs_muxer
async def test_a_certificate_with_an_unsupported_curve_fails_and_ends_the_peer(
    tmp_path: Path,
) -> None:
    """FFmpeg built with GnuTLS generates such certificates (deploy/decisions.md)."""
    key = ec.generate_private_key(ec.SECP224R1())
    async with publishing(*FFMPEG, *certificate(tmp_path, key)) as (host, program):
        async with asyncio.timeout(30):
            assert await program.wait() != 0
            while not host.states:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert host.states == [("closed", "failed")]
    assert host.frames == []


@pytest.mark.usefixtures("gstreamer")
async def test_gstreamer_publishes_vp8_and_opus(tmp_path: Path) -> None:
    """Its certificate is RSA, and it leaves the DTLS role to us."""
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setparams((1, 2, 48_000, 0, "NONE", ""))
        out.writeframes(bytes(2 * 96_000))
    program = (SYSTEM_PYTHON, str(PROGRAM), str(tmp_path / "a.wav"), "ADDRESS", "vp8")
    async with publishing(*program) as (host, process):
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        assert host.states == [("connected", "")]
        assert {frame.codec for frame in host.frames} == {"opus", "vp8"}
        assert len([frame for frame in host.frames if frame.kind == "audio"]) > 80
