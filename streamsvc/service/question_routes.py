"""Questions by HTTP and by the event socket: validation, answers in the response."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Request, Response, params
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from streamsvc.answers import question_queue, response_schema
from streamsvc.core.errors import InvalidRequest
from streamsvc.events.subscription import Subscription
from streamsvc.service.session import Session

SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_ID_LENGTH = 64  # characters of a question id that the client chose; security limit


class NewQuestion(BaseModel):
    """Body of POST /v1/sessions/{id}/questions."""

    model_config = ConfigDict(extra="forbid")

    text: str
    deadline_ms: float | None = None
    audience: Literal["asker", "session"] | None = None
    image: str | None = Field(None, description="JPEG or PNG, as base64 or a data URL")
    response_format: dict[str, Any] | None = Field(
        None, description="as in OpenAI's chat completions: json_schema, json_object or text"
    )


def router(find: Callable[[str], Session], ask: params.Depends) -> APIRouter:
    """The HTTP routes.

    Args:
        find: a session by its id; raises NotFound.
        ask: checks the permission to ask.
    """
    routes = APIRouter(prefix="/v1/sessions/{session_id}/questions", tags=["sessions"], dependencies=[ask])

    @routes.post("", status_code=202)
    async def question(session_id: str, body: NewQuestion, request: Request) -> Response:
        """Ask a question: 202 with its id; with `Accept: text/event-stream`, the answer."""
        session = find(session_id)
        new = question_queue.QuestionRequest(
            body.text,
            deadline_ms=body.deadline_ms,
            image=decode_image(body.image),
            form=response_schema.read(body.response_format),
        )
        if "text/event-stream" not in request.headers.get("accept", ""):
            host = request.client.host if request.client else ""
            queued = session.answering.queue.ask(
                replace(new, audience=body.audience or "session", asker=host)
            )
            return JSONResponse({"question_id": queued.id}, 202)
        subscription = session.log.subscribe(["answer.*"])
        try:
            queued = session.answering.queue.ask(
                replace(new, audience=body.audience or "asker", client=subscription.client)
            )
        except BaseException:
            session.log.unsubscribe(subscription)
            raise
        return StreamingResponse(
            _answer_stream(session, subscription, queued.id),
            media_type="text/event-stream",
            headers=SSE_HEADERS,
        )

    @routes.delete("/{question_id}", status_code=204)
    async def cancel(session_id: str, question_id: str) -> None:
        """Cancel an unanswered question (404: none with this id).

        Its `answer.done` has the error `cancelled`.
        """
        find(session_id).answering.cancel(question_id)

    return routes


async def _answer_stream(session: Session, subscription: Subscription, question: str) -> AsyncIterator[str]:
    """The events of one answer as Server-Sent Events, up to its `answer.done`."""
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
    """Queue the question of a `question.ask` message.

    Args:
        session: receives the question.
        message: as received on the event socket.
        client: the subscriber that sent it.

    Raises:
        InvalidRequest: a field has the wrong type. Also what `QuestionQueue.ask` raises.
    """
    text, number = message.get("text"), message.get("id")
    deadline, image = message.get("deadline_ms"), message.get("image")
    if not isinstance(text, str):
        raise InvalidRequest("question.ask requires a string `text`", code="empty_question")
    if deadline is not None and not isinstance(deadline, int | float):
        raise InvalidRequest("deadline_ms must be a number", code="bad_deadline")
    session.answering.queue.ask(
        question_queue.QuestionRequest(
            text,
            question_id=str(number)[:_ID_LENGTH] if number is not None else None,
            deadline_ms=deadline,
            audience=str(message.get("audience", "asker")),
            client=client,
            image=decode_image(image) if isinstance(image, str) else None,
            form=response_schema.read(message.get("response_format")),
        )
    )


def decode_image(text: str | None) -> bytes | None:
    """Decode a JPEG or PNG from base64 or a data URL, and check its signature; None stays None.

    Raises:
        InvalidRequest: "bad_image".
    """
    if text is None:
        return None
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        image = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The image is not valid base64", code="bad_image") from None
    if not image.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        raise InvalidRequest("The image must be JPEG or PNG", code="bad_image")
    return image
