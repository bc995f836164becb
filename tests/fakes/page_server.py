"""A small server of the page, the REST doors that it uses and the event protocol: no session behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

WEB = Path(__file__).resolve().parents[2] / "streamsvc" / "web"
CSP = (
    "default-src 'self'; connect-src 'self' ws: wss:; img-src 'self' blob: data:; media-src 'self' blob:; "
    "style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
SESSION = "0.abc"


class Fake:
    """One session without a session: durable events are logged and replayed, what is asked is noted."""

    def __init__(self) -> None:
        self.log: list[dict[str, Any]] = []
        self.sockets: dict[WebSocket, asyncio.Queue[dict[str, Any] | None]] = {}
        self.asked: list[dict[str, Any]] = []
        self.connections: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.token = ""
        self.epoch = "e1"
        self.loop: asyncio.AbstractEventLoop | None = None
        self.origin = ""
        self.state: str | None = "live"  # of the session, as GET tells it; None: there is no such session
        self.code = 1011  # with which a connection is closed
        self.pictures: dict[str, str] = {}  # of a keyframe's second: the second whose picture is the same
        self.watches: list[dict[str, Any]] = []
        self.sessions: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str, Any]] = []  # method, path with query, body of other requests

    # --- called from the test's thread ---

    def send(self, kind: str, *, durable: bool = True, **body: Any) -> str:
        """Publish an event; returns its id."""
        assert self.loop is not None
        done = asyncio.run_coroutine_threadsafe(self._send(kind, durable, body), self.loop)
        return done.result(5)

    def drop(self, code: int = 1011) -> None:
        """Break every connection; 1000: as at the end of a session."""
        assert self.loop is not None
        self.code = code
        for queue in list(self.sockets.values()):
            self.loop.call_soon_threadsafe(queue.put_nowait, None)

    # --- on the server's thread ---

    def picture(self, at: str) -> bytes:
        """A picture for each second of its own, unless `pictures` says that it is that of another."""
        bits = zlib.crc32(self.pictures.get(at, at).encode())
        blocks = "".join(
            f'<rect x="{160 * (n % 4)}" y="{90 * (n // 4)}" width="160" height="90" fill="#3a7"/>'
            for n in range(16)
            if bits >> n & 1
        )
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="360">{blocks}</svg>'.encode()

    async def _send(self, kind: str, durable: bool, body: dict[str, Any]) -> str:
        number = len(self.log) + 1
        event = {
            "v": 1,
            "type": kind,
            "session": SESSION,
            "track": "main",
            "epoch": self.epoch,
            "id": f"{self.epoch}.{number}",
        }
        event |= {"at": body.get("start", 0.0), "age_ms": 300.0, "stages": {}, **body}
        if durable:
            event |= {"seq": number, "prev": number - 1}
            self.log.append(event)
        else:
            event |= {"after": len(self.log)}
        for queue in self.sockets.values():
            queue.put_nowait(event)
        return str(event["id"])

    async def events(self, websocket: WebSocket) -> None:
        if self.state is None:
            await websocket.close(4404)
            return
        offered = websocket.scope["subprotocols"]
        self.connections.append({"query": dict(websocket.query_params), "offered": offered})
        await websocket.accept(offered[0] if offered else None)
        if self.token and f"streamsvc.token.{self.token}" not in offered:
            await websocket.send_json(
                {"v": 1, "type": "error", "error": {"code": "unauthorized", "message": "a token is needed"}}
            )
            await websocket.close(4401)
            return
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        after = websocket.query_params.get("after")
        if after is not None:
            for event in self.log[int(after) :]:
                queue.put_nowait(event)
        self.sockets[websocket] = queue
        reading = asyncio.create_task(self._read(websocket, queue))
        try:
            while (following := await queue.get()) is not None:
                await websocket.send_json(following)
            await websocket.close(self.code)
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            del self.sockets[websocket]
            reading.cancel()

    async def _read(self, websocket: WebSocket, queue: asyncio.Queue[dict[str, Any] | None]) -> None:
        try:
            while True:
                message = json.loads(await websocket.receive_text())
                if message["type"] == "question.ask":
                    self.asked.append(message)
        except WebSocketDisconnect:
            queue.put_nowait(None)

    async def many(self, request: Request) -> Response:
        """GET and POST /v1/sessions."""
        if request.method == "GET":
            return self._page_of_sessions(request)
        body = await request.json()
        self.created.append(body)
        if body.get("source") == "file:/outside.mp4":
            error = {"type": "permission_error", "code": "forbidden", "message": "that file may not be read"}
            return JSONResponse({"error": error}, 403)
        return JSONResponse({"id": SESSION}, 201)

    def _page_of_sessions(self, request: Request) -> Response:
        query = request.query_params
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"error": {"message": "a token is needed"}}, 401)
        states = query.getlist("state")
        wanted = [each for each in self.sessions if not states or each["state"] in states]
        begin = next((n for n, each in enumerate(wanted, 1) if each["id"] == query.get("after")), 0)
        end = begin + int(query["limit"])
        following = wanted[end - 1]["id"] if end < len(wanted) else None
        return JSONResponse({"sessions": wanted[begin:end], "next": following})

    async def one(self, request: Request) -> Response:
        """GET, PATCH and DELETE of a session."""
        if request.method == "GET":
            found = self.state is not None
            body = {"id": SESSION, "state": self.state} if found else {"error": {"message": "no session"}}
            return JSONResponse(body, 200 if found else 404)
        await self._note(request)
        gone = request.path_params["session"]
        if request.method == "DELETE":
            self.sessions = [each for each in self.sessions if each["id"] != gone]
        return JSONResponse({"id": gone})

    async def _note(self, request: Request) -> Any:
        body = await request.body()
        read = json.loads(body) if body else None
        query = f"?{request.url.query}" if request.url.query else ""
        self.calls.append((request.method, request.url.path + query, read))
        return read

    async def watch(self, request: Request) -> Response:
        """The watches of the session; colours cannot be watched for."""
        if request.method == "GET":
            return JSONResponse(self.watches)
        body = await self._note(request)
        if request.method == "DELETE":
            return JSONResponse({})
        if "red" in body["when"]:
            return JSONResponse({"error": {"message": "no model here can tell colours"}}, 400)
        return JSONResponse({"id": f"w_{len(self.calls)}", "when": body["when"], "fired": 0}, 201)

    async def search(self, request: Request) -> Response:
        """One thing said and one thing seen, whatever is looked for; nothing for "nothing"."""
        if request.query_params["q"] == "nothing":
            return JSONResponse([])
        seen = {"start": 40.0, "end": 40.0, "kind": "sight", "text": "cup 0.93, couch 0.31", "score": 0.4}
        return JSONResponse([CITED | {"text": CITED["quote"], "score": 0.8}, seen])

    async def tokens(self, request: Request) -> Response:
        """A token that says what it is for."""
        body = await self._note(request)
        return JSONResponse({"token": "for." + ".".join(body["may"]), "expires_in": body["expires_in"]}, 201)

    async def whip(self, request: Request) -> Response:
        """No room."""
        self.requests.append((request.method, request.url.path, (await request.body()).decode()))
        error = {"type": "overloaded_error", "code": "capacity", "message": "4 of 4 sessions are live"}
        return JSONResponse({"error": error}, 503, {"Retry-After": "7"})

    async def answer(self, request: Request) -> Response:
        """The answer of a session that has ended, in two pieces that are cut anywhere."""
        self.asked.append(await request.json())
        if self.asked[-1]["text"] == "Too much?":
            return JSONResponse({"error": {"message": "no questions are taken now"}}, 503)
        body = {"question_id": "q_server", "text": "After the end."}
        done = body | {"outcome": "answer", "supported": True, "by": "reader", "evidence": [CITED]}
        text = "".join(
            f"event: {kind}\ndata: {json.dumps({'type': kind, **event})}\n\n"
            for kind, event in (("answer.delta", body), ("answer.done", done))
        ).encode()

        async def pieces() -> AsyncIterator[bytes]:
            for piece in (text[:40], text[40:]):
                yield piece

        return StreamingResponse(pieces(), media_type="text/event-stream")

    def app(self) -> Starlette:
        async def page(request: Request) -> Response:
            return FileResponse(
                WEB / ("overlay.html" if "overlay" in request.url.path else "index.html"),
                headers={"Content-Security-Policy": CSP},
            )

        async def picture(request: Request) -> Response:
            return Response(self.picture(request.path_params["at"]), media_type="image/svg+xml")

        async def file(request: Request) -> Response:
            return PlainTextResponse(f"the file {request.url.path.rpartition('/')[2]}")

        inside = "/v1/sessions/{session}"
        routes = [
            Route("/", page),
            Route("/overlay/{session}", page),
            Mount("/web", StaticFiles(directory=WEB)),
            Route("/v1/sessions", self.many, methods=["GET", "POST"]),
            Route("/v1/tokens", self.tokens, methods=["POST"]),
            Route(inside, self.one, methods=["GET", "PATCH", "DELETE"]),
            Route(f"{inside}/questions", self.answer, methods=["POST"]),
            Route(f"{inside}/watches", self.watch, methods=["GET", "POST"]),
            Route(f"{inside}/watches/{{watch}}", self.watch, methods=["DELETE"]),
            Route(f"{inside}/search", self.search),
            Route(f"{inside}/frames/{{at}}.jpg", picture),
            *(Route(f"{inside}/{name}", file) for name in ("captions.vtt", "captions.srt", "export.md")),
            WebSocketRoute(f"{inside}/events", self.events),
            Route("/whip", self.whip, methods=["POST"]),
            Route("/whip/{session}", self.whip, methods=["POST"]),
        ]
        return Starlette(routes=[Mount("/below/here", routes=routes), *routes])


@contextlib.contextmanager
def serving() -> Iterator[Fake]:
    """The server on a free port of loopback, in a thread of its own; once more below /below/here."""
    fake = Fake()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fake.origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            fake.app(), ws="websockets-sansio", lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]

        async def serve() -> None:
            fake.loop = asyncio.get_running_loop()
            await server.serve(sockets=[listener])

        thread = threading.Thread(target=asyncio.run, args=(serve(),), name="fake server")
        thread.start()
        yield fake
        fake.drop()
        server.should_exit = True
        thread.join(10)


def partial(fake: Fake, text: str, stable: int, start: float = 0.0) -> None:
    words = [{"text": word, "start": start, "end": start + 1, "probability": 0.9} for word in text.split()]
    fake.send(
        "caption.partial",
        durable=False,
        text=text,
        words=words,
        stable=stable,
        start=start,
        end=start + 1,
        language="en",
    )


def final(fake: Fake, text: str, start: float = 0.0) -> None:
    fake.send("caption.final", text=text, words=[], start=start, end=start + 2, language="en")


def furnish(fake: Fake) -> None:
    """A session with some of everything."""
    fake.send("session.created", started_utc="2026-01-01T00:00:00Z", tracks=["main"])
    stories = [
        "A man plays a guitar in front of a wall.",
        "A slide: Quarterly results.",
        "Two people at a table.",
    ]
    for number, story in enumerate(stories):
        at = 20.0 * number
        of = fake.send(
            "keyframe.sampled",
            start=at,
            reason="scene" if number else "first",
            url=f"/v1/sessions/{SESSION}/frames/{at}.jpg",
        )
        boxes = [{"label": "person", "score": 0.9, "x": 0, "y": 0, "w": 1, "h": 1}] * (number + 1)
        fake.send(
            "sight.ready", start=at, of=of, tags=[{"label": "acoustic guitar", "score": 0.8}], boxes=boxes
        )
        fake.send("scene.caption", text=story, start=at, end=at + 5, evidence=[])
        if number == 1:
            lines = [{"text": "Quarterly results", "x": 0, "y": 0, "w": 1, "h": 1}]
            fake.send("screen.text", start=at, of=of, title="Quarterly results", lines=lines, first_seen=at)
        final(fake, f"This is sentence number {number},\nand it takes two lines on a screen.", at)
    fake.send("caption.gap", start=46.0, end=48.0, reason="packet_loss")
    ages = {"partial": {"p50": 350, "p95": 710, "count": 9}, "final": {"p50": 900, "p95": 1900, "count": 3}}
    fake.send("latency.report", durable=False, ages=ages, coverage=0.97, backlog=0.0, level=0)
    partial(fake, "settled words and then tentative ones", 4, 50.0)


CITED: dict[str, Any] = {"start": 20.0, "end": 22.0, "kind": "speech", "quote": "sentence number 1"}


def answer(fake: Fake, question: str, text: str, outcome: str = "answer", **more: Any) -> None:
    body: dict[str, Any] = {
        "outcome": outcome,
        "supported": outcome == "answer",
        "by": "reader",
        "evidence": [CITED],
    }
    if outcome == "declined":
        body |= {"reason": "cannot_tell", "evidence": []}
    fake.send("answer.done", question_id=question, text=text, **body | more)
