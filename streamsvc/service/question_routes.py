"""The doors of questions: asked by HTTP or by the event socket, answered by events or in the response, and cancelled."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from streamsvc.answers import question_queue, response_schema
from streamsvc.core.errors import InvalidRequest
from streamsvc.events.subscription import Subscription
from streamsvc.service.session import Session

SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class NewQuestion(BaseModel):
    """Body of POST /v1/sessions/{id}/questions."""

    model_config = ConfigDict(extra="forbid")

    text: str
    deadline_ms: float | None = None
    audience: Literal["asker", "session"] | None = None
    image: str | None = Field(None, description="JPEG or PNG, base64 or a data URL")
    response_format: dict[str, Any] | None = Field(
        None, description="as of OpenAI's chat completions: json_schema, json_object or text"
    )


def router(find: Callable[[str], Session], ask: Any) -> APIRouter:
    """The doors by HTTP. `find` gives a session by its id; `ask`: the dependency that lets in who may ask."""
    routes = APIRouter(prefix="/v1/sessions/{session_id}/questions", tags=["sessions"], dependencies=[ask])

    @routes.post("", status_code=202)
    async def question(session_id: str, body: NewQuestion, request: Request) -> Response:
        """Ask; 202 with the question's id, or the answer streamed with `Accept: text/event-stream`."""
        session = find(session_id)
        asked = question_queue.NewQuestion(
            body.text,
            deadline_ms=body.deadline_ms,
            image=picture(body.image),
            form=response_schema.read(body.response_format),
        )
        if "text/event-stream" not in request.headers.get("accept", ""):
            host = request.client.host if request.client else ""
            queued = session.answering.queue.ask(
                replace(asked, audience=body.audience or "session", asker=host)
            )
            return JSONResponse({"question_id": queued.id}, 202)
        subscription = session.log.subscribe(["answer.*"])
        try:
            queued = session.answering.queue.ask(
                replace(asked, audience=body.audience or "asker", client=subscription.client)
            )
        except BaseException:
            session.log.unsubscribe(subscription)
            raise
        return StreamingResponse(
            _answer(session, subscription, queued.id), media_type="text/event-stream", headers=SSE_HEADERS
        )

    @routes.delete("/{question_id}", status_code=204)
    async def cancel(session_id: str, question_id: str) -> None:
        """Give a question up that is not answered yet; its `answer.done` carries the error `cancelled`. 404: there is none."""
        find(session_id).answering.cancel(question_id)

    return routes


async def _answer(session: Session, subscription: Subscription, question: str) -> AsyncIterator[str]:
    try:
        while (batch := await subscription.next()) is not None:
            for _, text in batch:
                event = json.loads(text)
                if event["question_id"] != question:
                    continue
                yield f"event: {event['type']}\ndata: {text}\n\n"
                if event["type"] == "answer.done":
                    return
    finally:
        session.log.unsubscribe(subscription)


def ask(session: Session, message: Mapping[str, Any], client: str) -> None:
    """Take a `question.ask` of the event socket.

    Args:
        session: that is asked.
        message: as it came.
        client: the subscriber that sent it.

    Raises:
        InvalidRequest: it cannot be read. And what `Inbox.ask` raises.
    """
    number, deadline, image = message.get("id"), message.get("deadline_ms"), message.get("image")
    if not isinstance(message.get("text"), str):
        raise InvalidRequest("question.ask needs a text", code="empty_question")
    if deadline is not None and not isinstance(deadline, int | float):
        raise InvalidRequest("deadline_ms is a number", code="bad_deadline")
    session.answering.queue.ask(
        question_queue.NewQuestion(
            message["text"],
            number=str(number)[:64] if number is not None else None,
            deadline_ms=deadline,
            audience=str(message.get("audience", "asker")),
            client=client,
            image=picture(image) if isinstance(image, str) else None,
            form=response_schema.read(message.get("response_format")),
        )
    )


def picture(text: str | None) -> bytes | None:
    """A JPEG or PNG from base64 or a data URL, its first bytes checked; None for none.

    Raises:
        InvalidRequest: it is neither ("bad_image").
    """
    if text is None:
        return None
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        image = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the image is not base64", code="bad_image") from None
    if not image.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        raise InvalidRequest("the image is neither JPEG nor PNG", code="bad_image")
    return image
