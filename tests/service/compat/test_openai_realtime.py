"""OpenAI's Realtime transcription: the translation alone, then the official client against the real service."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from streamsvc.core.errors import Unauthorized
from streamsvc.service.compat.openai_realtime import Turns, body, failed, message
from tests.builders.service import serving
from tests.builders.spoken import caption, closed, flushed, heard, samples, speech

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
TRANSCRIPTION = "conversation.item.input_audio_transcription."


def told(turns: Turns, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages for events, each held against the official client's own types."""
    messages = [made for event in events for made in turns.take(event)]
    for made in messages:
        OFFICIAL.validate_python(made, strict=True)
    return messages


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [made["type"].removeprefix("conversation.item.").removeprefix("input_audio_") for made in messages]


def deltas(messages: list[dict[str, Any]]) -> str:
    return "".join(made["delta"] for made in messages if made["type"].endswith(".delta"))


def completed(messages: list[dict[str, Any]]) -> list[str]:
    return [made["transcript"] for made in messages if made["type"].endswith(".completed")]


def test_an_utterance_is_an_item_with_increments_and_a_whole() -> None:
    messages = told(
        Turns(),
        speech(True, 1.0),
        caption("the old", 0),
        caption("The old beer", 2),
        caption("The old beer lingers.", 3),
        caption("The old beer lingers."),
        speech(False, 3.0),
    )
    assert kinds(messages) == [
        "buffer.speech_started",
        "added",
        "transcription.delta",
        "transcription.delta",
        "transcription.delta",
        "buffer.speech_stopped",
        "buffer.committed",
        "done",
        "transcription.completed",
    ]
    assert [made["delta"] for made in messages if "delta" in made] == ["The old", " beer", " lingers."]
    assert completed(messages) == ["The old beer lingers."]
    assert len({made.get("item_id") or made["item"]["id"] for made in messages}) == 1
    assert (messages[0]["audio_start_ms"], messages[5]["audio_end_ms"]) == (700, 3000)
    assert messages[-1]["usage"] == {"type": "duration", "seconds": 2.0}
    assert len({made["event_id"] for made in messages}) == len(messages)


def test_a_closed_caption_takes_its_words_from_what_was_shown_of_the_open_one() -> None:
    messages = told(
        Turns(),
        speech(True, 1.0),
        caption("One two three. Four five", 5),
        caption("One two three."),
        caption("Four five six", 2, 3.0),
        caption("Four five six seven.", None, 3.0),
        speech(False, 5.0),
    )
    assert deltas(messages) == "One two three. Four five six seven."
    assert completed(messages) == [deltas(messages)]


def test_a_lost_partial_loses_no_word() -> None:
    messages = told(Turns(), speech(True, 1.0), caption("One two."), caption("Three."), speech(False, 5.0))
    assert completed(messages) == ["One two. Three."]
    assert deltas(messages) == "One two. Three."


def test_items_follow_each_other_and_name_the_one_before() -> None:
    turns = Turns()
    first = told(turns, speech(True, 1.0), caption("One."), speech(False, 2.0))
    second = told(turns, speech(True, 4.0), speech(False, 5.0))
    committed = [made for made in first + second if made["type"].endswith("committed")]
    assert committed[0]["previous_item_id"] is None
    assert committed[1]["previous_item_id"] == committed[0]["item_id"]
    assert completed(second) == [""], "speech without a word is an empty item"


def test_without_turn_detection_only_a_commit_makes_an_item() -> None:
    turns = Turns()
    turns.detect = False
    before = told(turns, speech(True, 1.0), caption("One."), speech(False, 2.0), speech(True, 3.0))
    assert kinds(before) == ["added", "transcription.delta"]
    made = turns.commit(4.0)
    assert kinds(made) == ["buffer.committed"]
    after = told(turns, caption("Two."), speech(False, 3.9), flushed())
    assert kinds(after) == ["transcription.delta", "done", "transcription.completed"]
    assert completed(after) == ["One. Two."]
    assert after[-1]["usage"]["seconds"] == 3.0


def test_what_is_flushed_by_a_commit_belongs_to_one_item_even_with_turn_detection() -> None:
    turns = Turns()
    told(turns, speech(True, 1.0), caption("One two", 1))
    turns.commit(9.0)
    after = told(
        turns,
        caption("One two."),
        speech(False, 2.0),
        speech(True, 5.0),
        caption("Three."),
        speech(False, 6.0),
        flushed(),
    )
    assert completed(after) == ["One two. Three."]
    assert not [kind for kind in kinds(after) if kind.startswith("buffer.")]


def test_what_was_taken_back_is_told_to_nobody() -> None:
    turns = Turns()
    told(turns, speech(True, 1.0), caption("One two", 1))
    turns.clear(2.0)
    assert told(turns, caption("One two."), speech(False, 2.0), flushed()) == []
    assert completed(told(turns, speech(True, 3.0), caption("Four."), speech(False, 4.0))) == ["Four."]


def test_audio_that_was_not_transcribed_is_said_and_an_item_of_nothing_else_fails() -> None:
    gap = {"type": "caption.gap", "at": 1.0, "start": 1.0, "end": 2.0, "reason": "overload"}
    messages = told(Turns(), speech(True, 1.0), gap, speech(False, 2.0))
    assert kinds(messages)[-1] == "transcription.failed"
    errors = [made["error"]["code"] for made in messages if made["type"] == "error"]
    assert errors == ["audio_skipped"]
    assert completed(told(Turns(), speech(True, 1.0), gap, caption("But this."), speech(False, 3.0))) == [
        "But this."
    ]


def test_an_open_item_fails_with_its_session() -> None:
    messages = told(Turns(), speech(True, 1.0), caption("One two", 1), closed("failed"))
    assert kinds(messages)[-1] == "transcription.failed"


def test_errors_have_their_shape() -> None:
    assert body(Unauthorized("who?")) == {
        "type": "invalid_request_error",
        "code": "invalid_api_key",
        "message": "who?",
        "param": None,
    }
    made = failed({"type": "t", "message": "m"}, "mine")
    assert made["error"] == {"type": "t", "message": "m", "code": None, "param": None, "event_id": "mine"}
    assert message("x")["event_id"] != message("x")["event_id"]


# --- the official client, unchanged -------------------------------------------------------------------------------------


def settings(**heard: Any) -> Any:
    return {
        "type": "transcription",
        "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}, **heard}},
    }


async def until(connection: Any, kind: str) -> list[Any]:
    got: list[Any] = []
    async with asyncio.timeout(60):
        while not got or got[-1].type != kind:
            got.append(await connection.recv())
    return got


@pytest.mark.media
@pytest.mark.models
@pytest.mark.parametrize(
    ("form", "codec", "rate"), [("audio/pcm", "pcm_s16le", 24_000), ("audio/pcmu", "pcm_mulaw", 8_000)]
)
async def test_the_official_client_has_its_speech_transcribed(
    media: Path, tmp_path: Path, form: str, codec: str, rate: int
) -> None:
    data = (
        samples(media / "speech" / "harvard.flac", rate, codec)
        + (b"\xff" if codec == "pcm_mulaw" else b"\0\0") * rate
    )
    async with (
        serving(tmp_path) as (service, place, _),
        AsyncOpenAI(api_key="none", base_url=f"http://{place}/v1") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        await service.ready()
        assert (await connection.recv()).type == "session.created"
        await connection.session.update(
            session=settings(format={"type": form}, turn_detection={"type": "server_vad"})
        )
        updated: Any = await connection.recv()
        assert updated.type == "session.updated"
        assert updated.session.audio.input.format.type == form
        for first in range(0, len(data), 9600):
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(data[first : first + 9600]).decode()
            )
        got: list[Any] = []
        whole: dict[str, str] = {}
        while "hot cross bun" not in heard(" ".join(whole.values())):  # the recording's last words
            got += await until(connection, TRANSCRIPTION + "completed")
            whole[got[-1].item_id] = got[-1].transcript
        assert len(heard(" ".join(whole.values()))) >= 4
        for item, transcript in whole.items():
            parts = [
                event.delta
                for event in got
                if event.type == TRANSCRIPTION + "delta" and event.item_id == item
            ]
            assert "".join(parts) == transcript
        assert got[0].type == "input_audio_buffer.speech_started"
        assert [event.item_id for event in got if event.type == "input_audio_buffer.committed"] == list(whole)
    assert service.sessions.by_id == {}
    assert not list((tmp_path / "data").glob("*")), "nothing was written"


@pytest.mark.media
@pytest.mark.models
async def test_the_official_client_commits_clears_and_is_told_its_mistakes(
    media: Path, tmp_path: Path
) -> None:
    data = samples(media / "speech" / "harvard.flac", 24_000)
    half = 2 * 24_000 * 10
    async with (
        serving(tmp_path) as (service, place, _),
        AsyncOpenAI(api_key="none", base_url=f"http://{place}/v1") as client,
        client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        await service.ready()
        await connection.recv()

        async def mistake(sent: dict[str, Any] | str) -> tuple[Any, Any, Any]:
            await (connection.send_raw(sent) if isinstance(sent, str) else connection.send(sent))  # type: ignore[arg-type]
            error: Any = (await until(connection, "error"))[-1]
            return error.error.code, error.error.param, error.error.event_id

        audio = base64.b64encode(data[:48]).decode()
        append = {"type": "input_audio_buffer.append", "event_id": "e1", "audio": audio}
        assert await mistake(append) == (
            "transcription_not_configured",
            "session.audio.input.transcription",
            "e1",
        )
        assert await mistake("no json") == ("invalid_json", None, None)
        assert await mistake("[" * 100_000) == ("invalid_json", None, None), "too deep for the reader of JSON"
        assert (await mistake("x" * (2 * 1024 * 1024 + 1)))[0] == "message_too_large"
        assert await mistake("[1]") == ("missing_required_parameter", "type", None)
        assert await mistake('{"type": "response.create", "event_id": "e2"}') == (
            "invalid_value",
            "type",
            "e2",
        )
        assert (await mistake('{"type": "session.update"}'))[0] == "missing_required_parameter"
        unknown = {
            "type": "session.update",
            "session": {"type": "transcription", "audio": {"input": {"transcription": {"model": "x"}}}},
        }
        assert (await mistake(unknown))[0] == "model_not_found"

        await connection.session.update(session=settings(turn_detection=None))
        await until(connection, "session.updated")
        assert (await mistake({"type": "input_audio_buffer.commit"}))[0] == "input_audio_buffer_commit_empty"
        assert (await mistake({"type": "input_audio_buffer.append", "audio": "!"}))[:2] == (
            "invalid_value",
            "audio",
        )

        await connection.input_audio_buffer.append(audio=base64.b64encode(data[:half]).decode())
        await connection.input_audio_buffer.clear()
        got = await until(connection, "input_audio_buffer.cleared")
        for first in range(half, len(data), 9600):
            await connection.input_audio_buffer.append(
                audio=base64.b64encode(data[first : first + 9600]).decode()
            )
        await connection.input_audio_buffer.commit()
        got = await until(connection, TRANSCRIPTION + "completed")
        assert set(heard(got[-1].transcript)) >= {"salt pickle", "hot cross bun"}
        assert not {"stale smell of old", "takes heat to bring out the odor"} & set(heard(got[-1].transcript))
        assert not [event for event in got if event.type.startswith("input_audio_buffer.speech")]
        assert [event.type for event in got].count("input_audio_buffer.committed") == 1
