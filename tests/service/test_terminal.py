"""The command line's view: outcomes in words, citations with their times, a question to a running service."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from streamsvc.core import clock
from streamsvc.core.config import Server
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.core.types import Question, Reason
from streamsvc.service import terminal
from streamsvc.service.terminal import EventPrinter, questions_url, verdict
from tests.builders.screen import Terminal
from tests.builders.screen import terminal as opened_terminal
from tests.builders.service import open_session, serving

EVIDENCE = [{"start": 75.0, "end": 78.0, "kind": "speech", "quote": "the [old] mill"}]


def done(outcome: str = "answer", **more: Any) -> dict[str, Any]:
    body = {"text": "The mill.", "outcome": outcome, "supported": outcome == "answer", "evidence": EVIDENCE}
    return {"type": "answer.done", "question_id": "q", "at": 80.0, **body, **more}


async def events(*made: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for event in made:
        yield event


@pytest.mark.parametrize(
    ("event", "label", "text"),
    [
        (done(), "answer", "The mill."),
        (done(supported=False, by="model"), "model's own word", "The mill."),
        (done("closest", text="Nearest: the mill"), "nearest", "Nearest: the mill"),
        (done("declined", text="", reason="late"), "declined", terminal.DECLINED["late"]),
        (done("declined", text="", error={"message": "the worker died"}), "declined", "the worker died"),
        (done("declined", text="I cannot tell.", reason="cannot_tell"), "declined", "I cannot tell."),
    ],
)
def test_every_outcome_has_a_label(event: dict[str, Any], label: str, text: str) -> None:
    assert verdict(event) == (label, text)


def test_every_reason_has_words() -> None:
    assert set(terminal.DECLINED) == set(Reason.__args__) - {""}  # type: ignore[attr-defined]


def test_the_printer_shows_captions_answers_and_what_they_rest_on_and_never_takes_text_for_markup() -> None:
    out = io.StringIO()
    printer = EventPrinter(False, Console(file=out, highlight=False, width=200))
    printer.show({"type": "caption.final", "start": 61.5, "text": "[b]Once[/b]"})
    printer.show({"type": "caption.gap", "start": 1.0, "end": 3.5, "reason": "overload"})
    degraded = {"type": "session.degraded", "at": 1.5, "level": 1, "reason": "sound waits"}
    printer.show(degraded | {"message": "Captions are late: this machine is busy."})
    printer.show({"type": "scene.caption", "start": 2.0, "text": "A cat.", "by": "model"})
    printer.show({"type": "screen.text", "first_seen": 2.0, "title": None, "lines": [{"text": "Hallo"}]})
    printer.show(done("closest"))
    printer.show({"type": "session.closed", "error": {"message": "it broke"}})
    assert out.getvalue().splitlines() == [
        "  1:01.5 [b]Once[/b]",
        "  0:01.0 [gap] 2.5 s not captioned: overload",
        "  0:01.5 [load] Captions are late: this machine is busy.",
        "  0:02.0 [model] A cat.",
        "  0:02.0 [screen] Hallo",
        "  1:20.0 [nearest] The mill.",
        "         - 1:15 heard: the [old] mill",
    ]
    assert printer.failure == "it broke"


@pytest.fixture
def screen() -> Iterator[tuple[Terminal, Console]]:
    """A terminal of 60 columns, and a console that writes to it."""
    with opened_terminal(60) as opened, os.fdopen(os.dup(opened.output), "w") as file:
        yield opened, Console(file=file, highlight=False, width=60, color_system=None)


def partial(text: str) -> dict[str, Any]:
    return {"type": "caption.partial", "start": 1.0, "text": text}


def test_on_a_terminal_the_open_caption_is_one_line_that_redraws_itself_and_then_gives_way(
    screen: tuple[Terminal, Console],
) -> None:
    opened, console = screen
    text = "one line that grows until it is longer than the terminal is wide, and goes on"
    words = text.split()
    with EventPrinter(False, console) as printer:
        for count in range(1, len(words) + 1):
            printer.show(partial(" ".join(words[:count])))
            (row,) = opened.read()
            assert " ".join(words[:count]).endswith(row) and len(row) < 60
        printer.show({"type": "scene.caption", "start": 2.0, "text": "A cat.", "by": "rule"})
        assert opened.read() == ["  0:02.0 [seen] A cat.", row]
        printer.show(partial("and is \x1b[2J taken back"))
        assert opened.read() == ["  0:02.0 [seen] A cat.", "and is  [2J taken back"]
        printer.show({"type": "caption.final", "start": 1.0, "text": "It is said."})
        assert opened.read() == ["  0:02.0 [seen] A cat.", "  0:01.0 It is said."]
        printer.show(partial("never closed"))
    assert opened.read() == ["  0:02.0 [seen] A cat.", "  0:01.0 It is said."]


def test_log_lines_stand_above_the_open_caption(
    screen: tuple[Terminal, Console], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, console = screen
    with os.fdopen(os.dup(opened.output), "w") as errors:
        monkeypatch.setattr("sys.stderr", errors)
        with EventPrinter(False, console) as printer:
            printer.show(partial("not yet closed"))
            structlog.get_logger().warning("worker ended")
            above, row = opened.read()
    structlog.reset_defaults()
    assert "worker ended" in above and row == "not yet closed"


def test_a_file_or_a_pipe_gets_closed_captions_alone_and_no_control_characters() -> None:
    out = io.StringIO()
    with EventPrinter(False, Console(file=out, highlight=False, width=200)) as printer:
        printer.show(partial("not yet"))
        printer.show({"type": "caption.final", "start": 1.0, "text": "It is said."})
        printer.show(partial("never"))
    assert out.getvalue() == "  0:01.0 It is said.\n"


def test_answers_come_with_their_questions_and_in_their_order() -> None:
    out = io.StringIO()
    with EventPrinter(False, Console(file=out, highlight=False, width=200)) as printer:
        printer.expect({"a": "Who [spoke]?", "b": "What was shown?", "c": "And then?"})
        printer.show(done(question_id="b", text="A slide.", evidence=[]))
        assert out.getvalue() == ""
        printer.show(done(question_id="x", text="Another's.", evidence=[]))
        printer.show(done(question_id="a", text="A man.", evidence=[]))
    assert out.getvalue().splitlines() == [
        "  1:20.0 [answer] Another's.",
        "  1:20.0 [question] Who [spoke]?",
        "  1:20.0 [answer] A man.",
        "  1:20.0 [question] What was shown?",
        "  1:20.0 [answer] A slide.",
        "         [question] And then?",
        "         [declined] no answer came",
    ]


@pytest.mark.parametrize(("duration", "shown"), [(90.0, "0:30 of 1:30 0:00:06"), (None, "0:30")])
def test_progress_tells_what_is_done_and_the_time_left_on_a_terminal(
    screen: tuple[Terminal, Console], virtual: asyncio.Runner, duration: float | None, shown: str
) -> None:
    opened, console = screen
    began = virtual.run(_now())
    seen: list[str] = []

    def position() -> float:
        seen.extend(opened.read()[-1:])
        return 10 * (clock.now() - began)

    async def draw() -> None:
        await asyncio.wait_for(terminal.show_progress("talk.mp4", duration, position, console), 3.6)

    with pytest.raises(TimeoutError):
        virtual.run(draw())
    assert any("talk.mp4" in row and shown in row for row in seen)
    assert opened.read() == []


async def _now() -> float:
    return clock.now()


async def test_progress_is_not_drawn_into_a_file() -> None:
    out = io.StringIO()
    await terminal.show_progress("talk.mp4", 90.0, lambda: 1.0, Console(file=out))
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["eval", "talk.json", "--json", "out.json"], "out.json"),
        (["bench", "captions", "talk.wav", "--json", "o"], "o"),
        (["watch", "--json", "talk.mp4"], ""),
        (["eval", "talk.json", "--json"], ""),
        (["eval", "talk.json", "--json", "--rows", "all"], ""),
        (["eval", "talk.json", "--json", __file__], ""),
    ],
)
def test_a_file_name_after_json_is_explained(arguments: list[str], name: str) -> None:
    hint = terminal.json_hint(arguments)
    assert ("--json takes no file name" in hint and f"--json > {name}" in hint) if name else hint == ""


def test_json_is_one_event_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    EventPrinter(True).show(done())
    assert json.loads(capsys.readouterr().out)["outcome"] == "answer"


@pytest.mark.parametrize(
    ("session", "url"),
    [
        ("0.a b", "http://h:1/v1/sessions/0.a%20b/questions"),
        ("https://x.org/v1/sessions/0.ab/events", "https://x.org/v1/sessions/0.ab/questions"),
        ("https://x.org/sub/v1/sessions/0.ab", "https://x.org/sub/v1/sessions/0.ab/questions"),
        ("http://x.org/#session=0.ab&token=t", "http://x.org/v1/sessions/0.ab/questions"),
    ],
)
def test_a_session_is_named_by_its_id_its_address_or_the_pages(session: str, url: str) -> None:
    assert questions_url(session, "http://h:1/") == url


@pytest.mark.parametrize("address", ["http://x.org/", "http://x.org/v1/sessions/", "ftp://x/v1/sessions/0.a"])
def test_another_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="v1/sessions"):
        questions_url(address, "http://h:1")


async def test_an_answer_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    delta = {"type": "answer.delta", "text": "The mill."}
    assert await terminal.show_answer(events(delta, done()), as_json=False)
    assert capsys.readouterr().out.splitlines() == ["The mill.", "  - 1:15 heard: the [old] mill"]
    declined = done("declined", text="", reason="busy", evidence=[])
    assert not await terminal.show_answer(events(declined), as_json=False)
    assert capsys.readouterr().out.splitlines() == [terminal.DECLINED["busy"], "[declined]"]
    told = done("declined", text="I cannot tell.", reason="cannot_tell", evidence=[])
    await terminal.show_answer(events(told), as_json=False)
    assert capsys.readouterr().out.splitlines()[1] == f"[declined: {terminal.DECLINED['cannot_tell']}]"
    assert await terminal.show_answer(events(delta, done("closest")), as_json=True)
    assert json.loads(capsys.readouterr().out)["outcome"] == "closest"
    with pytest.raises(StreamsvcError, match="no answer"):
        await terminal.show_answer(events(delta), as_json=False)


async def test_a_running_service_is_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, place, client):
        await service.ready()
        session = await open_session(client)
        url = questions_url(session, f"http://{place}")
        got = [event async for event in terminal.ask(url, "Anything?", "")]
        assert got[-1]["type"] == "answer.done"
        with pytest.raises(StreamsvcError, match="no session"):
            _ = [event async for event in terminal.ask(questions_url("none", f"http://{place}"), "Who?", "")]
    with pytest.raises(StreamsvcError, match="cannot be reached"):
        _ = [event async for event in terminal.ask(url, "Anything?", "")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_address_of_the_ready_line_can_be_opened(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    open_server = Server(host=host, api_key="a-key-of-sixteen-or-more")
    monkeypatch.setattr(terminal, "_lan_address", lambda: "192.168.1.7")
    said = terminal.ready_line(open_server, host, 8080)
    assert said == "ready, open http://localhost:8080 or http://192.168.1.7:8080"
    monkeypatch.setattr(terminal, "_lan_address", lambda: None)
    assert terminal.ready_line(open_server, host, 1) == "ready, open http://localhost:1"


@pytest.mark.parametrize(
    ("server", "host", "said"),
    [
        (Server(), "127.0.0.1", "ready, open http://127.0.0.1:80"),
        (Server(tls_self_signed=True), "::1", "ready, open https://[::1]:80"),
        (
            Server(public_url="https://example.org/live"),
            "127.0.0.1",
            "ready, open https://example.org/live or http://127.0.0.1:80",
        ),
    ],
)
def test_the_ready_line_names_the_bound_address_and_the_public_one(
    server: Server, host: str, said: str
) -> None:
    assert terminal.ready_line(server, host, 80) == said


def test_the_address_in_the_local_network_is_no_wildcard_and_no_loopback() -> None:
    address = terminal._lan_address()
    assert address is None or not address.startswith(("0.", "127."))


async def test_an_answer_that_breaks_off_is_told_by_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (service, place, client):
        session = service.sessions.find(await open_session(client))
        late = Question("q", "Who?", 0.0, clock.now() - 20.0, "asker", None, None)
        monkeypatch.setattr(session.questions, "ask", lambda new: late)
        with pytest.raises(StreamsvcError, match="no answer came in time"):
            _ = [one async for one in terminal.ask(questions_url(session.id, f"http://{place}"), "Who?", "")]
