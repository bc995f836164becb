"""The command line's view: outcomes in words, citations with their times, a question to a running service."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from streamsvc.core import clock
from streamsvc.core.config import Server
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.core.types import Question, Reason
from streamsvc.service import terminal
from streamsvc.service.terminal import EventPrinter, questions_url, verdict
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
    printer.show({"type": "scene.caption", "start": 2.0, "text": "A cat.", "by": "model"})
    printer.show({"type": "screen.text", "first_seen": 2.0, "title": None, "lines": [{"text": "Hallo"}]})
    printer.show(done("closest"))
    printer.show({"type": "session.closed", "error": {"message": "it broke"}})
    assert out.getvalue().splitlines() == [
        "  1:01.5 [b]Once[/b]",
        "  0:01.0 [gap] 2.5 s not captioned: overload",
        "  0:02.0 [model] A cat.",
        "  0:02.0 [screen] Hallo",
        "  1:20.0 [nearest] The mill.",
        "         - 1:15 heard: the [old] mill",
    ]
    assert printer.failure == "it broke"


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
    async with serving(tmp_path) as (_, place, client):
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
