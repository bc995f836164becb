"""Stand-ins for a language model behind an OpenAI-compatible endpoint, on loopback.

Each is handed the questions of a recording with their true answers (streamsvc/evaluation/scenario.py, "qa")
and answers those that it is asked, in whole sentences that cite numbered lines of the prompt: `It was.
[12][13]`. `truthful` tells the true answer and cites the lines of its evidence, and says NONE of what nobody
can know; `inventing_names`, `off_the_cited_lines` and `of_another_question` do not; `late` never ends an
answer and `garbage` sends none. A dead one is an address where nobody listens (`dead`).
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import select
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.json_instance import instance

Question = Mapping[str, Any]  # an entry of "qa"

NONE = "NONE"  # it does not know
MOST_CITED = 4  # lines a sentence
_TIME = r"(?:\d+:)?\d+:\d\d"
_LINE = re.compile(rf"^\[(\d+)\] ({_TIME})(?:-({_TIME}))? (\w+)[^:]*: (.*)$")  # timeline/lines.py renders it
_TEXT = ("said", "screen")  # kinds of lines of which another answer can be made
_NAMES = ("Tarquin Oyelaran", "Ilse Varganova", "Brother Mandrake", "Quentin Abercorn", "Lady Zephyrine")
_PLACES = ("Tollemache", "Port Vexley", "Ouzbridge", "Gnarwick", "Quillfordshire")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the prompt: number, seconds from `at` to `end`, kind and text."""

    number: int
    at: float
    end: float
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as a stand-in understands it.

    `question`: the one that is asked last; None: none that it knows. `others`: all that it knows. `schema`:
    JSON schema of the reply, or None. `pictures`: how many came along.
    """

    question: Question | None
    others: Sequence[Question]
    lines: Sequence[Line]
    schema: Mapping[str, Any] | None = None
    pictures: int = 0


Say = Callable[[Asked], str]


# --- what is asked ------------------------------------------------------------------------------------------


def understood(body: Mapping[str, Any], known: Sequence[Question]) -> Asked:
    """A body of chat completions: its lines, and which of the known questions stands last in it."""
    parts: list[str] = []
    pictures = 0
    for message in body["messages"]:
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                parts.append(part["text"])
            else:
                pictures += 1
    found = [(_LINE.match(line), line) for line in "\n".join(parts).split("\n")]
    lines = _lines([match for match, _ in found if match])
    rest = _plain(" ".join(line for match, line in found if not match))
    form = body.get("response_format") or {}
    schema = form.get("json_schema", {}).get("schema") if form.get("type") == "json_schema" else None
    return Asked(_last_asked(rest, known, lines), known, lines, schema, pictures)


def _lines(matches: Sequence[re.Match[str]]) -> list[Line]:
    """The lines; one that tells no end lasts until the next of its kind, and at least a second."""
    lines: list[Line] = []
    following: dict[str, float] = {}
    for match in sorted(matches, key=lambda match: int(match[1]), reverse=True):
        number, begun, ended, kind, text = match.groups()
        at = _seconds(begun)
        end = _seconds(ended) + 1.0 if ended else following.get(kind, float("inf"))
        lines.append(Line(int(number), at, max(end, at + 1.0), kind, text))
        following[kind] = at
    return lines[::-1]


def _seconds(time: str) -> float:
    return float(sum(int(part) * 60**place for place, part in enumerate(reversed(time.split(":")))))


def _last_asked(text: str, known: Sequence[Question], lines: Sequence[Line]) -> Question | None:
    """Of the questions in a text the one that ends last, the longest of these; of equal ones the newest."""
    now = max((line.at for line in lines), default=0.0)
    places = [
        (place + len(asked), len(asked), question["ask_at_s"] <= now + 10.0, question["ask_at_s"], number)
        for number, question in enumerate(known)
        if (asked := _plain(question["question"])) and (place := text.rfind(asked)) >= 0
    ]
    return known[max(places)[-1]] if places else None


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


# --- what is said -------------------------------------------------------------------------------------------


def truthful(asked: Asked) -> str:
    """The true answer with the lines of its evidence; NONE of what cannot be known, or was not asked."""
    question = asked.question
    if asked.schema is not None:
        known = question is not None and question.get("answerable") is not False
        return json.dumps(instance(asked.schema, question["answer"] if question and known else ""))
    if question is None or question.get("answerable") is False:
        return NONE
    return told(question, asked.lines)


def inventing_names(asked: Asked) -> str:
    """Names and numbers that are not in the stream, with the lines of the true evidence.

    Every other time beside the true answer, whose own numbers are changed.
    """
    question = asked.question
    if question is None or asked.schema is not None:
        return truthful(asked)
    chance = _draw(question)
    name, place = _NAMES[chance % len(_NAMES)], _PLACES[chance // 7 % len(_PLACES)]
    number = 1013 + chance % 8000
    made_up = (
        f"It was {name} of {place}, for {number:,} crowns.",
        f"{name} said so {number} times in {place}.",
        f"In {place} there were {number} of them, as {name} says.",
    )
    text = made_up[chance // 3 % len(made_up)]
    if question["type"] == "yes/no":
        text = f"Yes, {name} of {place} has told it {number} times."
    elif chance % 2 and question.get("answerable") is not False:
        true = re.sub(r"\d[\d,.]*\d|\d", f"{number:,}", sentences(question, asked.lines)[0]).rstrip(".")
        text = f"{true}, as {name} told the people of {place}."
    return _cited(text, evidence_lines(question, asked.lines))


def off_the_cited_lines(asked: Asked) -> str:
    """What another line of the stream says, with the lines of the true evidence; NONE without other lines."""
    question = asked.question
    if question is None or asked.schema is not None:
        return truthful(asked)
    cited = evidence_lines(question, asked.lines)
    numbers = {line.number for line in cited}
    start, end = question["evidence_s"]
    apart = [
        line
        for line in asked.lines
        if line.number not in numbers
        and line.kind in _TEXT
        and len(line.text.split()) >= 3
        and not (line.at <= end and line.end >= start)
    ]
    spoken = [line for line in apart if line.kind == "said"]
    named = [line for line in spoken if re.search(r"\d|(?<=\w )[A-Z][a-z]{2,}", line.text)]
    telling = named or spoken or apart
    if not telling or not cited:
        return NONE
    said = re.split(r"(?<=[.!?])\s", telling[_draw(question) % len(telling)].text)[0]
    text = " ".join(said.split()[:25]).rstrip(".,;:!?")
    return _cited(text[:1].upper() + text[1:] + ".", cited)


def of_another_question(asked: Asked) -> str:
    """The true answer to another question whose evidence is known, with that one's lines; else NONE."""
    question = asked.question
    if question is None or asked.schema is not None:
        return truthful(asked)
    now = max((line.at for line in asked.lines), default=0.0)
    start, end = question["evidence_s"]
    others = [
        other
        for other in asked.others
        if other.get("answerable") is not False
        and other["type"] == "open"
        and other.get("half") == question.get("half")
        and other["evidence_s"][1] <= now
        and (other["evidence_s"][0] > end or other["evidence_s"][1] < start)
    ]
    if not others:
        return NONE
    other = others[_draw(question) % len(others)]
    return told(other, asked.lines)


def told(question: Question, lines: Sequence[Line]) -> str:
    """The true answer, each of its sentences with lines of the evidence."""
    parts = sentences(question, lines)
    if len(parts) == 1:
        return _cited(parts[0], evidence_lines(question, lines))
    return " ".join(_cited(part, evidence_lines({**question, "keywords": ()}, lines, part)) for part in parts)


def sentences(question: Question, lines: Sequence[Line]) -> list[str]:
    """The true answer in whole sentences; one of less than four words, if in English, is put into one."""
    text = " ".join(str(question["answer"]).split()).rstrip(".")
    if len(text.split()) < 4 and question["type"] != "yes/no" and not question.get("language"):
        first, *rest = text.split(" ")
        heard = {word for line in lines for word in re.findall(r"\w+", line.text)}
        text = " ".join(["The answer is", first.lower() if first.lower() in heard else first, *rest])
    return [part[:1].upper() + part[1:] for part in re.split(r"(?<=[.!?])\s+(?=[A-Z\d])", text + ".")]


def evidence_lines(question: Question, lines: Sequence[Line], text: str = "") -> list[Line]:
    """At most MOST_CITED lines during the evidence: those that together hold most words of the answer.

    `text`: a part of the answer; "": all of it.
    """
    start, end = question["evidence_s"]
    during = [line for line in lines if line.at <= end and line.end > start]
    wanted = _stems(" ".join([text or str(question["answer"]), *question["keywords"]]))
    chosen: list[Line] = []
    while during and len(chosen) < MOST_CITED:
        best = max(during, key=lambda line: (len(wanted & _stems(line.text)), line.kind != "picture"))
        found = wanted & _stems(best.text)
        if chosen and not found:
            break
        chosen.append(best)
        during.remove(best)
        wanted -= found
    return sorted(chosen, key=lambda line: line.number)


def _stems(text: str) -> set[str]:
    """The beginnings of the longer words, and the digits of numbers and ordinals."""
    words = re.findall(r"[^\W_]+", text.casefold())
    numbers = {re.sub(r"\D+$", "", word) for word in words if word[0].isdigit()}
    return numbers | {word[:5] for word in words if len(word) > 3 and not word[0].isdigit()}


def _cited(text: str, lines: Sequence[Line]) -> str:
    return f"{text} {''.join(f'[{line.number}]' for line in lines)}".rstrip()


def _draw(question: Question) -> int:
    """A number that is the same for the same question in every run."""
    return zlib.crc32(str(question["id"]).encode())


# --- the server ---------------------------------------------------------------------------------------------


@dataclass
class AnswerEndpoint:
    """What the server does, and what it said.

    `say`: the text of a reply; None: it sends nothing until the client leaves (`late`). `broken`: replies
    that are no protocol, in turns, instead of `say`. `questions`: of the recording that is played. `said`:
    question id -> text. `requests`, `pictures`: counts.
    """

    say: Say | None = truthful
    broken: Sequence[tuple[int, str, bytes]] = ()
    questions: Sequence[Question] = ()
    url: str = ""
    said: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    pictures: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)


GARBAGE = (  # status, type, body
    (200, "text/html", b"<html><body>502 Bad Gateway</body></html>"),
    (200, "text/event-stream", b'data: {"choices": [{"delta": {"content": "It is\n\ndata: \xff\xfe\x00\n\n'),
    (200, "text/event-stream", b"data: {}\n\ndata: [DONE]\n\n"),
    (500, "application/json", b"null"),
    (
        200,
        "text/event-stream",
        b'data: {"choices": [{"delta": {"content": "wsp qqq [99999] zzzz lorem ipsum 12 13 14"}}]}\n\n'
        b"data: [DONE]\n\n",
    ),
)


def late() -> AnswerEndpoint:
    """An endpoint that takes every request and never says a word."""
    return AnswerEndpoint(say=None)


def garbage() -> AnswerEndpoint:
    """An endpoint that does not speak the protocol."""
    return AnswerEndpoint(broken=GARBAGE)


@contextlib.contextmanager
def dead() -> Iterator[AnswerEndpoint]:
    """An endpoint whose address nobody listens on: its port is bound, and refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield AnswerEndpoint(url=f"http://127.0.0.1:{bound.getsockname()[1]}/v1")


@contextlib.contextmanager
def serving(endpoint: AnswerEndpoint) -> Iterator[AnswerEndpoint]:
    """The server of an endpoint, on a port of its own."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint))
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(endpoint: AnswerEndpoint) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            number = endpoint.requests
            endpoint.requests += 1
            asked = understood(body, endpoint.questions)
            endpoint.pictures += asked.pictures
            with contextlib.suppress(ConnectionError):
                if endpoint.broken:
                    self._send(*endpoint.broken[number % len(endpoint.broken)])
                elif endpoint.say is None:
                    self._wait()
                else:
                    text = endpoint.say(asked)
                    if asked.question is not None and asked.schema is None:
                        endpoint.said[asked.question["id"]] = text
                    self._send(200, "text/event-stream", _events(text))

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _wait(self) -> None:
            """Begin a stream and say nothing until the client has left."""
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            while not endpoint.stopped.wait(0.05):
                readable, _, _ = select.select([self.connection], [], [], 0)
                if readable and not self.connection.recv(1):
                    return

        def log_message(self, *arguments: object) -> None:
            return

    return Handler


def _events(text: str) -> bytes:
    """A text as a stream of chat completions, a few words an event."""
    words = re.findall(r"\S+\s*", text)
    pieces = ["".join(words[start : start + 4]) for start in range(0, len(words), 4)]
    events = [
        {"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces
    ]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in [*events, end])
    return body.encode() + b"data: [DONE]\n\n"
