"""The settings of an OpenAI Realtime client: validation and merging of session.update.

Source: openai/types/realtime/realtime_transcription_session_*.py of the official Python client, 3.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.options import SpeechOptions
from streamsvc.core.plain_errors import plain_errors
from streamsvc.service.compat.audio_session import AudioFormat, clamp_hangover, language_code
from streamsvc.speech.vad import PREROLL

FORMATS = {
    "audio/pcm": AudioFormat("pcm_s16le", 24_000),
    "audio/pcmu": AudioFormat("pcm_mulaw", 8_000),
    "audio/pcma": AudioFormat("pcm_alaw", 8_000),
}
MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
)
_PROMPT_CHARACTERS = 1000
_KEYWORDS = 100
_KEYWORD_CHARACTERS = 2000  # of all keywords together
_TRANSCRIPTION = "session.audio.input.transcription"
_DIARIZED = "gpt-4o-transcribe-diarize"


class ClientError(InvalidRequest):
    """An invalid client event. param: the path of the wrong field."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


# --- session.update -----------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _AudioFormat(_Strict):
    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: Literal[24000] | None = None


class _Transcription(_Strict):
    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    keywords: list[str] | None = None
    delay: str | None = None  # accepted without effect: the latency budget sets the delay
    languages: list[str] | None = None


class _TurnDetection(_Strict):
    type: Literal["server_vad"]
    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None
    idle_timeout_ms: int | None = None


class _Input(_Strict):
    format: _AudioFormat | None = None
    transcription: _Transcription | None = None
    turn_detection: _TurnDetection | None = None
    noise_reduction: dict[str, Any] | None = None


class _Audio(_Strict):
    input: _Input | None = None


class _Update(_Strict):
    type: Literal["transcription"]
    audio: _Audio | None = None
    include: list[str] | None = None

    @property
    def audio_input(self) -> _Input | None:
        return self.audio.input if self.audio is not None else None


class Configuration:
    """The settings of one client: format, transcription and turn detection.

    transcription is None until configured.

    Args:
        hear: the service's settings, effective for everything that a client cannot set.
        model: named in the URL.
    """

    def __init__(self, hear: Hear, model: str | None = None) -> None:
        self._hear = hear
        self.format = "audio/pcm"
        self.transcription: dict[str, Any] | None = None
        self.detect_turns = True
        self.hangover: float | None = None  # seconds of silence that end a turn; None: the service's setting
        if model is not None:
            self._check_model(model)
            self.transcription = {"model": model}

    def update(self, session: object) -> None:
        """Apply the `session` of a session.update.

        Absent fields keep their value; an error changes nothing.

        Raises:
            ClientError: names the field.
        """
        audio_input = _parse(session).audio_input
        if audio_input is None:
            return
        given = audio_input.model_fields_set
        if "transcription" in given:
            self.transcription = self._merged(audio_input.transcription)
        if audio_input.format is not None:
            self.format = audio_input.format.type
        if "turn_detection" in given:
            detection = audio_input.turn_detection
            self.detect_turns = detection is not None
            self.hangover = None if detection is None else clamp_hangover(detection.silence_duration_ms)

    def _merged(self, update: _Transcription | None) -> dict[str, Any] | None:
        if update is None:
            return None
        merged = (self.transcription or {"model": MODELS[0]}) | update.model_dump(exclude_unset=True)
        self._check_model(merged.get("model"))
        keywords = merged.get("keywords") or ()
        if (
            len(merged.get("prompt") or "") > _PROMPT_CHARACTERS
            or len(keywords) > _KEYWORDS
            or sum(map(len, keywords)) > _KEYWORD_CHARACTERS
        ):
            raise ClientError(
                f"The prompt may have at most {_PROMPT_CHARACTERS} characters, and there may be at most "
                f"{_KEYWORDS} keywords with {_KEYWORD_CHARACTERS} characters together",
                "invalid_value",
                _TRANSCRIPTION,
            )
        try:
            language_code(merged.get("language"), self._hear.model)
        except InvalidRequest as error:
            raise ClientError(error.message, error.code, f"{_TRANSCRIPTION}.language") from None
        return merged

    def _check_model(self, model: object) -> None:
        if model is None:
            return
        param = f"{_TRANSCRIPTION}.model"
        if model == _DIARIZED:
            raise ClientError(
                f"{_DIARIZED} requires speaker labels, which are not supported", "model_not_found", param
            )
        name = str(model)
        is_known = any(name == known or name.startswith(f"{known}-20") for known in MODELS)
        if name != self._hear.model and not is_known:
            supported = ", ".join((*MODELS, self._hear.model))
            raise ClientError(
                f"The model {name[:64]!r} is not supported; supported values are: {supported}",
                "model_not_found",
                param,
            )

    @property
    def speech(self) -> SpeechOptions:
        """The options of speech recognition. The prompt and the keywords are the vocabulary."""
        transcription = self.transcription or {}
        terms = (transcription.get("prompt"), *(transcription.get("keywords") or ()))
        return SpeechOptions(
            language_code(transcription.get("language"), self._hear.model),
            tuple(term for term in terms if term),
            self.hangover,
        )

    def session(self, session_id: str, expires: int) -> dict[str, Any]:
        """The session object of session.created and session.updated.

        It has the effective values, not the requested ones. expires: Unix seconds.
        """
        detection = {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": round(PREROLL * 1000),
            "silence_duration_ms": round((self.hangover or self._hear.hangover) * 1000),
        }
        audio_format: dict[str, Any] = {"type": self.format}
        if self.format == "audio/pcm":
            audio_format["rate"] = 24_000
        audio_input = {
            "format": audio_format,
            "transcription": self.transcription,
            "noise_reduction": None,
            "turn_detection": detection if self.detect_turns else None,
        }
        return {
            "id": session_id,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": expires,
            "include": None,
            "audio": {"input": audio_input},
        }


def _parse(session: object) -> _Update:
    if isinstance(session, Mapping) and session.get("type") == "realtime":
        raise ClientError(
            "This is a transcription session: session.type must be 'transcription'",
            "invalid_value",
            "session.type",
        )
    try:
        return _Update.model_validate(session)
    except ValidationError as error:
        raise _client_error(error) from None


def _client_error(error: ValidationError) -> ClientError:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(["session", *map(str, first["loc"])])
    match first["type"]:
        case "extra_forbidden":
            return ClientError(f"Unknown parameter: '{param}'.", "unknown_parameter", param)
        case "missing":
            return ClientError(f"Missing required parameter: '{param}'.", "missing_required_parameter", param)
    said = plain_errors([{**first, "loc": ()}], None, "it")
    return ClientError(f"Invalid value at '{param}': {said}.", "invalid_value", param)
