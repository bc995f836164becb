"""Deepgram's live protocol: the official client against the real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.builders.deepgram import RAW, official
from tests.builders.service import serving
from tests.builders.spoken import heard, samples

pytestmark = pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning")  # the official client's


@pytest.mark.media
@pytest.mark.models
@pytest.mark.parametrize(
    ("encoding", "codec", "rate"), [("linear16", "pcm_s16le", 16_000), ("alaw", "pcm_alaw", 8_000)]
)
async def test_the_official_client_gets_a_transcript(
    media: Path, tmp_path: Path, encoding: str, codec: str, rate: int
) -> None:
    data = samples(media / "speech" / "harvard.flac", rate, codec)
    half = len(data) // 18 * 10 // 2 * 2  # in the pause at 10 s
    options: dict[str, Any] = {
        "encoding": encoding,
        "sample_rate": rate,
        "interim_results": True,
        "vad_events": True,
    }
    options |= {"utterance_end_ms": 1000, "smart_format": True}
    async with contextlib.AsyncExitStack() as stack:
        service, place, http = await stack.enter_async_context(serving(tmp_path))
        await service.ready()  # before connecting: an idle client is disconnected after 10 s
        connection = await stack.enter_async_context(
            official(place, http).listen.v1.connect(model="nova-3", **options)
        )

        async def send() -> None:
            await connection.send_keep_alive()
            for first in range(0, half, 3200):
                await connection.send_media(data[first : min(first + 3200, half)])
            await connection.send_finalize()
            await connection.send_media(data[half:])
            await connection.send_close_stream()

        sending = asyncio.create_task(send())
        async with asyncio.timeout(60):
            got: list[Any] = [message async for message in connection]
        await sending
    results = [message for message in got if message.type == "Results"]
    finals = [message for message in results if message.is_final]
    text = " ".join(message.channel.alternatives[0].transcript for message in finals)
    assert len(heard(text)) >= 4
    assert text.lower().startswith("the stale smell of old")
    assert len(finals) < len(results), "there were interim results"
    finalized = [message for message in finals if message.from_finalize]
    assert len(finalized) == 1
    assert finalized[0].start + finalized[0].duration == pytest.approx(9.2, abs=0.6)
    assert finals[-1].speech_final
    starts = [message.start for message in finals]
    assert starts == sorted(starts)
    assert got[0].type == "SpeechStarted"
    assert got[-1].type == "Metadata"
    assert got[-1].duration == pytest.approx(len(data) / rate / (2 if codec == "pcm_s16le" else 1), abs=0.01)
    assert service.sessions.by_id == {}
    assert not list((tmp_path / "data").glob("[!.]*")), "nothing was written"


async def test_an_invalid_message_is_answered_with_an_error_and_the_stream_continues(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, _), connect(f"ws://{place}/v1/listen?{RAW}") as socket:
        for wrong in ("no json", "[" * 100_000, "[]", '{"type": "Fly"}'):
            await socket.send(wrong)
            assert json.loads(await socket.recv())["variant"] == "SchemaError"
        await socket.send('{"type": "Configure", "keyterms": ["Anna"]}')
        assert json.loads(await socket.recv())["type"] == "ConfigureFailure"
        await socket.send('{"type": "Finalize"}')
        assert json.loads(await socket.recv())["from_finalize"]
        await socket.send(b"")  # the legacy form of CloseStream
        assert json.loads(await socket.recv())["type"] == "Metadata"
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1000
