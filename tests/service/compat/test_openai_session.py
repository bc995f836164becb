"""session.update: partial updates, errors that name the field, effective values."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.core.config import Hear
from streamsvc.core.options import SpeechOptions
from streamsvc.service.compat.openai_session import ClientError, Configuration


def update(**fields: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": fields}}


def test_only_the_given_fields_change() -> None:
    configuration = Configuration(Hear())
    configuration.update(
        update(
            transcription={"model": "gpt-4o-transcribe", "language": "en", "prompt": "Zürich"},
            format={"type": "audio/pcmu"},
        )
    )
    configuration.update(update(transcription={"keywords": ["Anna"]}))
    assert configuration.transcription == {
        "model": "gpt-4o-transcribe",
        "language": "en",
        "prompt": "Zürich",
        "keywords": ["Anna"],
    }
    assert configuration.format == "audio/pcmu"
    assert configuration.speech == SpeechOptions("en", ("Zürich", "Anna"), hangover=None)
    assert configuration.detect_turns
    configuration.update(update(turn_detection=None))
    detected = [configuration.detect_turns]
    configuration.update(update(turn_detection={"type": "server_vad"}, transcription=None))
    assert [*detected, configuration.detect_turns] == [False, True]
    assert configuration.session("s", 1)["audio"]["input"]["transcription"] is None


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime"}, "invalid_value", "session.type"),
        ({}, "missing_required_parameter", "session.type"),
        ("no object", "invalid_value", "session"),
        (update(voice="alloy"), "unknown_parameter", "session.audio.input.voice"),
        (update(format={"type": "audio/opus"}), "invalid_value", "session.audio.input.format.type"),
        (
            update(format={"type": "audio/pcm", "rate": 16000}),
            "invalid_value",
            "session.audio.input.format.rate",
        ),
        (
            update(turn_detection={"type": "semantic_vad"}),
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (
            update(transcription={"model": "gpt-9"}),
            "model_not_found",
            "session.audio.input.transcription.model",
        ),
        (
            update(transcription={"model": "gpt-4o-transcribe-diarize"}),
            "model_not_found",
            "session.audio.input.transcription.model",
        ),
        (
            update(transcription={"language": "de"}),
            "unsupported_language",
            "session.audio.input.transcription.language",
        ),
        (update(transcription={"prompt": "x" * 1001}), "invalid_value", "session.audio.input.transcription"),
        (
            update(transcription={"keywords": ["x"] * 101}),
            "invalid_value",
            "session.audio.input.transcription",
        ),
        (
            update(transcription={"keywords": ["x" * 2001]}),
            "invalid_value",
            "session.audio.input.transcription",
        ),
    ],
)
def test_an_error_names_the_field_and_changes_nothing(session: object, code: str, param: str) -> None:
    configuration = Configuration(Hear())
    before = configuration.session("s", 1)
    with pytest.raises(ClientError) as caught:
        configuration.update(session)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert configuration.session("s", 1) == before


@pytest.mark.parametrize(("requested", "effective"), [(700, 700), (50, 100), (9000, 5000), (None, 600)])
def test_the_session_shows_effective_values(requested: int | None, effective: int) -> None:
    configuration = Configuration(Hear(hangover=0.6), "whisper-1")
    configuration.update(
        update(
            turn_detection={"type": "server_vad", "silence_duration_ms": requested},
            noise_reduction={"type": "near_field"},
        )
    )
    session = configuration.session("sess_1", 5)
    assert session["audio"]["input"]["turn_detection"]["silence_duration_ms"] == effective
    assert configuration.hangover == (None if requested is None else effective / 1000)
    assert session["audio"]["input"]["noise_reduction"] is None
    assert session["audio"]["input"]["transcription"] == {"model": "whisper-1"}
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert (session["id"], session["type"], session["expires_at"]) == ("sess_1", "transcription", 5)


def test_dated_model_names_and_our_own_are_accepted() -> None:
    for name in ("gpt-4o-mini-transcribe-2025-12-15", "whisper-tiny.en"):
        assert Configuration(Hear(), name).transcription == {"model": name}
