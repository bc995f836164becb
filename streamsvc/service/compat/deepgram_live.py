"""Deepgram's live protocol over a line: `GET /v1/listen`, upgraded to a WebSocket.

Source: the types of the official Python client (deepgram/listen/v1, 7.17) and Deepgram's reference. `Options` reads the query,
`Listener` translates events; both do no I/O. `serve` is the edge. Where we differ, and say so:

  - `endpointing` is held between 0.1 and 5 s of silence; where it is not given, or is `true`, the service's own holds
    (`hear.hangover`, 0.5 s), and an UtteranceEnd comes no earlier than that silence;
  - a closed segment comes as an interim result at once, and as final when the next words, or the end of speech, are known:
    so `speech_final` always stands on the last words of an utterance, never on an empty result;
  - options that would change what the application may rely on (redact, diarize, callback, ...) are refused, hints are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import WebSocket
from starlette.datastructures import QueryParams

from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.service.compat.audio_session import Bounds, Event, Format, Line, fits, hangover, spoken
from streamsvc.service.compat.websocket import Idle, farewell, hear, opened, say, tell, together
from streamsvc.service.service import Service

Message = dict[str, Any]

CODECS = {"linear16": "pcm_s16le", "mulaw": "pcm_mulaw", "alaw": "pcm_alaw"}
MODELS = (
    "nova",
    "enhanced",
    "base",
    "general",
    "meeting",
    "phonecall",
    "finance",
    "conversationalai",
    "voicemail",
    "video",
    "whisper",
)
REFUSED = (
    "callback",
    "redact",
    "replace",
    "search",
    "diarize",
    "diarize_model",
    "multichannel",
    "detect_entities",
    "profanity_filter",
)
QUIET = 10.0  # seconds without audio or a message after which Deepgram closes the socket, and so do we
_OFF = ("", "false", "0", "no")


@dataclass(frozen=True, slots=True)
class Options:
    """What the query asks for. `format`: None: not given (a file). `hangover`: seconds of silence that end an utterance, None: the
    service's own. `utterance_end`: seconds, None: not wanted.
    """

    format: Format | None
    language: str | None
    vocabulary: tuple[str, ...]
    interim: bool
    punctuate: bool
    endpointing: bool
    hangover: float | None
    vad_events: bool
    utterance_end: float | None
    utterances: bool


def options(query: QueryParams, heard: Hear, *, live: bool) -> Options:
    """Read and check the query of a live stream, or of a file.

    Raises:
        InvalidRequest: naming the parameter.
    """

    def on(name: str, default: str = "false") -> bool:
        return query.get(name, default).lower() not in _OFF

    for name in REFUSED:
        if on(name):
            raise InvalidRequest(f"{name} is not served here", code="unsupported_option")
    model = query.get("model", "base")
    if model != heard.model and model.lower().split("-")[0] not in MODELS:
        raise InvalidRequest("No such model/language/tier combination found.", code="unknown_model")
    terms = [*query.getlist("keyterm"), *(word.split(":")[0] for word in query.getlist("keywords"))]
    if len(terms) > 100 or sum(map(len, terms)) > 2000:
        raise InvalidRequest(
            "there are at most 100 keyterms with 2000 characters together", code="too_many_keyterms"
        )
    return Options(
        format=audio_format(query) if live else None,
        language=spoken(query.get("language"), heard.model),
        vocabulary=tuple(term for term in terms if term),
        interim=on("interim_results"),
        punctuate=on("punctuate") or on("smart_format"),
        endpointing=on("endpointing", "true") or query.get("endpointing") == "0",  # 0: as soon as possible
        hangover=_silence(query),
        vad_events=on("vad_events"),
        utterance_end=_number(query, "utterance_end_ms", 1000, 5000, "milliseconds") / 1000
        if "utterance_end_ms" in query
        else None,
        utterances=on("utterances"),
    )


def audio_format(query: QueryParams) -> Format:
    """The format that `encoding`, `sample_rate` and `channels` name."""
    encoding = query.get("encoding", "")
    if encoding not in CODECS:
        served = ", ".join(CODECS)
        raise InvalidRequest(
            f"encoding must be given, and be one of {served}; not {encoding[:20]!r}",
            code="unsupported_encoding",
        )
    if query.get("channels", "1") != "1":
        raise InvalidRequest("channels must be 1", code="unsupported_channels")
    return Format(CODECS[encoding], _number(query, "sample_rate", 8000, 48_000, "Hz"))


def _silence(query: QueryParams) -> float | None:
    text = query.get("endpointing", "true").lower()
    return (
        None
        if text in ("true", *_OFF) and text != "0"
        else hangover(_number(query, "endpointing", 0, 999_999_999, "milliseconds"))
    )


def _number(query: QueryParams, name: str, least: int, most: int, unit: str) -> int:
    text = query.get(name, "")
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not least <= int(text) <= most:
        raise InvalidRequest(f"{name} must be a number from {least} to {most} ({unit})", code="bad_parameter")
    return int(text)


# --- shapes that live streams and files share -----------------------------------------------------------------------


def alternative(words: Sequence[Mapping[str, Any]], punctuate: bool) -> Message:
    """Words of ours as one alternative: transcript, confidence, words."""
    told = [_word(word, punctuate) for word in words]
    told = [word for word in told if word["word"]]
    return {
        "transcript": " ".join(word["punctuated_word"] if punctuate else word["word"] for word in told),
        "confidence": round(sum(word["confidence"] for word in told) / len(told), 4) if told else 0.0,
        "words": told,
    }


def _word(word: Mapping[str, Any], punctuate: bool) -> Message:
    text = word["text"].strip()
    first = next((place for place, char in enumerate(text) if char.isalnum()), len(text))
    last = next((place for place, char in enumerate(reversed(text)) if char.isalnum()), 0)
    told = {
        "word": text[first : len(text) - last].lower(),
        "start": word["start"],
        "end": word["end"],
        "confidence": word["probability"],
    }
    return told | ({"punctuated_word": text} if punctuate else {})


@dataclass(frozen=True, slots=True)
class Request:
    """What every message names. `model`: the one that really listens."""

    id: str
    model: str

    @property
    def info(self) -> Message:
        """model_info of the one model."""
        return {"name": self.model, "version": "streamsvc", "arch": "whisper"}

    def metadata(self, digest: str, seconds: float) -> Message:
        """The metadata of a whole stream or file. `digest`: sha256 of the audio, in hexadecimal digits."""
        return {
            "transaction_key": "deprecated",
            "request_id": self.id,
            "sha256": digest,
            "created": clock.utc().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": round(seconds, 3),
            "channels": 1,
            "models": [self.model],
            "model_info": {self.model: self.info},
        }


# --- events ---------------------------------------------------------------------------------------------------------


class Listener:
    """Translates events into Results, SpeechStarted and UtteranceEnd.

    Args:
        asked: the options.
        request: named in every message.
        hangover: seconds of silence after which speech.stopped comes.
    """

    def __init__(self, asked: Options, request: Request, hangover: float) -> None:
        self.finalizing = False  # what is flushed was asked for by Finalize
        self._asked, self._request, self._hangover = asked, request, hangover
        self._held: Message | None = None  # a final result, until it is known whether speech ends with it
        self._speaking = False
        self._last_word: float | None = None  # client seconds at which the last final word ended
        self._quiet_since: float | None = (
            None  # monotonic seconds of speech.stopped, while its UtteranceEnd is owed
        )
        self._end = 0.0  # client seconds up to which there are final results

    def take(self, event: Event) -> list[Message]:
        """What one of our events is to the client."""
        match event["type"]:
            case "speech.started":
                told = self._ended() if self._silent_until(event["at"]) else []
                self._speaking, self._quiet_since = True, None
                started = {"type": "SpeechStarted", "channel": [0, 1], "timestamp": event["at"]}
                return told + ([started] if self._asked.vad_events else [])
            case "caption.partial":
                return self._release() + ([self._results(event, final=False)] if self._asked.interim else [])
            case "caption.final":
                told = self._release()
                self._held = self._results(event, final=True)
                self._last_word = event["end"]
                told += [self._results(event, final=False)] if self._asked.interim else []
                return told if self._asked.endpointing or self.finalizing else told + self._release()
            case "speech.stopped":
                self._speaking, self._quiet_since = False, clock.now()
                if self._held is not None:
                    self._held["speech_final"] = self._asked.endpointing or self.finalizing
                return [] if self.finalizing else self._release()
            case "caption.gap":
                told_why = f"audio from {event['start']:.2f} to {event['end']:.2f} s was not transcribed: {event['reason']}"
                return [problem("AudioSkipped", told_why)]
            case "session.flushed" | "session.closed":
                return self._flushed()
        return []

    def late(self, pushed: float) -> list[Message]:
        """UtteranceEnd, if it is owed after `pushed` client seconds of audio, and enough time has passed to know that nobody speaks."""
        asked, since = self._asked.utterance_end, self._quiet_since
        if self._speaking or asked is None or since is None or not self._silent_until(pushed):
            return []
        return self._ended() if clock.now() - since >= asked - self._hangover else []

    def _silent_until(self, at: float) -> bool:
        asked, last = self._asked.utterance_end, self._last_word
        return asked is not None and last is not None and self._quiet_since is not None and at - last >= asked

    def _ended(self) -> list[Message]:
        last, self._last_word, self._quiet_since = self._last_word, None, None
        return [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last}]

    def _flushed(self) -> list[Message]:
        if self.finalizing:
            self.finalizing = False
            if self._held is None:
                empty = {"words": (), "start": self._end, "end": self._end}
                self._held = self._results(empty, final=True)
            self._held["from_finalize"] = True
        return self._release()

    def _release(self) -> list[Message]:
        held, self._held = self._held, None
        return [] if held is None else [held]

    def _results(self, event: Mapping[str, Any], *, final: bool) -> Message:
        if final:
            self._end = event["end"]
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": round(event["end"] - event["start"], 3),
            "start": event["start"],
            "is_final": final,
            "speech_final": False,
            "channel": {"alternatives": [alternative(event["words"], self._asked.punctuate)]},
            "metadata": {
                "request_id": self._request.id,
                "model_info": self._request.info,
                "model_uuid": self._request.model,
            },
            "from_finalize": False,
        }


def problem(variant: str, description: str) -> Message:
    """An Error message."""
    return {"type": "Error", "variant": variant, "description": description}


def body(error: StreamsvcError, request: str) -> Message:
    """The body of an HTTP answer, and of a refused handshake."""
    codes = {
        400: "Bad Request",
        401: "INVALID_AUTH",
        403: "FORBIDDEN",
        413: "PAYLOAD_TOO_LARGE",
        429: "TOO_MANY_REQUESTS",
    }
    codes |= {422: "Bad Request", 503: "SERVICE_UNAVAILABLE", 504: "GATEWAY_TIMEOUT"}
    return {"err_code": codes.get(error.status, error.code), "err_msg": error.message, "request_id": request}


# --- the edge -------------------------------------------------------------------------------------------------------


class _Live:
    """One client: its line and its listener."""

    def __init__(
        self, service: Service, socket: WebSocket, asked: Options, request: Request, bounds: Bounds
    ) -> None:
        assert asked.format is not None
        self._socket, self._request, self._bounds = socket, request, bounds
        self.line = Line(
            service,
            asked.format,
            language=asked.language,
            vocabulary=asked.vocabulary,
            hangover=asked.hangover,
            bounds=bounds,
        )
        self.listener = Listener(asked, request, asked.hangover or service.settings.hear.hangover)

    async def run(self) -> None:
        """Talk until one side leaves. The socket is accepted, the line open."""
        try:
            error = await together(self._listen(), tell(self.line, self._socket, self.listener.take))
            if isinstance(error, Idle):
                await farewell(self._socket, 1011, "NET-0001")
            elif error is not None:
                await together(say(self._socket, problem(error.code, error.message)))
                await farewell(self._socket, error.close_code, error.code)
        finally:
            await self.line.close()

    async def _listen(self) -> None:
        while True:
            data = await hear(self._socket, QUIET)
            fits(data, self._bounds)
            if isinstance(data, bytes) and data:
                await self.line.push(data)
                await say(self._socket, *self.listener.late(self.line.seconds))
            elif isinstance(data, bytes) or (kind := _kind(data)) == "CloseStream":
                await self._close()  # an empty binary message is the old way to say so
                return
            elif kind == "Finalize":
                self.listener.finalizing = True
                await self.line.flush()
            elif kind == "Configure":
                told = "keyterms are set by the query, and hold for the whole stream"
                code = "CONFIGURE_KEYTERMS_NOT_SUPPORTED"
                await say(
                    self._socket,
                    {
                        "type": "ConfigureFailure",
                        "request_id": self._request.id,
                        "code": code,
                        "description": told,
                    },
                )
            elif kind != "KeepAlive":
                await say(
                    self._socket,
                    problem(
                        "SchemaError", "text messages are JSON: KeepAlive, Finalize, CloseStream or Configure"
                    ),
                )

    async def _close(self) -> None:
        await self.line.flush()
        metadata = self._request.metadata(self.line.digest.hexdigest(), self.line.seconds)
        await say(self._socket, *self.listener.late(self.line.seconds), {"type": "Metadata", **metadata})
        await farewell(self._socket, 1000)


def _kind(text: str) -> str | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return str(told.get("type")) if isinstance(told, dict) else None


async def serve(service: Service, socket: WebSocket, request: str, bounds: Bounds) -> None:
    """Serve a client that was let in.

    Raises:
        CapacityError, InvalidRequest: before the socket is accepted.
    """
    heard = service.settings.hear
    live = _Live(
        service, socket, options(socket.query_params, heard, live=True), Request(request, heard.model), bounds
    )
    offered = socket.scope.get("subprotocols", ())
    chosen = offered[0] if offered and offered[0].lower() in ("token", "bearer") else None
    await opened(live.line, socket, chosen, [(b"dg-request-id", request.encode())])
    await live.run()
