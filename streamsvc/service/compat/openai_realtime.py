"""OpenAI's Realtime transcription protocol over a line: `GET /v1/realtime?intent=transcription`.

Source: the types of the official Python client (openai/types/realtime, 3.57) and the guide to realtime transcription.
`Turns` translates events and does no I/O; `serve` is the edge. Where we differ, and say so:

  - deltas come while somebody speaks, before the item is committed; the item is added (in_progress) before its first delta;
  - threshold and padding of turn detection are the service's own, its silence is between 0.1 and 5 s: session.updated shows what holds;
  - noise reduction and log probabilities are accepted and not done: session.updated shows null.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import WebSocket

from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.service.compat.audio_session import Bounds, Event, Expired, Line, SessionOver
from streamsvc.service.compat.openai_session import FORMATS, ClientError, Configuration
from streamsvc.service.compat.websocket import Idle, farewell, hear, opened, say, tell, together
from streamsvc.service.service import Service
from streamsvc.speech.vad import PREROLL

Message = dict[str, Any]

LEAST = 0.1  # seconds: a commit of less audio is an error there too


# --- events ---------------------------------------------------------------------------------------------------------


class Turns:
    """Translates events into items: one for each utterance, or for each commit where turns are not detected.

    A delta is an increment of words that will never change: the stable first words of the open caption, then closed ones.
    """

    def __init__(self) -> None:
        self.detect = True
        self._item: str | None = None
        self._previous: str | None = None
        self._added = False
        self._text = ""
        self._shown = 0  # words of the open caption that were sent
        self._since = 0.0  # client seconds at which the item began
        self._until: float | None = None  # ... and ended: it has been committed and is being flushed
        self._discarding = False
        self._gap = ""  # why audio of this item was not transcribed

    def take(self, event: Event) -> list[Message]:
        """What one of our events is to the client."""
        kind = event["type"]
        if kind == "session.flushed":
            return self._flushed()
        if kind == "session.closed":
            return self._closed(event)
        if self._discarding:
            return []
        if kind == "speech.started":
            return self._started(event["at"])
        if kind in ("caption.partial", "caption.final"):
            return self._caption(event)
        if kind == "speech.stopped":
            return self._stopped(event["at"])
        if kind == "caption.gap":
            self._gap = event["reason"]
            told = f"audio from {event['start']:.2f} to {event['end']:.2f} s was not transcribed: {event['reason']}"
            return [failed({"type": "server_error", "code": "audio_skipped", "message": told})]
        return []

    def commit(self, seconds: float) -> list[Message]:
        """The client ends the item; what is flushed after this belongs to it. `seconds`: of audio so far."""
        self._until = seconds
        item = self._open(self._since)
        return [
            message("input_audio_buffer.committed", item_id=item, previous_item_id=self._previous),
            *self._add(),
        ]

    def clear(self, seconds: float) -> None:
        """The client takes back what is not committed; what is flushed after this is for nobody."""
        self._reset(seconds)
        self._discarding = True

    def _started(self, at: float) -> list[Message]:
        if not self.detect or self._until is not None:
            return []
        item = self._open(at)
        return [
            message(
                "input_audio_buffer.speech_started",
                audio_start_ms=max(0, round((at - PREROLL) * 1000)),
                item_id=item,
            )
        ]

    def _caption(self, event: Event) -> list[Message]:
        final = event["type"] == "caption.final"
        words = [word["text"] for word in event["words"]]
        last = len(words) if final else event["stable"]
        new = words[self._shown : last]
        self._shown = max(0, self._shown - len(words)) if final else max(self._shown, last)
        if not new:
            return []
        item = self._open(event["start"])
        delta = (" " if self._text else "") + " ".join(new)
        self._text += delta
        told = message(
            "conversation.item.input_audio_transcription.delta", item_id=item, content_index=0, delta=delta
        )
        return [*self._add(), told]

    def _stopped(self, at: float) -> list[Message]:
        if not self.detect or self._until is not None or self._item is None:
            return []
        return [
            message("input_audio_buffer.speech_stopped", audio_end_ms=round(at * 1000), item_id=self._item),
            message("input_audio_buffer.committed", item_id=self._item, previous_item_id=self._previous),
            *self._add(),
            *self._complete(at),
        ]

    def _flushed(self) -> list[Message]:
        self._discarding, self._shown = False, 0
        return self._complete(self._until) if self._until is not None else []

    def _closed(self, event: Event) -> list[Message]:
        if event["reason"] == "failed" and self._item is not None:
            self._gap, self._text, self._until = "failed", "", self._since
        return self._flushed()

    def _open(self, at: float) -> str:
        if self._item is None:
            self._item, self._since = f"item_{secrets.token_hex(10)}", at
        return self._item

    def _add(self) -> list[Message]:
        if self._added:
            return []
        self._added = True
        return [
            message(
                "conversation.item.added", item=self._shape("in_progress"), previous_item_id=self._previous
            )
        ]

    def _complete(self, at: float) -> list[Message]:
        item = self._item
        done = message(
            "conversation.item.done", item=self._shape("completed"), previous_item_id=self._previous
        )
        kind = "conversation.item.input_audio_transcription."
        if self._gap and not self._text:
            error = {
                "type": "server_error",
                "code": "transcription_failed",
                "message": f"not transcribed: {self._gap}",
                "param": None,
            }
            told = message(f"{kind}failed", item_id=item, content_index=0, error=error)
        else:
            usage = {"type": "duration", "seconds": round(max(0.0, at - self._since), 2)}
            told = message(
                f"{kind}completed", item_id=item, content_index=0, transcript=self._text, usage=usage
            )
        self._previous = item
        self._reset(at)
        return [done, told]

    def _reset(self, at: float) -> None:
        self._item, self._added, self._text, self._since, self._until, self._gap = (
            None,
            False,
            "",
            at,
            None,
            "",
        )

    def _shape(self, status: str) -> Message:
        content = [{"type": "input_audio", "transcript": self._text if status == "completed" else None}]
        return {
            "id": self._item,
            "object": "realtime.item",
            "type": "message",
            "status": status,
            "role": "user",
            "content": content,
        }


def message(kind: str, **fields: Any) -> Message:
    """A server event with an id."""
    return {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **fields}


def failed(error: Mapping[str, Any], client_event: object = None) -> Message:
    """An error event; `client_event`: the id of the client's event that caused it."""
    return message("error", error={"code": None, "param": None, **error, "event_id": client_event})


def body(error: StreamsvcError) -> Message:
    """The error object, at the handshake and in error events."""
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(error.status, error.code)
    kind = "invalid_request_error" if error.status in (401, 404) else error.type
    return {"type": kind, "code": code, "message": error.message, "param": getattr(error, "param", None)}


# --- the edge -------------------------------------------------------------------------------------------------------


class Conversation:
    """One client: its configuration, its line and its items."""

    def __init__(self, service: Service, socket: WebSocket, model: str | None, bounds: Bounds) -> None:
        self._socket, self._bounds = socket, bounds
        self.configuration = Configuration(service.settings.hear, model)
        self.line = Line(service, FORMATS["audio/pcm"], bounds=bounds)
        self.turns = Turns()
        self._number = f"sess_{secrets.token_hex(10)}"
        self._expires = math.ceil(clock.utc().timestamp() + bounds.audio_seconds)
        self._committed = 0.0  # seconds of audio at the last commit or clear

    async def run(self) -> None:
        """Talk until one side leaves. The socket is accepted, the line open."""
        try:
            await say(
                self._socket,
                message("session.created", session=self.configuration.shown(self._number, self._expires)),
            )
            error = await together(self._listen(), tell(self.line, self._socket, self.turns.take))
            if error is not None:
                await together(say(self._socket, failed(body(error))))
                await farewell(self._socket, error.close_code, error.code)
        finally:
            await self.line.close()

    async def _listen(self) -> None:
        while True:
            text = await hear(self._socket, self._bounds.idle_seconds)
            client_event: object = None
            try:
                event = self._read(text)
                client_event = event.get("event_id")
                await self._do(event)
            except (Expired, Idle, SessionOver):
                raise
            except InvalidRequest as error:
                await say(self._socket, failed(body(error), client_event))

    def _read(self, text: str | bytes) -> Mapping[str, Any]:
        if len(text) > self._bounds.message_bytes:
            raise ClientError(
                f"a message has at most {self._bounds.message_bytes} bytes", "message_too_large"
            )
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            raise ClientError("the message is no valid JSON", "invalid_json") from None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise ClientError(
                "a message is a JSON object with a 'type'", "missing_required_parameter", "type"
            )
        return event

    async def _do(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                await self._update(event.get("session"))
            case "input_audio_buffer.append":
                await self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                self.turns.clear(self.line.seconds)
                await self.line.flush()
                self._committed = self.line.seconds
                await say(self._socket, message("input_audio_buffer.cleared"))
            case kind:
                served = "session.update, input_audio_buffer.append, input_audio_buffer.commit, input_audio_buffer.clear"
                raise ClientError(
                    f"Invalid value: {kind[:64]!r}. A transcription session takes: {served}.",
                    "invalid_value",
                    "type",
                )

    async def _update(self, session: object) -> None:
        if session is None:
            raise ClientError(
                "Missing required parameter: 'session'.", "missing_required_parameter", "session"
            )
        now = self.configuration
        now.update(session)
        self.turns.detect = now.detect
        await self.line.change(FORMATS[now.format], now.language, now.vocabulary, now.hangover)
        await say(self._socket, message("session.updated", session=now.shown(self._number, self._expires)))

    async def _append(self, audio: object) -> None:
        if self.configuration.transcription is None:
            told = "audio came before transcription was configured: send session.update with audio.input.transcription first"
            raise ClientError(told, "transcription_not_configured", "session.audio.input.transcription")
        try:
            samples = base64.b64decode(audio if isinstance(audio, str) else "?", validate=True)
        except (binascii.Error, ValueError):
            raise ClientError(
                "Invalid 'audio'. Expected base64-encoded audio bytes.", "invalid_value", "audio"
            ) from None
        await self.line.push(samples)

    async def _commit(self) -> None:
        held = self.line.seconds - self._committed
        if held < LEAST:
            told = f"Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but it has {held * 1000:.0f}ms."
            raise ClientError(told, "input_audio_buffer_commit_empty")
        self._committed = self.line.seconds
        await say(self._socket, *self.turns.commit(self.line.seconds))
        await self.line.flush()


def check(intent: str | None) -> None:
    """Raise InvalidRequest unless transcription is asked for."""
    if intent != "transcription":
        raise ClientError(
            "only transcription sessions are served: connect with ?intent=transcription",
            "unsupported_intent",
            "intent",
        )


async def serve(service: Service, socket: WebSocket, model: str | None, bounds: Bounds) -> None:
    """Serve a client that was let in.

    Raises:
        CapacityError, ClientError: before the socket is accepted.
    """
    conversation = Conversation(service, socket, model, bounds)
    await opened(
        conversation.line, socket, "realtime" if "realtime" in socket.scope.get("subprotocols", ()) else None
    )
    await conversation.run()
