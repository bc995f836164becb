"""Questions: validated, answered in the response or by events, and cancelled."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import httpx
import pytest

from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import DeclineReason, Question
from streamsvc.events.subscription import SlowSubscriber
from streamsvc.service import question_routes
from streamsvc.service.session import Session
from tests.builders.fake_service import at_the_door
from tests.builders.service import error_of, open_session, serving, socket_of, until
from tests.builders.spoken import KEY

SECRET = "a-name-that-nobody-guesses"
JPEG = b"\xff\xd8\xff\xe0 content"


class RecordingQuestions:
    """The questions of a session, recorded as they are asked."""

    def __init__(self) -> None:
        self.questions: list[QuestionRequest] = []

    def ask(self, question: QuestionRequest) -> None:
        self.questions.append(question)


def queued(**message: Any) -> QuestionRequest:
    """The question that a message of the event socket puts into the queue."""
    asked = RecordingQuestions()
    session = cast(Session, SimpleNamespace(questions=asked))
    question_routes.ask(session, {"type": "question.ask", **message}, "c_1")
    return asked.questions[0]


def test_a_question_of_the_event_socket_belongs_to_its_subscriber() -> None:
    image = base64.b64encode(JPEG).decode()
    assert queued(text="What is shown?", id=7, deadline_ms=500, image=image) == QuestionRequest(
        "What is shown?",
        question_id="7",
        deadline_ms=500,
        audience="asker",
        client="c_1",
        image=JPEG,
        form=None,
    )
    assert queued(text="And now?", audience="session").audience == "session"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({}, "empty_question"),
        ({"text": 7}, "empty_question"),
        ({"text": "Who?", "deadline_ms": "soon"}, "bad_deadline"),
        ({"text": "Who?", "deadline_ms": True}, "bad_deadline"),
        ({"text": "Who?", "id": ["mine"]}, "bad_id"),
        ({"text": "Who?", "id": True}, "bad_id"),
        ({"text": "Who?", "image": 7}, "bad_image"),
    ]
    + [
        ({"text": "Who?", "response_format": form}, "bad_response_format")
        for form in ("json", {"type": "xml"}, {"type": "json_schema"})
    ]
    + [
        ({"text": "Who?", "image": image}, "bad_image")
        for image in ("not base64!", base64.b64encode(b"GIF89a").decode())
    ],
)
def test_an_invalid_question_is_refused_with_a_code(message: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        queued(**message)
    assert caught.value.code == code


def test_an_image_is_base64_or_a_data_url() -> None:
    plain = base64.b64encode(JPEG).decode()
    assert question_routes.decode_image(plain) == JPEG
    assert question_routes.decode_image(f"data:image/jpeg;base64,{plain}") == JPEG
    assert question_routes.decode_image(None) is None


async def test_an_answer_comes_in_the_response_or_as_events(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = await open_session(client)
        path = f"/v1/sessions/{session}/questions"
        answer = await client.post(path, json={"text": "Anything?"}, headers={"Accept": "text/event-stream"})
        done = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
        assert (done["type"], done["outcome"], done["reason"]) == ("answer.done", "declined", "nothing_yet")
        async with socket_of(place, session, "?types=answer.done") as events:
            accepted = await client.post(path, json={"text": "And now?", "audience": "session"})
            assert accepted.status_code == 202
            assert (await until(events, "answer.done"))[-1]["question_id"] == accepted.json()["question_id"]
            message = {"type": "question.ask", "text": "And now?", "response_format": {"type": "json_object"}}
            await events.send(json.dumps(message))
            assert json.loads((await until(events, "answer.done"))[-1]["text"])["supported"] is False
            schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
            form = {"type": "json_schema", "json_schema": {"name": "counted", "schema": schema}}
            await client.post(
                path, json={"text": "How many cats?", "response_format": form, "audience": "session"}
            )
            done = (await until(events, "answer.done"))[-1]
            assert (done["text"], done["error"]["code"]) == ("", "response_format_unmet")
            assert (done["outcome"], "reason" in done) == ("declined", False)
        for body, code in (
            ({"text": "Who?", "response_format": {"type": "json_schema"}}, "bad_response_format"),
            ({"text": "Who?", "image": "!"}, "bad_image"),
            ({"text": " "}, "empty_question"),
        ):
            assert error_of(await client.post(path, json=body)) == (400, code)
        assert error_of(await client.delete(f"{path}/q_none")) == (404, "no_question")


async def test_what_does_not_apply_to_an_answer_is_absent_and_never_null(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        answer = (await client.get("/openapi.json")).json()["components"]["schemas"]["AnswerBody"]
        for name, kind in (("reason", "string"), ("by", "string"), ("error", "object")):
            assert answer["properties"][name]["type"] == kind
            assert "default" not in answer["properties"][name]
            assert name not in answer["required"]
        assert answer["properties"]["reason"]["enum"] == list(get_args(DeclineReason))


def unanswered(new: QuestionRequest, trouble: str) -> Question:
    """A question that nobody answers; its time has passed already where it is to be late."""
    left = -20.0 if trouble == "late" else 60.0
    return Question("q_unanswered", new.text, 0.0, clock.now() + left, new.audience, None, None)


async def answered(client: httpx.AsyncClient, address: str) -> httpx.Response:
    """The response at a question's address, once it is no more 202."""
    async with asyncio.timeout(30):
        while (response := await client.get(address)).status_code == 202:
            assert response.json()["question_id"] in address
            await asyncio.sleep(0.05)
    return response


async def test_an_answer_is_its_askers_alone_and_read_at_its_address(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (service, place, client):
        client.headers["Authorization"] = f"Bearer {KEY}"
        session = await open_session(client)
        path = f"/v1/sessions/{session}/questions"
        rights = service.auth.grants(client.headers)
        other = service.auth.token(rights, session=session, may=("subscribe", "ask"), seconds=60)
        others = {"Authorization": f"Bearer {other.token}"}
        async with (
            socket_of(place, session, "?types=answer.*", additional_headers=others) as stranger,
            socket_of(place, session, "?types=answer.*&client=me", additional_headers=others) as named,
        ):
            mine = (await client.post(path, json={"text": "Anything?"})).json()["question_id"]
            done = await answered(client, f"{path}/{mine}")
            assert done.status_code == 200
            assert (done.json()["question_id"], done.json()["reason"]) == (mine, "nothing_yet")
            assert (done.json()["outcome"], done.json()["supported"]) == ("declined", False)
            assert error_of(await client.get(f"{path}/{mine}", headers=others)) == (404, "no_question")
            assert error_of(await client.delete(f"{path}/{mine}", headers=others)) == (404, "no_question")
            named_me = {"text": "Anything?", "client": "me"}
            await client.post(path, json=named_me)
            told = (await client.post(path, json=named_me, headers=others)).json()["question_id"]
            heard = [event for event in await until(named, "answer.done") if "question_id" in event]
            assert {event["question_id"] for event in heard} == {told}, "only what its own token asked"
            body = {"text": "Anything?", "audience": "session"}
            public = (await client.post(path, json=body)).json()["question_id"]
            assert (await until(stranger, "answer.done"))[-1]["question_id"] == public, "the first it hears"
            assert (await client.get(f"{path}/{public}", headers=others)).json()["question_id"] == public
        assert error_of(await client.get(f"{path}/q_none")) == (404, "no_question")
        for body in ({"text": "Who?", "audience": "all"}, {"text": "Who?", "client": "x" * 65}):
            assert (await client.post(path, json=body)).status_code == 400


async def test_a_session_that_has_ended_still_answers(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, client):
        session = await open_session(client)
        path = f"/v1/sessions/{session}/questions"
        await client.delete(f"/v1/sessions/{session}")
        await service.sessions.find(session).over.wait()
        asked = await client.post(path, json={"text": "Anything?"})
        address = asked.headers["Location"]
        assert (asked.status_code, address) == (202, f"{path}/{asked.json()['question_id']}")
        done = (await answered(client, address)).json()
        assert (done["outcome"], done["reason"], done["by"]) == ("declined", "nothing_yet", "tool")
        streamed = await client.post(path, json={"text": "And?"}, headers={"Accept": "text/event-stream"})
        assert "event: answer.done" in streamed.text
        await client.delete(f"/v1/sessions/{session}", params={"purge": 1})
        assert error_of(await client.post(path, json={"text": "Anything?"})) == (404, "no_session")


async def test_every_error_about_a_question_by_http_names_the_question(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"questions_waiting": 1}) as (service, _, client):
        session = await open_session(client)
        path = f"/v1/sessions/{session}/questions"
        for accept in ("*/*", "text/event-stream"):
            for body in ({"text": " "}, {"text": "Who?", "image": "!"}, {"text": "Who?", "deadline_ms": 0}):
                refused = await client.post(path, json=body, headers={"Accept": accept})
                assert refused.status_code == 400
                assert refused.json()["question_id"].startswith("q_")
        gone = await client.post("/v1/sessions/none/questions", json={"text": "Who?"})
        assert (error_of(gone), gone.json()["question_id"][:2]) == ((404, "no_session"), "q_")
        for method in ("GET", "DELETE"):
            unknown = await client.request(method, f"{path}/q_none")
            assert (error_of(unknown), unknown.json()["question_id"]) == ((404, "no_question"), "q_none")
        service.sessions.find(session).context.degradation.apply(7, "busy")
        refused = await client.post(path, json={"text": "Who?"})
        assert (error_of(refused), refused.json()["question_id"][:2]) == ((503, "capacity"), "q_")


@pytest.mark.parametrize("trouble", ["erased", "slow", "late"])
async def test_a_streamed_answer_that_breaks_off_ends_with_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    async with serving(tmp_path) as (service, _, client):
        session = service.sessions.find(await open_session(client))
        monkeypatch.setattr(session.questions, "ask", lambda new: unanswered(new, trouble))
        answer = asyncio.create_task(
            client.post(
                f"/v1/sessions/{session.id}/questions",
                json={"text": "Who?"},
                headers={"Accept": "text/event-stream"},
            )
        )
        if trouble != "late":
            async with asyncio.timeout(20):
                while not (waiting := [one for one in session.log._subscribers if one.lasting]):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)  # until the request has come in
            if trouble == "slow":
                waiting[0].fail(SlowSubscriber("you read too slowly"))
            else:
                waiting[0].end()
        lines = (await answer).text.strip().splitlines()
    event = json.loads(lines[-1].removeprefix("data: "))
    assert lines[-2] == "event: error"
    assert event["question_id"] == "q_unanswered"
    codes = {"erased": "cancelled", "slow": "too_slow", "late": "deadline_missed"}
    assert event["error"]["code"] == codes[trouble]


async def test_an_answer_for_its_asker_alone_reaches_no_other_subscriber_in_any_way(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = await open_session(client)
        path = f"/v1/sessions/{session}/questions"
        async with (
            socket_of(place, session) as stranger,
            socket_of(place, session, f"?client={SECRET}") as me,
        ):
            waited = (await client.post(path, json={"text": "Anything?"})).json()["question_id"]
            await answered(client, f"{path}/{waited}")
            streamed = await client.post(
                path, json={"text": "Anything?"}, headers={"Accept": "text/event-stream"}
            )
            assert "answer.done" in streamed.text
            await client.post(path, json={"text": "Anything?", "audience": "asker", "client": SECRET})
            await until(me, "answer.done")
            await me.send(json.dumps({"type": "question.ask", "id": "private", "text": "Anything?"}))
            await until(me, "answer.done")
            public = {"text": "Anything?", "audience": "session"}
            last = (await client.post(path, json=public)).json()["question_id"]
            heard = [event for event in await until(stranger, "answer.done") if "question_id" in event]
            assert {event["question_id"] for event in heard} == {last}
        replayed = []
        async with client.stream("GET", f"/v1/sessions/{session}/events?after=0") as events:
            async for line in events.aiter_lines():
                if line.startswith("data: "):
                    replayed.append(json.loads(line.removeprefix("data: ")))
                    if replayed[-1].get("question_id") == last:
                        break
        assert {event["question_id"] for event in replayed if "question_id" in event} == {last}


async def test_the_address_of_an_answer_stays_when_the_name_begins_anew(tmp_path: Path) -> None:
    async with at_the_door(tmp_path) as (service, _, client):
        session = await service.sessions.create(name="talk")
        made = await client.post("/v1/sessions/talk/questions", json={"text": "Anything?"})
        assert made.status_code == 202
        assert made.headers["location"].startswith(f"/v1/sessions/{session.id}/questions/")
