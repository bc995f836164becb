"""OpenAI's Realtime transcription protocol: `GET /v1/realtime?intent=transcription`.

Source: the types of the official Python client (openai/types/realtime, 3.57) and the guide to realtime
transcription. `ItemTranslator` translates events and does no I/O. Differences from OpenAI:

  - Deltas are sent during speech, before the item is committed. The item is added (in_progress) before its
    first delta.
  - Threshold and padding of turn detection are the service's own; its silence is clamped to 0.1 to 5 s.
    session.updated shows the effective values.
  - Noise reduction and log probabilities are accepted without effect; session.updated shows null.
"""

from __future__ import annotations

import base64
import binascii
import math
import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import WebSocket

from streamsvc.core import clock, json_input
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.service.compat.audio_session import (
    AudioSession,
    ConnectionLimits,
    Event,
    Expired,
    SessionOver,
)
from streamsvc.service.compat.openai_session import FORMATS, ClientError, Configuration
from streamsvc.service.compat.websocket import (
    Idle,
    accept,
    close,
    forward_events,
    receive,
    run_until_first_ends,
    send,
)
from streamsvc.service.service import Service
from streamsvc.speech.vad import PREROLL

Message = dict[str, Any]

MIN_COMMIT = 0.1  # seconds of audio; OpenAI rejects a shorter commit, too
_TRANSCRIPTION = "conversation.item.input_audio_transcription"


# --- events -------------------------------------------------------------------------------------------------


class ItemTranslator:
    """Translates a session's events into items.

    One item per utterance; without turn detection, one per commit. A delta contains words that will not
    change: first the stable words of the open caption, then those of closed captions.
    """

    def __init__(self) -> None:
        self.detect_turns = True
        self._item: str | None = None
        self._previous: str | None = None
        self._added = False  # conversation.item.added has been sent
        self._text = ""
        self._sent_words = 0  # words of the open caption that were sent
        self._since = 0.0  # client seconds at which the item began
        self._until: float | None = None  # client seconds of the commit that is being flushed
        self._discarding = False  # the flush of a clear is pending
        self._gap = ""  # why audio of this item was not transcribed

    def translate(self, event: Event) -> list[Message]:
        """The messages for one event."""
        match event["type"]:
            case "session.flushed":
                return self._flushed()
            case "session.closed":
                return self._closed(event)
        return [] if self._discarding else self._speech_event(event)

    def commit(self, seconds: float) -> list[Message]:
        """Commit the item at `seconds` of audio. Events of the following flush belong to it."""
        self._until = seconds
        self._open_item(self._since)
        return [self._committed(), *self._add()]

    def clear(self, seconds: float) -> None:
        """Discard uncommitted audio at `seconds` of audio, and the events of the following flush."""
        self._reset(seconds)
        self._discarding = True

    def _speech_event(self, event: Event) -> list[Message]:
        match event["type"]:
            case "speech.started":
                return self._started(event["at"])
            case "caption.partial" | "caption.final":
                return self._caption(event)
            case "speech.stopped":
                return self._stopped(event["at"])
            case "caption.gap":
                start, end, self._gap = event["start"], event["end"], event["reason"]
                text = f"Audio from {start:.2f} to {end:.2f} s was not transcribed: {self._gap}"
                return [error_event({"type": "server_error", "code": "audio_skipped", "message": text})]
        return []

    def _started(self, at: float) -> list[Message]:
        if not self.detect_turns or self._until is not None:
            return []
        start_ms = max(0, round((at - PREROLL) * 1000))
        item = self._open_item(at)
        return [
            server_event("input_audio_buffer.speech_started", {"audio_start_ms": start_ms, "item_id": item})
        ]

    def _caption(self, event: Event) -> list[Message]:
        final = event["type"] == "caption.final"
        words = [word["text"] for word in event["words"]]
        last = len(words) if final else event["stable"]
        new = words[self._sent_words : last]
        if final:
            self._sent_words = max(0, self._sent_words - len(words))
        else:
            self._sent_words = max(self._sent_words, last)
        if not new:
            return []
        item = self._open_item(event["start"])
        delta = (" " if self._text else "") + " ".join(new)
        self._text += delta
        fields = {"item_id": item, "content_index": 0, "delta": delta}
        return [*self._add(), server_event(f"{_TRANSCRIPTION}.delta", fields)]

    def _stopped(self, at: float) -> list[Message]:
        if not self.detect_turns or self._until is not None or self._item is None:
            return []
        fields = {"audio_end_ms": round(at * 1000), "item_id": self._item}
        return [
            server_event("input_audio_buffer.speech_stopped", fields),
            self._committed(),
            *self._add(),
            *self._complete(at),
        ]

    def _flushed(self) -> list[Message]:
        self._discarding = False
        self._sent_words = 0
        return self._complete(self._until) if self._until is not None else []

    def _closed(self, event: Event) -> list[Message]:
        if event["reason"] == "failed" and self._item is not None:
            self._gap = "failed"
            self._text = ""
            self._until = self._since
        return self._flushed()

    def _open_item(self, at: float) -> str:
        if self._item is None:
            self._item = f"item_{secrets.token_hex(10)}"
            self._since = at
        return self._item

    def _committed(self) -> Message:
        fields = {"item_id": self._item, "previous_item_id": self._previous}
        return server_event("input_audio_buffer.committed", fields)

    def _add(self) -> list[Message]:
        if self._added:
            return []
        self._added = True
        fields = {"item": self._shape("in_progress"), "previous_item_id": self._previous}
        return [server_event("conversation.item.added", fields)]

    def _complete(self, at: float) -> list[Message]:
        fields = {"item": self._shape("completed"), "previous_item_id": self._previous}
        done = server_event("conversation.item.done", fields)
        transcription: Message = {"item_id": self._item, "content_index": 0}
        if self._gap and not self._text:
            transcription["error"] = {
                "type": "server_error",
                "code": "transcription_failed",
                "message": f"Not transcribed: {self._gap}",
                "param": None,
            }
            result = server_event(f"{_TRANSCRIPTION}.failed", transcription)
        else:
            transcription["transcript"] = self._text
            transcription["usage"] = {"type": "duration", "seconds": round(max(0.0, at - self._since), 2)}
            result = server_event(f"{_TRANSCRIPTION}.completed", transcription)
        self._previous = self._item
        self._reset(at)
        return [done, result]

    def _reset(self, at: float) -> None:
        self._item = None
        self._added = False
        self._text = ""
        self._since = at
        self._until = None
        self._gap = ""

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


def server_event(kind: str, fields: Mapping[str, Any]) -> Message:
    """A server event with a new id."""
    return {"type": kind, "event_id": f"event_{secrets.token_hex(10)}", **fields}


def error_event(error: Mapping[str, Any], client_event: object = None) -> Message:
    """An error event. client_event: id of the client event that caused it."""
    fields = {"code": None, "param": None, **error, "event_id": client_event}
    return server_event("error", {"error": fields})


def error_body(error: StreamsvcError) -> Message:
    """The error object of a refused handshake and of error events."""
    return {
        "type": "invalid_request_error" if error.status in (401, 404) else error.type,
        "code": {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(error.status, error.code),
        "message": error.message,
        "param": error.param if isinstance(error, ClientError) else None,
    }


# --- the connection -----------------------------------------------------------------------------------------


class _Connection:
    """One client: its configuration, its audio session and its translator."""

    def __init__(
        self, service: Service, socket: WebSocket, model: str | None, limits: ConnectionLimits
    ) -> None:
        self.configuration = Configuration(service.settings.hear, model)
        holder = service.auth.of(socket.scope).holder
        self.audio = AudioSession(service, FORMATS["audio/pcm"], limits=limits, holder=holder)
        self.translator = ItemTranslator()
        self._socket = socket
        self._limits = limits
        self._id = f"sess_{secrets.token_hex(10)}"
        self._expires = math.ceil(clock.utc().timestamp() + limits.audio_seconds)
        self._committed = 0.0  # seconds of audio at the last commit or clear

    async def run(self) -> None:
        """Serve until either side ends the connection, then close the audio session."""
        try:
            await self._send_session("session.created")
            error = await run_until_first_ends(
                self._receive_messages(),
                forward_events(self.audio, self._socket, self.translator.translate),
            )
            if error is not None:
                await run_until_first_ends(send(self._socket, error_event(error_body(error))))
                await close(self._socket, error.close_code, error.code)
        finally:
            await self.audio.close()

    async def _send_session(self, kind: str) -> None:
        session = self.configuration.session(self._id, self._expires)
        await send(self._socket, server_event(kind, {"session": session}))

    async def _receive_messages(self) -> None:
        while True:
            text = await receive(self._socket, self._limits.idle_seconds)
            client_event: object = None
            try:
                event = self._parse(text)
                client_event = event.get("event_id")
                await self._handle(event)
            except (Expired, Idle, SessionOver):
                raise
            except InvalidRequest as error:
                await send(self._socket, error_event(error_body(error), client_event))

    def _parse(self, text: str | bytes) -> Mapping[str, Any]:
        limit = self._limits.message_bytes
        if len(text) > limit:
            raise ClientError(f"A message may have at most {limit} bytes", "message_too_large")
        try:
            event = json_input.parse(text)
        except ValueError:
            raise ClientError("The message is not valid JSON", "invalid_json") from None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise ClientError(
                "A message must be a JSON object with a 'type'", "missing_required_parameter", "type"
            )
        return event

    async def _handle(self, event: Mapping[str, Any]) -> None:
        match event["type"]:
            case "session.update":
                await self._update(event.get("session"))
            case "input_audio_buffer.append":
                await self._append(event.get("audio"))
            case "input_audio_buffer.commit":
                await self._commit()
            case "input_audio_buffer.clear":
                await self._clear()
            case kind:
                raise ClientError(
                    f"Invalid value: {kind[:64]!r}. A transcription session supports: session.update, "
                    "input_audio_buffer.append, input_audio_buffer.commit, input_audio_buffer.clear.",
                    "invalid_value",
                    "type",
                )

    async def _update(self, session: object) -> None:
        if session is None:
            raise ClientError(
                "Missing required parameter: 'session'.", "missing_required_parameter", "session"
            )
        configuration = self.configuration
        configuration.update(session)
        self.translator.detect_turns = configuration.detect_turns
        await self.audio.reconfigure(FORMATS[configuration.format], configuration.speech)
        await self._send_session("session.updated")

    async def _append(self, audio: object) -> None:
        if self.configuration.transcription is None:
            raise ClientError(
                "Transcription is not configured: first send session.update with audio.input.transcription",
                "transcription_not_configured",
                "session.audio.input.transcription",
            )
        try:
            samples = base64.b64decode(audio if isinstance(audio, str) else "?", validate=True)
        except (binascii.Error, ValueError):
            raise ClientError(
                "Invalid 'audio'. Expected base64-encoded audio bytes.", "invalid_value", "audio"
            ) from None
        await self.audio.push(samples)

    async def _commit(self) -> None:
        seconds = self.audio.seconds - self._committed
        if seconds < MIN_COMMIT:
            raise ClientError(
                "Error committing input audio buffer: buffer too small. "
                f"Expected at least 100ms of audio, but it has {seconds * 1000:.0f}ms.",
                "input_audio_buffer_commit_empty",
            )
        self._committed = self.audio.seconds
        await send(self._socket, *self.translator.commit(self.audio.seconds))
        await self.audio.flush()

    async def _clear(self) -> None:
        self.translator.clear(self.audio.seconds)
        await self.audio.flush()
        self._committed = self.audio.seconds
        await send(self._socket, server_event("input_audio_buffer.cleared", {}))


def check_intent(intent: str | None) -> None:
    """Raise ClientError unless the intent is transcription."""
    if intent != "transcription":
        raise ClientError(
            "Only transcription sessions are supported: connect with ?intent=transcription",
            "unsupported_intent",
            "intent",
        )


async def serve(service: Service, socket: WebSocket, model: str | None, limits: ConnectionLimits) -> None:
    """Serve an authorised client.

    Raises:
        CapacityError, ClientError: before the socket is accepted.
    """
    connection = _Connection(service, socket, model, limits)
    subprotocol = "realtime" if "realtime" in socket.scope.get("subprotocols", ()) else None
    await accept(socket, connection.audio, subprotocol)
    await connection.run()
