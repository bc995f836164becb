"""Questions at the doors: read, refused where they cannot be, answered in the response or by events, and cancelled."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest

from streamsvc.core.errors import InvalidRequest
from streamsvc.service import question_routes
from streamsvc.service.session import Session
from tests.builders.service import serving, socket_of, until

JPEG = b"\xff\xd8\xff\xe0 and so on"


class Asked:
    """Takes what a session would be asked."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    def ask(self, text: str, **rest: Any) -> None:
        self.got.append({"text": text, **rest})


def taken(**message: Any) -> dict[str, Any]:
    asked = Asked()
    question_routes.ask(cast(Session, asked), {"type": "question.ask", **message}, "c_1")
    return asked.got[0]


def test_a_question_of_the_event_socket_is_asked_for_its_subscriber() -> None:
    told = taken(text="What is shown?", id=7, deadline_ms=500, image=base64.b64encode(JPEG).decode())
    whose = {"audience": "asker", "client": "c_1"}
    assert told == {
        "text": "What is shown?",
        "number": "7",
        "deadline_ms": 500,
        **whose,
        "image": JPEG,
        "form": None,
    }
    assert taken(text="And now?", audience="session")["audience"] == "session"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({}, "empty_question"),
        ({"text": 7}, "empty_question"),
        ({"text": "Who?", "deadline_ms": "soon"}, "bad_deadline"),
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
def test_a_question_that_cannot_be_read_is_refused_by_a_code(message: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        taken(**message)
    assert caught.value.code == code


def test_a_picture_comes_as_base64_or_as_a_data_url() -> None:
    plain = base64.b64encode(JPEG).decode()
    assert (
        question_routes.picture(plain) == question_routes.picture(f"data:image/jpeg;base64,{plain}") == JPEG
    )
    assert question_routes.picture(None) is None


async def test_an_answer_comes_in_the_response_or_by_events_to_all(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = (await client.post("/v1/sessions", json={})).json()["id"]
        door = f"/v1/sessions/{session}/questions"
        answer = await client.post(door, json={"text": "Anything?"}, headers={"Accept": "text/event-stream"})
        done = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
        assert (done["type"], done["supported"]) == ("answer.done", False)
        async with socket_of(place, session, "?types=answer.done") as events:
            queued = await client.post(door, json={"text": "And now?"})
            assert queued.status_code == 202
            assert (await until(events, "answer.done"))[-1]["question_id"] == queued.json()["question_id"]
            asked = {"type": "question.ask", "text": "And now?", "response_format": {"type": "json_object"}}
            await events.send(json.dumps(asked))
            assert json.loads((await until(events, "answer.done"))[-1]["text"])["supported"] is False
            schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
            form = {"type": "json_schema", "json_schema": {"name": "counted", "schema": schema}}
            await client.post(door, json={"text": "How many cats?", "response_format": form})
            done = (await until(events, "answer.done"))[-1]
            assert (done["text"], done["error"]["code"]) == ("", "response_format_unmet")
        refused = await client.post(door, json={"text": "Who?", "response_format": {"type": "json_schema"}})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_response_format")
        assert (await client.delete(f"{door}/q_none")).json()["error"]["code"] == "no_question"
        assert (await client.post(door, json={"text": "Who?", "image": "!"})).json()["error"][
            "code"
        ] == "bad_image"
