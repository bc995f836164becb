"""Questions by HTTP and by the event socket: validation, answers in the response."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from streamsvc.answers import question_queue, response_schema
from streamsvc.core.errors import Cancelled, DeadlineMissed, InvalidRequest, StreamsvcError
from streamsvc.core.types import By, DeclineReason, Outcome, Question
from streamsvc.events import schema
from streamsvc.events.subscription import Subscription
from streamsvc.service.audience import audience_of, is_shared
from streamsvc.service.auth import Auth
from streamsvc.service.closing_stream import ClosingStream
from streamsvc.service.rights import share_of
from streamsvc.service.session import Session

SSE_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
ID_LENGTH = 64  # characters of a question id or a client id that the client chose; security limit
_GRACE = 10.0  # seconds after a question's deadline at which its stream is given up


class NewQuestion(BaseModel):
    """Body of POST /v1/sessions/{id}/questions."""

    model_config = ConfigDict(extra="forbid")

    text: str
    deadline_ms: float | None = None
    audience: Literal["asker", "session"] = "asker"
    client: str | None = Field(
        None,
        max_length=ID_LENGTH,
        description="the `client` of your event stream, to get the answer there; "
        "without a token of your own, a secret of 16 characters or more",
    )
    image: str | None = Field(None, description="JPEG or PNG, as base64 or a data URL")
    response_format: dict[str, Any] | None = Field(
        None, description="as in OpenAI's chat completions: json_schema, json_object or text"
    )


class Accepted(BaseModel):
    """A question that is not answered yet."""

    question_id: str


class AnswerBody(BaseModel):
    """A whole answer: the body of its `answer.done` event. What does not apply is absent, never null.

    `reason`: of the outcome declined alone. `error`: why there is no answer.
    """

    question_id: str
    text: str
    outcome: Outcome
    supported: bool
    evidence: list[dict[str, Any]]
    reason: DeclineReason | SkipJsonSchema[None] = Field(default_factory=lambda: None)
    by: By | SkipJsonSchema[None] = Field(default_factory=lambda: None)
    error: dict[str, Any] | SkipJsonSchema[None] = Field(default_factory=lambda: None)


def router(find: Callable[[str], Awaitable[Session]], auth: Auth) -> APIRouter:
    """The HTTP routes.

    Args:
        find: a session by its id; raises NotFound.
        auth: says whose a question is: a token reads and cancels its own alone. Where many share the API key
            or an open server, the id of a question is the secret.
    """
    routes = APIRouter(prefix="/v1/sessions/{session_id}/questions", tags=["sessions"])

    @routes.post("", status_code=202, response_model=Accepted)
    async def question(session_id: str, body: NewQuestion, request: Request) -> Response:
        """Ask a question: 202 with its id; with `Accept: text/event-stream`, the answer.

        Also of a session that has ended. With the audience `asker` the answer is no event for others: read it
        at the question's address, or name the `client` of your event stream.
        """
        number = question_queue.make_id()
        with _about(number):
            session = await find(session_id)
            grants = auth.of(request.scope)
            audience = audience_of(grants, body.client or "")
            new = question_queue.QuestionRequest(
                body.text,
                question_id=number,
                deadline_ms=body.deadline_ms,
                audience=body.audience,
                client=audience,
                asker=audience if is_shared(grants) else grants.holder,
                image=decode_image(body.image),
                form=response_schema.read(body.response_format),
            )
            if "text/event-stream" not in request.headers.get("accept", ""):
                _ask(session, new, grants.holder)
                path = f"/v1/sessions/{quote(session.id, safe='')}/questions/{number}"
                return JSONResponse(
                    {"question_id": number}, 202, {"Location": session.settings.server.address(path)}
                )
            subscription = session.log.subscribe(["answer.*"], audience, lasting=True, share=share_of(grants))
            try:
                queued = _ask(session, new, grants.holder)
            except BaseException:
                session.log.unsubscribe(subscription)
                raise
            return ClosingStream(
                _answer_stream(session, subscription, queued),
                lambda: session.log.unsubscribe(subscription),
                "text/event-stream",
                SSE_HEADERS,
            )

    @routes.get(
        "/{question_id}",
        response_model=AnswerBody,
        response_model_exclude_unset=True,
        responses={202: {"model": Accepted}},
    )
    async def answer(session_id: str, question_id: str, request: Request) -> Any:
        """The answer to a question of your own, or of the audience `session`; 202: it is not there yet."""
        with _about(question_id):
            body = (await find(session_id)).questions.kept.read(question_id, auth.of(request.scope).holder)
        return JSONResponse({"question_id": question_id}, 202) if body is None else body

    @routes.delete("/{question_id}", status_code=204)
    async def cancel(session_id: str, question_id: str, request: Request) -> None:
        """Cancel an unanswered question of your own (404: none with this id).

        Its `answer.done` has the reason and the error `cancelled`.
        """
        with _about(question_id):
            session = await find(session_id)
            asker = session.questions.kept.asker(question_id, auth.of(request.scope).holder)
            session.answering.cancel(question_id, asker)

    return routes


@contextlib.contextmanager
def _about(question_id: str) -> Iterator[None]:
    """Give every error raised within the id of the question that it is about."""
    try:
        yield
    except StreamsvcError as error:
        error.question_id = question_id[:ID_LENGTH]
        raise


def _ask(session: Session, new: question_queue.QuestionRequest, holder: str) -> Question:
    """Queue a question, and keep its answer for the holder of what it was asked with, or for all."""
    question = session.questions.ask(new)
    audience = new.client if new.audience == "asker" else None
    session.questions.kept.expect(question.id, holder, new.asker or "", audience)
    return question


async def _answer_stream(
    session: Session, subscription: Subscription, question: Question
) -> AsyncGenerator[str, None]:
    """The events of one answer as Server-Sent Events, up to its `answer.done`; else an `error` ends it.

    It ends in any case soon after the deadline, for a question dies with its session.
    """
    try:
        while True:
            async with asyncio.timeout_at(question.deadline + _GRACE):
                batch = await subscription.next()
            for event in [json.loads(text) for _, text in batch or ()]:
                if event["question_id"] == question.id:
                    yield _server_sent(event)
                    if event["type"] == "answer.done":
                        return
            if batch is None:
                raise Cancelled("the session was erased before this question was answered")
    except TimeoutError:
        yield _failed(question, DeadlineMissed("no answer came in time"))
    except StreamsvcError as error:
        yield _failed(question, error)


def _failed(question: Question, error: StreamsvcError) -> str:
    error.question_id = question.id
    return _server_sent(schema.refusal(error.body()))


def _server_sent(event: Mapping[str, Any]) -> str:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"


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
    if number is not None and (isinstance(number, bool) or not isinstance(number, str | int | float)):
        raise InvalidRequest("id must be text or a number", code="bad_id")
    if deadline is not None and (isinstance(deadline, bool) or not isinstance(deadline, int | float)):
        raise InvalidRequest("deadline_ms must be a number", code="bad_deadline")
    if image is not None and not isinstance(image, str):
        raise InvalidRequest("image must be text: base64, or a data URL", code="bad_image")
    session.questions.ask(
        question_queue.QuestionRequest(
            text,
            question_id=str(number)[:ID_LENGTH] if number is not None else None,
            deadline_ms=deadline,
            audience=str(message.get("audience", "asker")),
            client=client,
            image=decode_image(image),
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
