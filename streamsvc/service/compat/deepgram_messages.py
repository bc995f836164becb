"""Deepgram's messages and bodies, and the translation of events into them. No I/O.

Source: the types of the official Python client (deepgram/listen/v1, 7.17) and Deepgram's API reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.printable import is_extender
from streamsvc.service.compat.audio_session import Event
from streamsvc.service.compat.deepgram_options import Options

Message = dict[str, Any]

_ERROR_CODES = {
    400: "Bad Request",
    401: "INVALID_AUTH",
    403: "FORBIDDEN",
    413: "PAYLOAD_TOO_LARGE",
    422: "Bad Request",
    429: "TOO_MANY_REQUESTS",
    503: "SERVICE_UNAVAILABLE",
    504: "GATEWAY_TIMEOUT",
}


def alternative(words: Sequence[Mapping[str, Any]], punctuate: bool) -> Message:
    """The words of a caption event as one alternative: transcript, confidence, words."""
    shown = [shape for word in words if (shape := _word(word, punctuate))["word"]]
    return {
        "transcript": " ".join(word["punctuated_word"] if punctuate else word["word"] for word in shown),
        "confidence": round(sum(word["confidence"] for word in shown) / len(shown), 4) if shown else 0.0,
        "words": shown,
    }


def _word(word: Mapping[str, Any], punctuate: bool) -> Message:
    text = word["text"].strip()
    first = next((index for index, char in enumerate(text) if char.isalnum()), len(text))
    trailing = next((index for index, char in enumerate(reversed(text)) if char.isalnum()), 0)
    last = len(text) - trailing
    while first < last < len(text) and is_extender(text[last]):  # a vowel sign, a joiner
        last += 1
    shape = {
        "word": text[first:last].lower(),
        "start": word["start"],
        "end": word["end"],
        "confidence": word["probability"],
    }
    return shape | ({"punctuated_word": text} if punctuate else {})


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """The request id and the model in use, which messages name."""

    id: str
    model: str

    @property
    def model_info(self) -> Message:
        """model_info of the model."""
        return {"name": self.model, "version": "streamsvc", "arch": "whisper"}

    def metadata(self, digest: str, seconds: float) -> Message:
        """Metadata of a whole stream or file. digest: hexadecimal SHA-256 of the audio."""
        return {
            "transaction_key": "deprecated",
            "request_id": self.id,
            "sha256": digest,
            "created": clock.utc().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration": round(seconds, 3),
            "channels": 1,
            "models": [self.model],
            "model_info": {self.model: self.model_info},
        }


def error_message(variant: str, description: str) -> Message:
    """An Error message."""
    return {"type": "Error", "variant": variant, "description": description}


def error_body(error: StreamsvcError, request_id: str) -> Message:
    """Body of an HTTP error, also of a refused handshake."""
    code = _ERROR_CODES.get(error.status, error.code)
    return {"err_code": code, "err_msg": error.message, "request_id": request_id}


class ResultTranslator:
    """Translates a session's events into Results, SpeechStarted and UtteranceEnd messages.

    A final result is delayed until the next words or the end of speech, so that `speech_final` can be set on
    it.

    Args:
        options: of the request.
        request: named in every message.
        hangover: seconds of silence before speech.stopped.
    """

    def __init__(self, options: Options, request: RequestInfo, hangover: float) -> None:
        self.finalizing = False  # the pending flush was requested by Finalize
        self._options = options
        self._request = request
        self._hangover = hangover
        self._pending: Message | None = None  # the delayed final result
        self._speaking = False
        self._last_word: float | None = None  # client seconds at which the last final word ended
        self._quiet_since: float | None = (
            None  # monotonic seconds of speech.stopped; None: no UtteranceEnd due
        )
        self._final_until = 0.0  # client seconds up to which there are final results

    def translate(self, event: Event) -> list[Message]:
        """The messages for one event."""
        match event["type"]:
            case "speech.started":
                return self._speech_started(event["at"])
            case "caption.partial":
                return self._release() + self._interim(event)
            case "caption.final":
                return self._final(event)
            case "speech.stopped":
                return self._speech_stopped()
            case "caption.gap":
                start, end, reason = event["start"], event["end"], event["reason"]
                text = f"Audio from {start:.2f} to {end:.2f} s was not transcribed: {reason}"
                return [error_message("AudioSkipped", text)]
            case "session.flushed" | "session.closed":
                return self._flushed()
        return []

    def overdue(self, pushed: float) -> list[Message]:
        """UtteranceEnd, if due after `pushed` client seconds of audio.

        Wall-clock time must have passed, too: audio sent faster than real time may hold speech not yet
        reported.
        """
        wanted, since = self._options.utterance_end, self._quiet_since
        if self._speaking or wanted is None or since is None or not self._silent_until(pushed):
            return []
        return self._utterance_end() if clock.now() - since >= wanted - self._hangover else []

    def _speech_started(self, at: float) -> list[Message]:
        messages = self._utterance_end() if self._silent_until(at) else []
        self._speaking = True
        self._quiet_since = None
        if self._options.vad_events:
            messages.append({"type": "SpeechStarted", "channel": [0, 1], "timestamp": at})
        return messages

    def _speech_stopped(self) -> list[Message]:
        self._speaking = False
        self._quiet_since = clock.now()
        if self._pending is not None:
            self._pending["speech_final"] = self._options.endpointing or self.finalizing
        return [] if self.finalizing else self._release()

    def _final(self, event: Event) -> list[Message]:
        messages = self._release()
        self._pending = self._results(event, final=True)
        self._last_word = event["end"]
        messages += self._interim(event)
        delayed = self._options.endpointing or self.finalizing
        return messages if delayed else messages + self._release()

    def _interim(self, event: Event) -> list[Message]:
        return [self._results(event, final=False)] if self._options.interim else []

    def _silent_until(self, at: float) -> bool:
        wanted, last = self._options.utterance_end, self._last_word
        if wanted is None or last is None or self._quiet_since is None:
            return False
        return at - last >= wanted

    def _utterance_end(self) -> list[Message]:
        last = self._last_word
        self._last_word = None
        self._quiet_since = None
        return [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last}]

    def _flushed(self) -> list[Message]:
        if self.finalizing:
            self.finalizing = False
            if self._pending is None:
                empty = {"words": (), "start": self._final_until, "end": self._final_until}
                self._pending = self._results(empty, final=True)
            self._pending["from_finalize"] = True
        return self._release()

    def _release(self) -> list[Message]:
        pending = self._pending
        self._pending = None
        return [] if pending is None else [pending]

    def _results(self, event: Event, *, final: bool) -> Message:
        if final:
            self._final_until = event["end"]
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "duration": round(event["end"] - event["start"], 3),
            "start": event["start"],
            "is_final": final,
            "speech_final": False,
            "channel": {"alternatives": [alternative(event["words"], self._options.punctuate)]},
            "metadata": {
                "request_id": self._request.id,
                "model_info": self._request.model_info,
                "model_uuid": self._request.model,
            },
            "from_finalize": False,
        }
