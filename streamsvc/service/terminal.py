"""What the command line shows of a session, and the question that it asks of a running service."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from rich.console import Console

from streamsvc.core.config import Server
from streamsvc.core.errors import ConfigError, StreamsvcError

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 150.0  # more than the longest deadline of a question
DECLINED: Mapping[str, str] = {  # reason -> words
    "nothing_yet": "nothing has been said or shown yet",
    "cannot_tell": "not a thing that the models here can tell",
    "not_found": "neither said nor shown so far",
    "busy": "the service has too much to do now",
    "late": "the time was up before there was an answer",
    "cancelled": "cancelled",
}
_KINDS = {
    "speech": "heard",
    "screen": "read on screen",
    "sight": "seen",
    "timeline": "from the timeline",
    "image": "in your picture",
}


def ready_line(server: Server, host: str, port: int) -> str:
    """Where the service can be opened, by addresses that a browser can open.

    Args:
        server: the settings.
        host: that it listens on; of "0.0.0.0" and "::" localhost and the address in the local network are
            named.
        port: that it listens on.
    """
    scheme = "https" if server.tls_cert or server.tls_self_signed else "http"
    names = [host]
    if host in ("0.0.0.0", "::"):
        names = ["localhost", *([near] if (near := _lan_address()) else [])]
    own = [f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}" for name in names]
    return "ready, open " + " or ".join([server.public_url, *own] if server.public_url else own)


def _lan_address() -> str | None:
    """The machine's address in its network; None: it has none. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation (RFC 5737): it chooses the route
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if address.startswith("127.") else address


def clock_time(seconds: float) -> str:
    """Session seconds as m:ss, or h:mm:ss."""
    whole = max(0, int(seconds))
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def verdict(event: Mapping[str, Any]) -> tuple[str, str]:
    """An answer.done as its label and its text: answer, nearest, model's word or declined."""
    error = event.get("error", {}).get("message", "")
    match event["outcome"]:
        case "declined":
            return "declined", event["text"] or DECLINED.get(event.get("reason", ""), "") or error
        case "closest":
            return "nearest", event["text"]
        case _ if event["supported"]:
            return "answer", event["text"]
        case _:
            return "model's own word", event["text"]


def citations(event: Mapping[str, Any]) -> list[str]:
    """The evidence of an answer, a line each."""
    return [
        f"{clock_time(item['start'])} {_KINDS.get(item['kind'], item['kind'])}: {item['quote']}"
        for item in event["evidence"]
    ]


class EventPrinter:
    """Prints events as text, or as JSON lines. `failure`: why the session has failed; None: it has not."""

    def __init__(self, as_json: bool, console: Console | None = None) -> None:
        self.failure: str | None = None
        self._json = as_json
        self._console = console or Console(highlight=False)
        self._open = False  # the cursor is behind a partial caption

    def show(self, event: dict[str, Any]) -> None:
        """Print one event."""
        if event["type"] == "session.closed" and "error" in event:
            self.failure = event["error"]["message"]
        if self._json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
            return
        match event["type"]:
            case "caption.partial" if self._console.is_terminal:
                self._console.print(
                    "\r\x1b[K" + event["text"][-self._console.width + 12 :], end="", style="dim", markup=False
                )
                self._open = True
            case "caption.final":
                self._line(event["start"], "", event["text"])
            case "scene.caption":
                label = "[model] " if event["by"] == "model" else "[seen] "
                self._line(event["start"], label, event["text"], "cyan")
            case "screen.text" if event["lines"]:
                title = event["title"] or event["lines"][0]["text"]
                self._line(event["first_seen"], "[screen] ", title, "green")
            case "caption.gap":
                missing = f"{event['end'] - event['start']:.1f} s not captioned: {event['reason']}"
                self._line(event["start"], "[gap] ", missing, "yellow")
            case "session.degraded":
                self._line(event["at"], "[load] ", event.get("message") or event["reason"], "yellow")
            case "answer.done":
                label, text = verdict(event)
                self._line(event["at"], f"[{label}] ", text, "bold")
                self._cite(citations(event))

    def _line(self, at: float, label: str, text: str, style: str = "") -> None:
        if self._open:
            self._console.print("\r\x1b[K", end="")
            self._open = False
        self._console.print(
            f"{int(at // 60):3d}:{at % 60:04.1f} {label}{text}", style=style, markup=False, soft_wrap=True
        )

    def _cite(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(f"         - {line}", style="dim", markup=False, soft_wrap=True)


def questions_url(session: str, server: str) -> str:
    """Where questions about a session are posted.

    Args:
        session: its id, its address (".../v1/sessions/ID"), or the page's ("...#session=ID").
        server: "http://host:port", for an id.

    Raises:
        ConfigError: an address that names no session.
    """
    if "://" not in session:
        return f"{server.rstrip('/')}/v1/sessions/{quote(session, safe='')}/questions"
    place = urlsplit(session)
    name = parse_qs(place.fragment).get("session", [""])[0]
    base, found, rest = place.path.partition("/v1/sessions/")
    name = name or rest.split("/")[0]
    if not name or place.scheme not in ("http", "https"):
        raise ConfigError(f"{session}: not the address of a session, such as http://HOST/v1/sessions/ID")
    root = base.rstrip("/") if found else place.path.rstrip("/")
    return f"{place.scheme}://{place.netloc}{root}/v1/sessions/{quote(name, safe='')}/questions"


async def ask(url: str, question: str, token: str) -> AsyncIterator[dict[str, Any]]:
    """Ask a running service; yields the answer's events as they come, the last one is its answer.done.

    Args:
        url: as of `questions_url`.
        question: text.
        token: of the service; "": it needs none.

    Raises:
        StreamsvcError: it cannot be reached, or refuses.
    """
    headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {token}"} if token else {})
    timeout = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
    try:
        async with (
            httpx.AsyncClient(timeout=timeout) as client,
            client.stream("POST", url, json={"text": question}, headers=headers) as response,
        ):
            if response.status_code != 200:
                raise StreamsvcError(_problem(response.status_code, await response.aread()))
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if event["type"] == "error":
                        raise StreamsvcError(event["error"]["message"])
                    yield event
    except httpx.HTTPError:
        raise StreamsvcError(f"{urlsplit(url).netloc} cannot be reached, or broke off") from None


def _problem(status: int, body: bytes) -> str:
    """The message of a refusal."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"the server answered {status}"


async def show_answer(events: AsyncIterator[dict[str, Any]], *, as_json: bool) -> bool:
    """Print one answer as it comes, then what it rests on. Returns whether it is more than a refusal.

    Raises:
        StreamsvcError: it breaks off.
    """
    console = Console(highlight=False)
    begun = False
    async for event in events:
        if event["type"] == "answer.delta" and not as_json:
            console.print(event["text"], end="", markup=False, soft_wrap=True)
            begun = True
        if event["type"] != "answer.done":
            continue
        if as_json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
            return bool(event["outcome"] != "declined")
        label, text = verdict(event)
        console.print("" if begun else text, markup=False, soft_wrap=True)
        if label != "answer":
            reason = DECLINED.get(event.get("reason", ""), "")
            console.print(
                f"[{label}{': ' + reason if reason and reason != text else ''}]", style="yellow", markup=False
            )
        for line in citations(event):
            console.print(f"  - {line}", style="dim", markup=False, soft_wrap=True)
        return bool(event["outcome"] != "declined")
    raise StreamsvcError("no answer came in time")
