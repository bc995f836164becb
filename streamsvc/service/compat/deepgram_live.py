"""Deepgram's live protocol: `GET /v1/listen`, upgraded to a WebSocket.

Differences from Deepgram:

  - `endpointing` is clamped to 0.1 to 5 s of silence. Without it, or with `true`, the service's own hangover
    applies (`hear.hangover`, 0.5 s), and UtteranceEnd never comes before that silence has passed.
  - A closed segment is sent as an interim result at once, and as a final one when the next words or the end
    of speech are known. So `speech_final` is always on the last words of an utterance, never on an empty
    result.
  - Options that an application relies on (redact, diarize, callback, ...) are refused; hints are ignored.
"""

from __future__ import annotations

import json

from fastapi import WebSocket

from streamsvc.service.compat.audio_session import AudioSession, ConnectionLimits, check_size
from streamsvc.service.compat.deepgram_messages import RequestInfo, ResultTranslator, error_message
from streamsvc.service.compat.deepgram_options import audio_format, parse_options
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

IDLE_SECONDS = 10.0  # without audio or a message; Deepgram closes the socket after this time


class _Connection:
    """One client: its audio session and its translator."""

    def __init__(
        self, service: Service, socket: WebSocket, request: RequestInfo, limits: ConnectionLimits
    ) -> None:
        hear = service.settings.hear
        options = parse_options(socket.query_params, hear)
        holder = service.auth.of(socket.scope).holder
        self.audio = AudioSession(service, audio_format(socket.query_params), options.speech, limits, holder)
        self.translator = ResultTranslator(options, request, options.speech.hangover or hear.hangover)
        self._socket = socket
        self._request = request
        self._limits = limits

    async def run(self) -> None:
        """Serve until either side ends the connection, then close the audio session."""
        try:
            error = await run_until_first_ends(
                self._receive_messages(),
                forward_events(self.audio, self._socket, self.translator.translate),
            )
            if isinstance(error, Idle):
                await close(self._socket, 1011, "NET-0001")
            elif error is not None:
                await run_until_first_ends(send(self._socket, error_message(error.code, error.message)))
                await close(self._socket, error.close_code, error.code)
        finally:
            await self.audio.close()

    async def _receive_messages(self) -> None:
        while True:
            data = await receive(self._socket, IDLE_SECONDS)
            check_size(data, self._limits)
            if isinstance(data, bytes) and data:
                await self.audio.push(data)
                await send(self._socket, *self.translator.overdue(self.audio.seconds))
                continue
            # An empty binary message is the legacy form of CloseStream.
            kind = "CloseStream" if isinstance(data, bytes) else _message_type(data)
            if kind == "CloseStream":
                await self._close_stream()
                return
            await self._control(kind)

    async def _control(self, kind: str | None) -> None:
        match kind:
            case "KeepAlive":
                return
            case "Finalize":
                self.translator.finalizing = True
                await self.audio.flush()
            case "Configure":
                failure = {
                    "type": "ConfigureFailure",
                    "request_id": self._request.id,
                    "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                    "description": "Keyterms are set by the query and apply to the whole stream",
                }
                await send(self._socket, failure)
            case _:
                expected = "Text messages must be JSON: KeepAlive, Finalize, CloseStream or Configure"
                await send(self._socket, error_message("SchemaError", expected))

    async def _close_stream(self) -> None:
        await self.audio.flush()
        metadata = self._request.metadata(self.audio.digest.hexdigest(), self.audio.seconds)
        last = self.translator.overdue(self.audio.seconds)
        await send(self._socket, *last, {"type": "Metadata", **metadata})
        await close(self._socket, 1000)


def _message_type(text: str) -> str | None:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return str(message.get("type")) if isinstance(message, dict) else None


async def serve(service: Service, socket: WebSocket, request_id: str, limits: ConnectionLimits) -> None:
    """Serve an authorised client.

    Raises:
        CapacityError, InvalidRequest: before the socket is accepted.
    """
    request = RequestInfo(request_id, service.settings.hear.model)
    connection = _Connection(service, socket, request, limits)
    offered = socket.scope.get("subprotocols", ())
    chosen = offered[0] if offered and offered[0].lower() in ("token", "bearer") else None
    await accept(socket, connection.audio, chosen, [(b"dg-request-id", request_id.encode())])
    await connection.run()
