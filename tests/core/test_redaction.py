"""What libraries log and what nobody caught is said without its text."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import re
import sys
import threading
from pathlib import Path

import pytest
import structlog

from streamsvc.core.logs import configure_logs
from tests.builders.fake_service import at_the_door
from tests.builders.service import open_session, socket_of, until
from tests.builders.spoken import KEY


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is logged, while libraries are redacted."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs(as_json=True)
    return stream


SECRET = "rtsp://ann:hunter2@camera"


def test_a_library_s_message_and_traceback_never_reach_a_line(lines: io.StringIO) -> None:
    logger = logging.getLogger("some.library")
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("cannot open %s", SECRET)
    logger.warning(f"retrying {SECRET}")
    logger.debug(SECRET)
    text = lines.getvalue()
    first, second = (json.loads(line) for line in text.splitlines())
    assert "hunter2" not in text
    assert (first["logger"], first["error"]) == ("some.library", "ValueError")
    assert re.fullmatch(r"test_redaction\.py:\d+", first["places"][0])
    assert second["at"].startswith("test_redaction.py:")


def test_an_exception_that_nobody_caught_is_named_without_its_text(lines: io.StringIO) -> None:
    def fail() -> None:
        raise ValueError(SECRET)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    text = lines.getvalue()
    assert "hunter2" not in text
    assert json.loads(text)["error"] == "ValueError"


def test_an_exception_that_ends_the_program_or_a_finalizer_is_named_without_its_text(
    lines: io.StringIO,
) -> None:
    class Failing:
        def __del__(self) -> None:
            raise ValueError(SECRET)

    Failing()
    gc.collect()
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert [(line["where"], line["error"]) for line in said] == [
        ("finalizer", "ValueError"),
        ("main", "ValueError"),
    ]
    assert "hunter2" not in lines.getvalue()


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.usefixtures("lines")
def test_our_own_lines_name_an_exception_by_its_class_and_places(as_json: bool) -> None:
    stream = io.StringIO()
    configure_logs(as_json=as_json, file=stream, level=logging.DEBUG)
    log = structlog.get_logger()
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        log.exception("failed")
        log.error("failed", exc_info=True)
        log.error("failed", exc_info=error)
        log.error("failed", error=error)
    text = stream.getvalue()
    assert "hunter2" not in text
    assert text.count("failed") == 4
    assert text.count("ValueError") == 1
    assert text.count("test_redaction.py") == 3


async def test_what_users_give_and_say_is_in_no_line_of_any_level(lines: io.StringIO, tmp_path: Path) -> None:
    canary = "canary-7f3a"
    configure_logs(as_json=True, file=lines, level=logging.DEBUG)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        async with at_the_door(tmp_path, server={"api_key": KEY}) as (service, place, client):
            wrong = {"Authorization": f"Bearer {canary}"}
            assert (await client.get(f"/v1/capacity?sig={canary}&exp=1", headers=wrong)).status_code == 401
            owner = {"Authorization": f"Bearer {KEY}"}
            client.headers.update(owner)
            session = await open_session(client, no_store=True, vocabulary=[canary], replace={canary: "x"})
            source = f"http://ann:{canary}@127.0.0.1:9/{canary}?token={canary}"
            assert (await client.post("/v1/sessions", json={"source": source})).status_code >= 400
            watch = {"when": "a bus appears", "webhook": source}
            assert (await client.post(f"/v1/sessions/{session}/watches", json=watch)).status_code >= 400
            assert (await client.get(f"/v1/sessions/{canary}/stats")).status_code == 404
            async with socket_of(place, session, additional_headers=owner) as events:
                await until(events, "session.created")
                for message in (
                    canary,
                    {"type": canary},
                    {"type": "question.ask", "text": canary, "id": canary},
                ):
                    await events.send(json.dumps(message))
                await until(events, "answer.done")
                caption = {"text": canary, "words": [], "start": 0.0, "end": 1.0, "language": "en"}
                service.sessions.find(session).log.emit("caption.final", caption)
                await until(events, "caption.final")
            failed = {"message": canary, "exception": ValueError(canary), "task": canary}
            asyncio.get_running_loop().call_exception_handler(failed)
    finally:
        logging.getLogger().setLevel(logging.WARNING)
    said = lines.getvalue()
    assert "a library logged" in said
    assert canary not in said
    assert KEY not in said
