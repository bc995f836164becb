"""What an OpenAI Realtime client may set by session.update, checked, merged, and shown as what holds.

Source: openai/types/realtime/realtime_transcription_session_*.py of the official Python client, 3.57.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest
from streamsvc.service.compat.audio_session import Format, hangover, spoken
from streamsvc.speech.vad import PREROLL

FORMATS = {
    "audio/pcm": Format("pcm_s16le", 24_000),
    "audio/pcmu": Format("pcm_mulaw", 8_000),
    "audio/pcma": Format("pcm_alaw", 8_000),
}
MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-live-transcribe",
    "gpt-realtime-whisper",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
)
_PROMPT, _KEYWORDS = 1000, 2000  # characters
_DIARIZED = "gpt-4o-transcribe-diarize"


class ClientError(InvalidRequest):
    """A client event that cannot be. `param`: the field that is wrong."""

    def __init__(self, message: str, code: str, param: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


# --- session.update -------------------------------------------------------------------------------------------------


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
    delay: str | None = None  # accepted: our delay is what the budget says
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


class Configuration:
    """What the client has set: format, transcription (None: not yet), whether turns are detected, and after how much silence.

    Args:
        hear: the service's settings, which hold for whatever cannot be set.
        model: named in the address.
    """

    def __init__(self, hear: Hear, model: str | None = None) -> None:
        self._hear = hear
        self.format = "audio/pcm"
        self.transcription: dict[str, Any] | None = None
        self.detect = True
        self.hangover: float | None = (
            None  # seconds of silence that end a turn; None: as the service's settings say
        )
        if model is not None:
            self._check_model(model)
            self.transcription = {"model": model}

    def update(self, session: object) -> None:
        """Take the `session` of a session.update; only what is in it changes, and nothing if any of it is wrong.

        Raises:
            ClientError: with the field's name.
        """
        if isinstance(session, Mapping) and session.get("type") == "realtime":
            raise ClientError(
                "this is a transcription session: session.type must be 'transcription'",
                "invalid_value",
                "session.type",
            )
        try:
            given = _Update.model_validate(session)
        except ValidationError as error:
            raise _told(error) from None
        heard = given.audio.input if given.audio is not None else None
        if heard is None:
            return
        fields = heard.model_fields_set
        transcription = self.transcription
        if "transcription" in fields:
            wanted = (
                heard.transcription.model_dump(exclude_unset=True)
                if heard.transcription is not None
                else None
            )
            transcription = None if wanted is None else (self.transcription or {"model": MODELS[0]}) | wanted
            self._check(transcription or {})
        self.transcription = transcription
        if heard.format is not None:
            self.format = heard.format.type
        if "turn_detection" in fields:
            self.detect = heard.turn_detection is not None
            self.hangover = (
                hangover(heard.turn_detection.silence_duration_ms)
                if heard.turn_detection is not None
                else None
            )

    def _check(self, transcription: Mapping[str, Any]) -> None:
        param = "session.audio.input.transcription"
        self._check_model(transcription.get("model"))
        words = transcription.get("keywords") or ()
        if (
            len(transcription.get("prompt") or "") > _PROMPT
            or len(words) > 100
            or sum(map(len, words)) > _KEYWORDS
        ):
            told = f"the prompt has at most {_PROMPT} characters, and there are at most 100 keywords of {_KEYWORDS} characters together"
            raise ClientError(told, "invalid_value", param)
        try:
            spoken(transcription.get("language"), self._hear.model)
        except InvalidRequest as error:
            raise ClientError(error.message, error.code, f"{param}.language") from None

    def _check_model(self, model: object) -> None:
        param = "session.audio.input.transcription.model"
        if model == _DIARIZED:
            raise ClientError(
                f"{_DIARIZED} needs speaker labels, which are not served here", "model_not_found", param
            )
        name = str(model)
        if (
            model is not None
            and name != self._hear.model
            and not any(name == known or name.startswith(f"{known}-20") for known in MODELS)
        ):
            served = ", ".join((*MODELS, self._hear.model))
            raise ClientError(
                f"the model {name[:64]!r} is not served here; supported values are: {served}",
                "model_not_found",
                param,
            )

    @property
    def language(self) -> str | None:
        """Of the speech."""
        return spoken((self.transcription or {}).get("language"), self._hear.model)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Prompt and keywords: names and terms to expect."""
        asked = self.transcription or {}
        return tuple(term for term in (asked.get("prompt"), *(asked.get("keywords") or ())) if term)

    def shown(self, number: str, expires: int) -> dict[str, Any]:
        """The session as session.created and session.updated show it: what holds, not what was asked."""
        detection = {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": round(PREROLL * 1000),
            "silence_duration_ms": round((self.hangover or self._hear.hangover) * 1000),
        }
        form: dict[str, Any] = {"type": self.format} | (
            {"rate": 24_000} if self.format == "audio/pcm" else {}
        )
        heard = {
            "format": form,
            "transcription": self.transcription,
            "noise_reduction": None,
            "turn_detection": detection if self.detect else None,
        }
        fixed = {
            "id": number,
            "object": "realtime.transcription_session",
            "type": "transcription",
            "expires_at": expires,
            "include": None,
        }
        return fixed | {"audio": {"input": heard}}


def _told(error: ValidationError) -> ClientError:
    first = error.errors(include_url=False, include_input=False)[0]
    param = ".".join(["session", *map(str, first["loc"])])
    code = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}.get(
        first["type"], "invalid_value"
    )
    said = {
        "unknown_parameter": f"Unknown parameter: '{param}'.",
        "missing_required_parameter": f"Missing required parameter: '{param}'.",
    }
    return ClientError(said.get(code, f"Invalid value at '{param}': {first['msg']}."), code, param)
