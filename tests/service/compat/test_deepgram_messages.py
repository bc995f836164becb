"""Translation of events into Deepgram's messages, validated by the official types."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest
from starlette.datastructures import QueryParams

from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear
from streamsvc.core.errors import CapacityError, Unauthorized
from streamsvc.service.compat.deepgram_messages import RequestInfo, ResultTranslator, alternative, error_body
from streamsvc.service.compat.deepgram_options import parse_options
from tests.builders.spoken import caption, flushed, speech, words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports websockets.legacy
    from deepgram.listen.v1.types.listen_v1metadata import ListenV1Metadata
    from deepgram.listen.v1.types.listen_v1results import ListenV1Results
    from deepgram.listen.v1.types.listen_v1speech_started import ListenV1SpeechStarted
    from deepgram.listen.v1.types.listen_v1utterance_end import ListenV1UtteranceEnd

TYPES: dict[str, Any] = {
    "Results": ListenV1Results,
    "SpeechStarted": ListenV1SpeechStarted,
    "UtteranceEnd": ListenV1UtteranceEnd,
    "Metadata": ListenV1Metadata,
}


def translator(query: str = "interim_results=true") -> ResultTranslator:
    return ResultTranslator(
        parse_options(QueryParams(query), Hear()), RequestInfo("r", "whisper-tiny.en"), 0.5
    )


def translate(translator: ResultTranslator, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages for events, validated against the official client's types."""
    messages = [message for event in events for message in translator.translate(event)]
    for message in messages:
        if message["type"] in TYPES:
            TYPES[message["type"]].model_validate(message)
    return messages


def short(messages: list[dict[str, Any]]) -> list[str]:
    """Flags and transcript: `F` final, `i` interim, `S` speech_final, `Z` from_finalize."""
    lines = []
    for message in messages:
        if message["type"] != "Results":
            lines.append(message["type"])
            continue
        flags = "F" if message["is_final"] else "i"
        flags += "S" * message["speech_final"] + "Z" * message["from_finalize"]
        lines.append(f"{flags} {message['channel']['alternatives'][0]['transcript']}".strip())
    return lines


def test_the_last_words_of_an_utterance_are_speech_final_and_no_result_is_empty() -> None:
    events = (
        speech(True, 1.0),
        caption("One two", 1),
        caption("One two."),
        caption("Three", 0, 3.0),
        caption("Three.", None, 3.0),
        speech(False, 5.0),
    )
    assert short(translate(translator(), *events)) == [
        "i one two",
        "i one two",
        "F one two",
        "i three",
        "i three",
        "FS three",
    ]
    assert short(translate(translator(""), *events)) == ["F one two", "FS three"]
    assert short(translate(translator("endpointing=false"), *events)) == ["F one two", "F three"]


def test_speech_started_is_sent_only_with_vad_events() -> None:
    started = translate(translator("vad_events=true"), speech(True, 1.5))
    assert started == [{"type": "SpeechStarted", "channel": [0, 1], "timestamp": 1.5}]
    assert translate(translator(""), speech(True, 1.5)) == []


def test_an_utterance_ends_when_enough_audio_is_silent_and_enough_time_has_passed() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        live = translator("utterance_end_ms=1000")
        translate(live, speech(True, 1.0), caption("One two."))  # the last word ends at 1.9
        assert live.overdue(9.0) == [], "speech goes on"
        translate(live, speech(False, 2.0))
        assert live.overdue(9.0) == [], "audio faster than real time may hold unreported speech"
        await asyncio.sleep(0.6)
        assert live.overdue(2.8) == [], "too little audio"
        assert live.overdue(3.0) == [{"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.9}]
        assert live.overdue(9.0) == [], "once"

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())


@pytest.mark.parametrize(("again", "ends"), [(2.5, False), (2.95, True)])
def test_the_next_speech_ends_an_utterance_if_the_silence_was_long_enough(again: float, ends: bool) -> None:
    messages = translate(
        translator("utterance_end_ms=1000"),
        speech(True, 1.0),
        caption("One two."),
        speech(False, 2.0),
        speech(True, again),
    )
    assert ("UtteranceEnd" in short(messages)) is ends


def test_finalize_marks_the_last_result_and_sends_an_empty_one_without_speech() -> None:
    live = translator("")
    live.finalizing = True
    two = (caption("One."), speech(False, 2.0), caption("Two.", None, 3.0), speech(False, 4.0), flushed())
    assert short(translate(live, *two)) == ["FS one", "FSZ two"]
    live.finalizing = True
    empty = translate(live, flushed())
    assert short(empty) == ["FZ"]
    assert empty[0]["channel"]["alternatives"] == [{"transcript": "", "confidence": 0.0, "words": []}]
    assert translate(live, flushed()) == []


def test_words_have_no_punctuation_unless_requested() -> None:
    spoken = words("“Don't, she said —")
    bare, full = alternative(spoken, punctuate=False), alternative(spoken, punctuate=True)
    assert bare["transcript"] == "don't she said"
    assert full["transcript"] == "“Don't, she said"
    assert [word["punctuated_word"] for word in full["words"]] == ["“Don't,", "she", "said"]
    assert "punctuated_word" not in bare["words"][0]
    assert bare["confidence"] == 0.9


def test_an_error_body_has_deepgrams_fields() -> None:
    assert error_body(Unauthorized("who?"), "r") == {
        "err_code": "INVALID_AUTH",
        "err_msg": "who?",
        "request_id": "r",
    }
    assert error_body(CapacityError("full"), "r")["err_code"] == "SERVICE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("\u0928\u092e\u0938\u094d\u0924\u0947,", "\u0928\u092e\u0938\u094d\u0924\u0947"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("\u201cYes!\u201d", "yes"),
    ],
)
def test_a_word_keeps_its_marks_and_joiners(text: str, word: str) -> None:
    told = {"text": text, "start": 0.0, "end": 1.0, "probability": 0.9}
    assert alternative([told], True)["words"][0] | {} == {
        "word": word,
        "start": 0.0,
        "end": 1.0,
        "confidence": 0.9,
        "punctuated_word": text,
    }
