"""Messages that a subscriber sends on the event socket: parsing, permissions, dispatch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import ValidationError

from streamsvc.answers import watches
from streamsvc.core import json_input
from streamsvc.core.config import Limits
from streamsvc.core.errors import InvalidRequest, StreamsvcError, TooLarge
from streamsvc.core.types import Grants
from streamsvc.events.subscription import Subscription
from streamsvc.service import question_routes, rights
from streamsvc.service.auth import root_of
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.service.session_bodies import SessionUpdate
from streamsvc.service.watch_routes import remove_watch

Message = Mapping[str, Any]


class Sender(Protocol):
    """Who has sent a message. `client`: whose private answers go there."""

    @property
    def session(self) -> Session: ...  # noqa: D102

    @property
    def grants(self) -> Grants: ...  # noqa: D102

    @property
    def client(self) -> str: ...  # noqa: D102

    def reply(self, kind: str, body: Message) -> None:
        """Send an event to this sender alone."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One client of the event socket."""

    session: Session
    subscription: Subscription
    grants: Grants

    @property
    def client(self) -> str:
        """Whose private answers come here."""
        return self.subscription.client

    def reply(self, kind: str, body: Message) -> None:
        """Send an event to this subscriber alone, regardless of its type filter."""
        self.session.log.whisper(self.subscription, kind, body)


async def handle(service: Service, subscriber: Sender, text: str) -> None:
    """Handle one message; the reply, if any, is an event.

    Raises:
        InvalidRequest, TooLarge, Forbidden, and what the requested action raises. An error about a question
            names it. The socket stays open.
    """
    limits = subscriber.session.settings.limits
    message = _parse(text)
    try:
        _check_size(text, message, limits)
        if not await _relayed(service, subscriber, message, text):
            await _act(service, subscriber, message)
    except StreamsvcError as error:
        if message.get("type") in ("question.ask", "question.cancel"):
            error.question_id = _id(message)
        raise


def _id(message: Message) -> str | None:
    """The id by which the client knows its question; None: it gave none."""
    number = message.get("id")
    named = isinstance(number, str | int | float) and not isinstance(number, bool)
    return str(number)[: question_routes.ID_LENGTH] if named else None


def _check_size(text: str, message: Message, limits: Limits) -> None:
    """Raise TooLarge over the limit; the image of a question has one of its own."""
    image = message.get("image") if message.get("type") == "question.ask" else None
    size = len(text) - (len(image) if isinstance(image, str) else 0)
    if size > limits.message_bytes:
        raise TooLarge(f"A message may have at most {limits.message_bytes} bytes, besides an image")


async def _relayed(service: Service, sender: Sender, message: Message, text: str) -> bool:
    """Whether the session lives on another node, which has handled the message."""
    kind = message.get("type")
    if service.part is None or not isinstance(kind, str) or kind not in rights.MESSAGES or kind == "ping":
        return False
    replies = await service.part.relay(sender.session.id, text, sender.grants, sender.client)
    for kind, body in replies or ():
        sender.reply(kind, body)
    return replies is not None


async def _act(service: Service, subscriber: Sender, message: Message) -> None:
    session = subscriber.session
    kind = message.get("type")
    if permission := rights.MESSAGES.get(kind) if isinstance(kind, str) else None:
        rights.require(subscriber.grants, permission)
    match kind:
        case "ping":
            subscriber.reply("pong", {"id": str(message["id"])[:64]} if "id" in message else {})
        case "question.ask":
            question_routes.ask(session, message, subscriber.client)
        case "question.cancel":
            if (number := _id(message)) is None:
                raise InvalidRequest("question.cancel requires the `id` of the question", code="bad_id")
            session.answering.cancel(number, subscriber.client)
        case "watch.add":
            when, cooldown = _watch_fields(message, "when")
            watch = await session.watches.add(when, cooldown)
            subscriber.reply(
                "watch.added",
                {"watch_id": watch["id"], "when": watch["when"], "understood": watch["understood"]},
            )
        case "watch.remove":
            watch_id, _ = _watch_fields(message, "watch_id")
            watch = remove_watch(session.watches, watch_id, subscriber.grants)
            subscriber.reply("watch.removed", {"watch_id": watch["id"], "when": watch["when"]})
        case "session.update":
            service.updates.take(f"{session.id} {root_of(subscriber.grants.holder)}")
            _update(message).apply(service.sessions, session.id)
        case _:
            raise InvalidRequest(
                f"Unknown message type {str(kind)[:64]!r}; the types are {', '.join(rights.MESSAGES)}",
                code="unknown_type",
            )


def _parse(text: str) -> Message:
    """The message; its size is bounded by the WebSocket itself (`app.listening`)."""
    try:
        message = json_input.parse(text)
    except ValueError:
        raise InvalidRequest("A message must be one JSON object", code="bad_json") from None
    if not isinstance(message, Mapping):
        raise InvalidRequest("A message must be one JSON object", code="bad_json")
    return message


def _watch_fields(message: Message, name: str) -> tuple[str, float]:
    """The string field `name` and the cooldown in seconds."""
    value = message.get(name)
    cooldown = message.get("cooldown_s", watches.COOLDOWN)
    is_number = isinstance(cooldown, int | float) and not isinstance(cooldown, bool)
    if not isinstance(value, str) or not is_number or not 0 <= cooldown <= watches.MAX_COOLDOWN:
        raise InvalidRequest(
            "watch.add requires a string `when` (and a number `cooldown_s` up to "
            f"{watches.MAX_COOLDOWN}, if given); "
            "watch.remove requires a string `watch_id`",
            code="bad_watch",
        )
    return value, cooldown


def _update(message: Message) -> SessionUpdate:
    """The changes of a session.update."""
    try:
        return SessionUpdate.model_validate({name: message[name] for name in message if name != "type"})
    except ValidationError as error:
        found = error.errors()[0]
        place = ".".join(str(part) for part in found["loc"])[:64]
        raise InvalidRequest(
            "session.update takes language, vocabulary, replace and translate, as PATCH /v1/sessions/{id}; "
            f"{place}: {found['msg']}",
            code="bad_update",
        ) from None
