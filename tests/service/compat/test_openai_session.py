"""session.update: what is given changes, what is wrong is named, and what holds is shown."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.core.config import Hear
from streamsvc.service.compat.openai_session import ClientError, Configuration


def update(**heard: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": heard}}


def test_only_what_is_given_changes() -> None:
    now = Configuration(Hear())
    now.update(
        update(
            transcription={"model": "gpt-4o-transcribe", "language": "en", "prompt": "Zürich"},
            format={"type": "audio/pcmu"},
        )
    )
    now.update(update(transcription={"keywords": ["Anna"]}))
    assert now.transcription == {
        "model": "gpt-4o-transcribe",
        "language": "en",
        "prompt": "Zürich",
        "keywords": ["Anna"],
    }
    assert (now.format, now.language, now.vocabulary, now.detect) == (
        "audio/pcmu",
        "en",
        ("Zürich", "Anna"),
        True,
    )
    now.update(update(turn_detection=None))
    detected = [now.detect]
    now.update(update(turn_detection={"type": "server_vad"}, transcription=None))
    assert [*detected, now.detect] == [False, True]
    assert now.shown("s", 1)["audio"]["input"]["transcription"] is None


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
def test_what_is_wrong_is_named_and_changes_nothing(session: object, code: str, param: str) -> None:
    now = Configuration(Hear())
    before = now.shown("s", 1)
    with pytest.raises(ClientError) as told:
        now.update(session)
    assert (told.value.code, told.value.param) == (code, param)
    assert now.shown("s", 1) == before


@pytest.mark.parametrize(("asked", "holds"), [(700, 700), (50, 100), (9000, 5000), (None, 600)])
def test_what_holds_is_shown_and_not_what_was_asked(asked: int | None, holds: int) -> None:
    now = Configuration(Hear(hangover=0.6), "whisper-1")
    now.update(
        update(
            turn_detection={"type": "server_vad", "silence_duration_ms": asked},
            noise_reduction={"type": "near_field"},
        )
    )
    shown = now.shown("sess_1", 5)
    assert shown["audio"]["input"]["turn_detection"]["silence_duration_ms"] == holds
    assert now.hangover == (None if asked is None else holds / 1000)
    assert shown["audio"]["input"]["noise_reduction"] is None
    assert shown["audio"]["input"]["transcription"] == {"model": "whisper-1"}
    assert shown["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert (shown["id"], shown["type"], shown["expires_at"]) == ("sess_1", "transcription", 5)


def test_dated_names_and_our_own_are_models_too() -> None:
    for name in ("gpt-4o-mini-transcribe-2025-12-15", "whisper-tiny.en"):
        assert Configuration(Hear(), name).transcription == {"model": name}
