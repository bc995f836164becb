"""OpenAI's Realtime transcription: the translator, then the official client."""

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
from streamsvc.service.compat.openai_realtime import ItemTranslator, error_body, error_event, server_event
from tests.builders.service import serving
from tests.builders.spoken import caption, closed, flushed, heard, samples, speech

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
TRANSCRIPTION = "conversation.item.input_audio_transcription."


def translate(items: ItemTranslator, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages for events, validated against the official client's types."""
    messages = [message for event in events for message in items.translate(event)]
    for message in messages:
        OFFICIAL.validate_python(message, strict=True)
    return messages


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [
        message["type"].removeprefix("conversation.item.").removeprefix("input_audio_")
        for message in messages
    ]


def deltas(messages: list[dict[str, Any]]) -> str:
    return "".join(message["delta"] for message in messages if message["type"].endswith(".delta"))


def completed(messages: list[dict[str, Any]]) -> list[str]:
    return [message["transcript"] for message in messages if message["type"].endswith(".completed")]


def test_an_utterance_is_an_item_with_deltas_and_a_transcript() -> None:
    messages = translate(
        ItemTranslator(),
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
    assert [message["delta"] for message in messages if "delta" in message] == [
        "The old",
        " beer",
        " lingers.",
    ]
    assert completed(messages) == ["The old beer lingers."]
    assert len({message.get("item_id") or message["item"]["id"] for message in messages}) == 1
    assert (messages[0]["audio_start_ms"], messages[5]["audio_end_ms"]) == (700, 3000)
    assert messages[-1]["usage"] == {"type": "duration", "seconds": 2.0}
    assert len({message["event_id"] for message in messages}) == len(messages)


def test_words_sent_before_their_caption_closed_are_not_sent_again() -> None:
    messages = translate(
        ItemTranslator(),
        speech(True, 1.0),
        caption("One two three. Four five", 5),
        caption("One two three."),
        caption("Four five six", 2, 3.0),
        caption("Four five six seven.", None, 3.0),
        speech(False, 5.0),
    )
    assert deltas(messages) == "One two three. Four five six seven."
    assert completed(messages) == [deltas(messages)]


def test_a_dropped_partial_loses_no_word() -> None:
    messages = translate(
        ItemTranslator(), speech(True, 1.0), caption("One two."), caption("Three."), speech(False, 5.0)
    )
    assert completed(messages) == ["One two. Three."]
    assert deltas(messages) == "One two. Three."


def test_an_item_names_the_previous_one() -> None:
    items = ItemTranslator()
    first = translate(items, speech(True, 1.0), caption("One."), speech(False, 2.0))
    second = translate(items, speech(True, 4.0), speech(False, 5.0))
    committed = [message for message in first + second if message["type"].endswith("committed")]
    assert committed[0]["previous_item_id"] is None
    assert committed[1]["previous_item_id"] == committed[0]["item_id"]
    assert completed(second) == [""], "speech without words gives an empty item"


def test_without_turn_detection_a_commit_ends_the_item() -> None:
    items = ItemTranslator()
    items.detect_turns = False
    before = translate(items, speech(True, 1.0), caption("One."), speech(False, 2.0), speech(True, 3.0))
    assert kinds(before) == ["added", "transcription.delta"]
    committed = items.commit(4.0)
    assert kinds(committed) == ["buffer.committed"]
    after = translate(items, caption("Two."), speech(False, 3.9), flushed())
    assert kinds(after) == ["transcription.delta", "done", "transcription.completed"]
    assert completed(after) == ["One. Two."]
    assert after[-1]["usage"]["seconds"] == 3.0


def test_all_audio_flushed_by_a_commit_belongs_to_one_item() -> None:
    items = ItemTranslator()
    translate(items, speech(True, 1.0), caption("One two", 1))
    items.commit(9.0)
    after = translate(
        items,
        caption("One two."),
        speech(False, 2.0),
        speech(True, 5.0),
        caption("Three."),
        speech(False, 6.0),
        flushed(),
    )
    assert completed(after) == ["One two. Three."]
    assert not [kind for kind in kinds(after) if kind.startswith("buffer.")]


def test_cleared_audio_gives_no_message() -> None:
    items = ItemTranslator()
    translate(items, speech(True, 1.0), caption("One two", 1))
    items.clear(2.0)
    assert translate(items, caption("One two."), speech(False, 2.0), flushed()) == []
    assert completed(translate(items, speech(True, 3.0), caption("Four."), speech(False, 4.0))) == ["Four."]


def test_skipped_audio_is_reported_and_an_item_without_words_fails() -> None:
    gap = {"type": "caption.gap", "at": 1.0, "start": 1.0, "end": 2.0, "reason": "overload"}
    messages = translate(ItemTranslator(), speech(True, 1.0), gap, speech(False, 2.0))
    assert kinds(messages)[-1] == "transcription.failed"
    errors = [message["error"]["code"] for message in messages if message["type"] == "error"]
    assert errors == ["audio_skipped"]
    assert completed(
        translate(ItemTranslator(), speech(True, 1.0), gap, caption("But this."), speech(False, 3.0))
    ) == ["But this."]


def test_an_open_item_fails_with_its_session() -> None:
    messages = translate(ItemTranslator(), speech(True, 1.0), caption("One two", 1), closed("failed"))
    assert kinds(messages)[-1] == "transcription.failed"


def test_errors_have_openais_fields() -> None:
    assert error_body(Unauthorized("who?")) == {
        "type": "invalid_request_error",
        "code": "invalid_api_key",
        "message": "who?",
        "param": None,
    }
    event = error_event({"type": "t", "message": "m"}, "mine")
    assert event["error"] == {"type": "t", "message": "m", "code": None, "param": None, "event_id": "mine"}
    assert server_event("x", {})["event_id"] != server_event("x", {})["event_id"]


# --- the official client, unchanged -------------------------------------------------------------------------


def settings(**fields: Any) -> Any:
    return {
        "type": "transcription",
        "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}, **fields}},
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
async def test_the_official_client_gets_a_transcript(
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
    assert not list((tmp_path / "data").glob("[!.]*")), "nothing was written"


@pytest.mark.media
@pytest.mark.models
async def test_the_official_client_commits_clears_and_gets_errors(media: Path, tmp_path: Path) -> None:
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
        assert await mistake("[" * 100_000) == ("invalid_json", None, None), (
            "nested too deep for the JSON parser"
        )
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
