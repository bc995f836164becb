"""Deepgram's live protocol: query and translation alone, then the official client against the real service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from starlette.datastructures import QueryParams
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear
from streamsvc.core.errors import CapacityError, InvalidRequest, Unauthorized
from streamsvc.service.compat.audio_session import Format
from streamsvc.service.compat.deepgram_live import Listener, Request, alternative, body, options
from tests.builders.deepgram import RAW, official
from tests.builders.service import serving
from tests.builders.spoken import caption, flushed, heard, samples, speech, words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports websockets.legacy
    from deepgram.listen.v1.types.listen_v1metadata import ListenV1Metadata
    from deepgram.listen.v1.types.listen_v1results import ListenV1Results
    from deepgram.listen.v1.types.listen_v1speech_started import ListenV1SpeechStarted
    from deepgram.listen.v1.types.listen_v1utterance_end import ListenV1UtteranceEnd

pytestmark = pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning")  # the official client's

TYPES: dict[str, Any] = {
    "Results": ListenV1Results,
    "SpeechStarted": ListenV1SpeechStarted,
    "UtteranceEnd": ListenV1UtteranceEnd,
    "Metadata": ListenV1Metadata,
}


def listener(query: str = "interim_results=true") -> Listener:
    return Listener(
        options(QueryParams(f"{RAW}&{query}"), Hear(), live=True), Request("r", "whisper-tiny.en"), 0.5
    )


def told(one: Listener, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages for events, each held against the official client's own types."""
    messages = [made for event in events for made in one.take(event)]
    for made in messages:
        if made["type"] in TYPES:
            TYPES[made["type"]].model_validate(made)
    return messages


def short(messages: list[dict[str, Any]]) -> list[str]:
    """`F` final, `i` interim, `S` speech_final, `Z` from_finalize, and the transcript."""
    lines = []
    for made in messages:
        if made["type"] != "Results":
            lines.append(made["type"])
            continue
        marks = ("F" if made["is_final"] else "i") + "S" * made["speech_final"] + "Z" * made["from_finalize"]
        lines.append(f"{marks} {made['channel']['alternatives'][0]['transcript']}".strip())
    return lines


def test_the_last_words_of_an_utterance_are_speech_final_and_nothing_empty_is_sent() -> None:
    events = (
        speech(True, 1.0),
        caption("One two", 1),
        caption("One two."),
        caption("Three", 0, 3.0),
        caption("Three.", None, 3.0),
        speech(False, 5.0),
    )
    assert short(told(listener(), *events)) == [
        "i one two",
        "i one two",
        "F one two",
        "i three",
        "i three",
        "FS three",
    ]
    assert short(told(listener(""), *events)) == ["F one two", "FS three"]
    assert short(told(listener("endpointing=false"), *events)) == ["F one two", "F three"]


def test_speech_and_its_end_are_told_where_asked_for() -> None:
    one = listener("vad_events=true")
    started = told(one, speech(True, 1.5))
    assert started == [{"type": "SpeechStarted", "channel": [0, 1], "timestamp": 1.5}]
    assert told(listener(""), speech(True, 1.5)) == []


def test_an_utterance_ends_when_enough_audio_is_silent_and_time_has_passed() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        one = listener("utterance_end_ms=1000")
        told(one, speech(True, 1.0), caption("One two."))  # the last word ends at 1.9
        assert one.late(9.0) == [], "somebody speaks"
        told(one, speech(False, 2.0))
        assert one.late(9.0) == [], "who sends faster than time may be about to speak"
        await asyncio.sleep(0.6)
        assert one.late(2.8) == [], "too little audio"
        assert one.late(3.0) == [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.9}]
        assert one.late(9.0) == [], "once"

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


@pytest.mark.parametrize(("again", "ends"), [(2.5, False), (2.95, True)])
def test_the_next_speech_shows_whether_the_silence_was_long_enough(again: float, ends: bool) -> None:
    messages = told(
        listener("utterance_end_ms=1000"),
        speech(True, 1.0),
        caption("One two."),
        speech(False, 2.0),
        speech(True, again),
    )
    assert ("UtteranceEnd" in short(messages)) is ends


def test_finalize_marks_the_last_result_and_is_answered_even_where_nobody_spoke() -> None:
    one = listener("")
    one.finalizing = True
    assert short(
        told(
            one,
            caption("One."),
            speech(False, 2.0),
            caption("Two.", None, 3.0),
            speech(False, 4.0),
            flushed(),
        )
    ) == [
        "FS one",
        "FSZ two",
    ]
    one.finalizing = True
    empty = told(one, flushed())
    assert short(empty) == ["FZ"]
    assert empty[0]["channel"]["alternatives"] == [{"transcript": "", "confidence": 0.0, "words": []}]
    assert told(one, flushed()) == []


def test_words_are_bare_or_punctuated() -> None:
    spoken = words("“Don't, she said —")
    bare, full = alternative(spoken, punctuate=False), alternative(spoken, punctuate=True)
    assert bare["transcript"] == "don't she said"
    assert full["transcript"] == "“Don't, she said"
    assert [word["punctuated_word"] for word in full["words"]] == ["“Don't,", "she", "said"]
    assert "punctuated_word" not in bare["words"][0]
    assert bare["confidence"] == 0.9


def test_options_are_read() -> None:
    asked = options(
        QueryParams(
            "model=nova-3&encoding=mulaw&sample_rate=8000&language=en-US&keyterm=Zürich&keyterm=Anna&keywords=Bob:2&smart_format=true"
        ),
        Hear(),
        live=True,
    )
    assert asked.format == Format("pcm_mulaw", 8000)
    assert (asked.language, asked.vocabulary, asked.punctuate) == ("en", ("Zürich", "Anna", "Bob"), True)
    assert (asked.interim, asked.endpointing, asked.vad_events, asked.utterance_end) == (
        False,
        True,
        False,
        None,
    )
    assert asked.hangover is None


@pytest.mark.parametrize(
    ("endpointing", "ends", "hangover"),
    [
        ("300", True, 0.3),
        ("0", True, 0.1),
        ("10", True, 0.1),
        ("60000", True, 5.0),
        ("true", True, None),
        ("false", False, None),
    ],
)
def test_endpointing_is_the_silence_that_ends_an_utterance(
    endpointing: str, ends: bool, hangover: float | None
) -> None:
    asked = options(QueryParams(f"{RAW}&endpointing={endpointing}"), Hear(), live=True)
    assert (asked.endpointing, asked.hangover) == (ends, hangover)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "unsupported_encoding"),
        ("encoding=opus&sample_rate=48000", "unsupported_encoding"),
        ("encoding=linear16", "bad_parameter"),
        ("encoding=linear16&sample_rate=１６０００", "bad_parameter"),
        ("encoding=linear16&sample_rate=96000", "bad_parameter"),
        (f"{RAW}&channels=2", "unsupported_channels"),
        (f"{RAW}&model=gpt-9", "unknown_model"),
        (f"{RAW}&language=de", "unsupported_language"),
        (f"{RAW}&redact=pci", "unsupported_option"),
        (f"{RAW}&diarize=true", "unsupported_option"),
        (f"{RAW}&utterance_end_ms=100", "bad_parameter"),
        (f"{RAW}&endpointing=soon", "bad_parameter"),
        (f"{RAW}&keyterm={'x' * 2001}", "too_many_keyterms"),
    ],
)
def test_options_that_cannot_be_served_are_refused(query: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        options(QueryParams(query), Hear(), live=True)
    assert refused.value.code == code


def test_errors_have_their_shape() -> None:
    assert body(Unauthorized("who?"), "r") == {
        "err_code": "INVALID_AUTH",
        "err_msg": "who?",
        "request_id": "r",
    }
    assert body(CapacityError("full"), "r")["err_code"] == "SERVICE_UNAVAILABLE"


# --- the official client, unchanged -------------------------------------------------------------------------------------


@pytest.mark.media
@pytest.mark.models
@pytest.mark.parametrize(
    ("encoding", "codec", "rate"), [("linear16", "pcm_s16le", 16_000), ("alaw", "pcm_alaw", 8_000)]
)
async def test_the_official_client_has_its_speech_transcribed(
    media: Path, tmp_path: Path, encoding: str, codec: str, rate: int
) -> None:
    data = samples(media / "speech" / "harvard.flac", rate, codec)
    half = len(data) // 18 * 10 // 2 * 2  # in the pause at 10 s
    asked: dict[str, Any] = {
        "encoding": encoding,
        "sample_rate": rate,
        "interim_results": True,
        "vad_events": True,
    }
    asked |= {"utterance_end_ms": 1000, "smart_format": True}
    async with contextlib.AsyncExitStack() as stack:
        service, place, http = await stack.enter_async_context(serving(tmp_path))
        await service.ready()  # first: a client that is silent for 10 s is left
        connection = await stack.enter_async_context(
            official(place, http).listen.v1.connect(model="nova-3", **asked)
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
    assert not list((tmp_path / "data").glob("*")), "nothing was written"


async def test_messages_that_are_none_are_told_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, _), connect(f"ws://{place}/v1/listen?{RAW}") as socket:
        for wrong in ("no json", "[" * 100_000, "[]", '{"type": "Fly"}'):
            await socket.send(wrong)
            assert json.loads(await socket.recv())["variant"] == "SchemaError"
        await socket.send('{"type": "Configure", "keyterms": ["Anna"]}')
        assert json.loads(await socket.recv())["type"] == "ConfigureFailure"
        await socket.send('{"type": "Finalize"}')
        assert json.loads(await socket.recv())["from_finalize"]
        await socket.send(b"")  # the old way to close
        assert json.loads(await socket.recv())["type"] == "Metadata"
        with pytest.raises(ConnectionClosed) as closed_by_server:
            await socket.recv()
        assert closed_by_server.value.rcvd is not None
        assert closed_by_server.value.rcvd.code == 1000
