"""The RTMP door: nginx takes publishers (ingest/rtmp_nginx.py), asks here who may, and plays to our sources.

    publisher -- RTMP --> nginx -- on_publish --> here: grants, place, session
                          nginx <-- RTMP play --  a source's process (ingest/source.py)

An admitted stream is renamed to one that cannot be guessed, so nobody else can play it, and two publishers of
one name never meet in nginx. The answer waits until our player is there: nothing of the beginning is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from streamsvc.core.errors import InvalidRequest, NotFound, StreamsvcError
from streamsvc.ingest import rtmp_nginx
from streamsvc.ingest.door_process import DoorProcess
from streamsvc.ingest.rtmp_relay import rtmp_place
from streamsvc.ingest.source import Source, open_published
from streamsvc.service.broadcast_ids import check_name
from streamsvc.service.media_server_hooks import form_of
from streamsvc.service.service import Service
from streamsvc.service.stream_keys import StreamKey, StreamPublication

log = structlog.get_logger()
DOOR = "rtmp"
JOIN_SECONDS = 6.0  # that a publisher waits for our player; nginx itself waits 10 s for an answer
KEY_CHARACTERS = 255  # at which nginx cuts a stream key
BODY_BYTES = 16 << 10  # security limit: of a question of nginx


@dataclass(slots=True)
class _Expected:
    """A player of ours that nginx will ask about. `joined`: it has come."""

    joined: asyncio.Event = field(default_factory=asyncio.Event)
    publication: StreamPublication | None = None


class RtmpDoor:
    """Answers nginx's questions about publishers and players. `port`: where publishers come; see `opened`."""

    def __init__(self, service: Service, secret: str, port: int, play_port: int) -> None:
        self.port = port
        self._service = service
        self._secret = secret
        self._play_port = play_port
        self._expected: dict[str, _Expected] = {}  # by unguessable stream
        self._publications: dict[str, StreamPublication] = {}  # by nginx's number of the connection
        self.app = Starlette(routes=[Route("/{secret}", self._asked, methods=["POST"])])

    async def _asked(self, request: Request) -> Response:
        """Answer a question: 2xx is yes, 3xx is yes under another name, anything else is no."""
        if not hmac.compare_digest(request.path_params["secret"].encode(), self._secret.encode()):
            return Response(status_code=403)
        if int(request.headers.get("content-length", 0)) > BODY_BYTES:
            return Response(status_code=413)
        form: Mapping[str, str] = {}
        try:
            form = form_of(await request.body())
            match form.get("call", ""):
                case "publish":
                    stream = await self._publish(form)
                    return Response(status_code=302, headers={"Location": stream})
                case "play" | "update_play":
                    self._play(form)
                case "update_publish":
                    self._goes_on(form)
                case "publish_done":
                    self._left(form)
        except StreamsvcError as error:
            if form.get("call") == "publish":
                log.info("publisher refused", door=DOOR, code=error.code)
            return Response(status_code=error.status if error.status >= 400 else 403)
        return Response(status_code=204)

    async def _publish(self, form: Mapping[str, str]) -> str:
        """Admit a publisher; returns what its stream is called from here on. Raises StreamsvcError."""
        name, token, client = form.get("name", ""), form.get("token", ""), form.get("addr", "")
        if len(f"{name}?token={token}") >= KEY_CHARACTERS:
            raise InvalidRequest(
                "the stream key is longer than nginx-rtmp takes: use a short token", code="key_too_long"
            )
        check_name(name)
        publishers = self._service.stream_publishers
        grants = publishers.check(StreamKey(name, token), client)
        stream = secrets.token_urlsafe(24)
        expected = self._expected[stream] = _Expected()

        async def opened(session: str) -> Source:
            url = f"rtmp://127.0.0.1:{self._play_port}/{rtmp_nginx.APPLICATION}/{stream}"
            place = rtmp_place(url, f"the RTMP stream of {session}")
            try:
                return await open_published(place, self._service.settings.ingest, session=session)
            finally:
                expected.joined.set()  # also where it failed: nothing is to be waited for

        try:
            publication = await publishers.publish(DOOR, name, grants, client, opened)
        except BaseException:
            del self._expected[stream]
            raise
        expected.publication = publication
        self._publications[form.get("clientid", "")] = publication
        self._forget()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOIN_SECONDS):
                await expected.joined.wait()
        if publication.over.is_set():
            raise NotFound("the publication has ended", code="no_publication")
        return stream

    def _play(self, form: Mapping[str, str]) -> None:
        """Let our player in. Raises NotFound: it is not ours."""
        expected = self._expected.get(form.get("name", ""))
        if expected is None:
            raise NotFound("there is no such stream", code="no_publication")
        expected.joined.set()

    def _goes_on(self, form: Mapping[str, str]) -> None:
        """Let a publisher go on. Raises NotFound: its publication is over, or was cut."""
        publication = self._publications.get(form.get("clientid", ""))
        if publication is None or publication.over.is_set():
            raise NotFound("the publication has ended", code="no_publication")

    def _left(self, form: Mapping[str, str]) -> None:
        publication = self._publications.pop(form.get("clientid", ""), None)
        if publication is not None:
            publication.stop("publisher_left")

    def _forget(self) -> None:
        """Forget publications that are over."""
        going = {number: one for number, one in self._publications.items() if not one.over.is_set()}
        self._publications = going
        for stream, expected in list(self._expected.items()):
            if expected.publication is not None and expected.publication.over.is_set():
                del self._expected[stream]


@contextlib.asynccontextmanager
async def opened(service: Service) -> AsyncIterator[RtmpDoor]:
    """Keep the RTMP door of a service open within the block. Raises ConfigError: it cannot be opened."""
    settings = service.settings.ingest
    rtmp_nginx.installed()
    public = rtmp_nginx.free(settings.rtmp_listen)
    _, play_port = rtmp_nginx.free("127.0.0.1:0")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamsvc-rtmp-")))
        asked = stack.enter_context(socket.socket(socket.AF_UNIX))
        asked.bind(str(folder / "hooks"))
        secret = secrets.token_urlsafe(24)
        door = RtmpDoor(service, secret, public[1], play_port)
        program = rtmp_nginx.RtmpNginx(public, play_port, folder / "hooks", secret, settings.close_seconds)
        async with _answering(door.app, asked), DoorProcess(program):
            yield door


@contextlib.asynccontextmanager
async def _answering(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application on a bound socket within the block."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,  # the paths hold the secret
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving
