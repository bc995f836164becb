"""What the command line shows of a session, and the question that it asks of a running service."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TextIO, cast
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from rich.cells import cell_len
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from streamsvc.core import clock
from streamsvc.core.config import Server
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.core.logs import configure_logs

_CONNECT_SECONDS = 10.0
_PROGRESS_SECONDS = 0.25  # between two drawings of the bar
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
    """Prints events as text, or as JSON lines: `with EventPrinter(False) as printer`.

    On a terminal the open caption is a line that redraws itself; elsewhere only closed captions are printed.

    Args:
        as_json: one event a line.
        console: where text goes; None: standard output.

    `failure`: why the session has failed; None: it has not.
    """

    def __init__(self, as_json: bool, console: Console | None = None) -> None:
        self.failure: str | None = None
        self._json = as_json
        self._console = console or Console(highlight=False)
        self._live: Live | None = None  # draws the open caption
        self._questions: dict[str, str] = {}  # id -> text, of those whose answers are not printed
        self._answers: dict[str, Mapping[str, Any]] = {}  # that wait for the answer of an earlier question
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if not self._json:
            self._stack.enter_context(_logs_above(self._console))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close_line()
        if kind is None and not self._json:
            self._print_answers(all_of_them=True)
        self._stack.close()

    def expect(self, questions: Mapping[str, str]) -> None:
        """Print the answers to these questions (id -> text) in this order."""
        self._questions |= questions

    def show(self, event: dict[str, Any]) -> None:
        """Print one event."""
        if event["type"] == "session.closed" and "error" in event:
            self.failure = event["error"]["message"]
        if self._json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
            return
        match event["type"]:
            case "caption.partial" if self._console.is_terminal and not self._console.is_dumb_terminal:
                self._redraw(event["text"])
            case "caption.final":
                self._close_line()
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
                self._answers[event["question_id"]] = event
                self._print_answers()

    def _redraw(self, text: str) -> None:
        """Draw the open caption in place: the end of it that fits on one line."""
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        shown = _ending(_printable(text), self._console.width - 1)
        self._live.update(Text(shown, style="dim", no_wrap=True, overflow="crop"), refresh=True)

    def _close_line(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_answers(self, *, all_of_them: bool = False) -> None:
        """Print the answers whose turn it is; `all_of_them`: no more will come."""
        for name in [name for name in self._answers if name not in self._questions]:
            self._print_answer(self._answers.pop(name))
        for name, question in list(self._questions.items()):
            answer = self._answers.pop(name, None)
            if answer is None and not all_of_them:
                return
            del self._questions[name]
            if answer is None:
                self._print(f"         [question] {question}", "bold")
                self._print("         [declined] no answer came")
                continue
            self._line(answer["at"], "[question] ", question, "bold")
            self._print_answer(answer)

    def _print_answer(self, event: Mapping[str, Any]) -> None:
        label, text = verdict(event)
        self._line(event["at"], f"[{label}] ", text, "bold")
        for line in citations(event):
            self._print(f"         - {line}", "dim")

    def _line(self, at: float, label: str, text: str, style: str = "") -> None:
        self._print(f"{int(at // 60):3d}:{at % 60:04.1f} {label}{text}", style)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(_printable(text), style=style, markup=False, soft_wrap=True)


def _printable(text: str) -> str:
    """A text without control characters, which a terminal would obey; line breaks stay."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


def _ending(text: str, cells: int) -> str:
    """The end of a text that fits into so many cells of a terminal."""
    start = len(text)
    while start and (cells := cells - cell_len(text[start - 1])) >= 0:
        start -= 1
    return text[start:]


@contextlib.contextmanager
def _logs_above(console: Console) -> Iterator[None]:
    """Print log lines above what is redrawn in place, where both go to a terminal."""
    if not (console.is_terminal and sys.stderr.isatty()):
        yield
        return
    configure_logs(as_json=False, file=cast(TextIO, FileProxy(console, sys.stderr)), level=logging.WARNING)
    try:
        yield
    finally:
        configure_logs(as_json=False, level=logging.WARNING)


async def show_progress(
    name: str, duration: float | None, position: Callable[[], float], console: Console | None = None
) -> None:
    """Draw how far a source is captioned, and the time left, until cancelled.

    Args:
        name: of the source.
        duration: seconds of it; None or 0: not known.
        position: returns the seconds that are done.
        console: None: standard error. Where it is no terminal, nothing is drawn.
    """
    console = console or Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        return
    columns: list[ProgressColumn] = [TextColumn("{task.description}", markup=False), BarColumn(20)]
    columns += [TextColumn("{task.fields[done]}", markup=False)]
    columns += [TimeRemainingColumn()] if duration else []
    bar = Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        get_time=clock.now,
    )
    with _logs_above(console), bar:
        task = bar.add_task(_printable(name), total=duration or None, done="")
        whole = f" of {clock_time(duration)}" if duration else ""
        while True:
            done = max(0.0, position())
            bar.update(task, completed=done, done=f"{clock_time(done)}{whole}", refresh=True)
            await clock.sleep(_PROGRESS_SECONDS)


def json_hint(arguments: Sequence[str]) -> str:
    """What to say where a file name follows --json, which takes none; "": nothing.

    Args:
        arguments: of the command line, the command first.
    """
    for index, (flag, name) in enumerate(pairwise(arguments)):
        given = [argument for argument in arguments[1:index] if not argument.startswith("-")]
        if flag == "--json" and given and not name.startswith("-") and not Path(name).exists():
            return (
                f"--json takes no file name, so {name} was taken for one more argument; "
                f"JSON goes to standard output: --json > {name}"
            )
    return ""


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
            console.print(_printable(event["text"]), end="", markup=False, soft_wrap=True)
            begun = True
        if event["type"] != "answer.done":
            continue
        if as_json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
            return bool(event["outcome"] != "declined")
        label, text = verdict(event)
        console.print("" if begun else _printable(text), markup=False, soft_wrap=True)
        if label != "answer":
            reason = DECLINED.get(event.get("reason", ""), "")
            console.print(
                f"[{label}{': ' + reason if reason and reason != text else ''}]", style="yellow", markup=False
            )
        for line in citations(event):
            console.print(_printable(f"  - {line}"), style="dim", markup=False, soft_wrap=True)
        return bool(event["outcome"] != "declined")
    raise StreamsvcError("no answer came in time")
