"""Deepgram's query parameters: parsed, and refused where they are not supported."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.options import SpeechOptions
from streamsvc.service.compat.audio_session import AudioFormat
from streamsvc.service.compat.deepgram_options import Options, audio_format, file_format, parse_options

RAW = "encoding=linear16&sample_rate=16000"


def test_options_and_the_format_are_parsed() -> None:
    query = QueryParams(
        "model=nova-3&encoding=mulaw&sample_rate=8000&language=en-US"
        "&keyterm=Zürich&keyterm=Anna&keywords=Bob:2&smart_format=true"
    )
    assert audio_format(query) == AudioFormat("pcm_mulaw", 8000)
    assert parse_options(query, Hear()) == Options(
        SpeechOptions("en", ("Zürich", "Anna", "Bob"), hangover=None),
        interim=False,
        punctuate=True,
        endpointing=True,
        vad_events=False,
        utterance_end=None,
        utterances=False,
    )


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
    options = parse_options(QueryParams(f"{RAW}&endpointing={endpointing}"), Hear())
    assert (options.endpointing, options.speech.hangover) == (ends, hangover)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "unsupported_encoding"),
        ("encoding=opus&sample_rate=48000", "unsupported_encoding"),
        ("encoding=linear16", "bad_parameter"),
        ("encoding=linear16&sample_rate=１６０００", "bad_parameter"),
        ("encoding=linear16&sample_rate=96000", "bad_parameter"),
        (f"{RAW}&channels=3", "unsupported_channels"),
        (f"{RAW}&model=gpt-9", "unknown_model"),
        (f"{RAW}&language=de", "unsupported_language"),
        (f"{RAW}&redact=pci", "unsupported_option"),
        (f"{RAW}&diarize=true", "unsupported_option"),
        (f"{RAW}&utterance_end_ms=100", "bad_parameter"),
        (f"{RAW}&endpointing=soon", "bad_parameter"),
        (f"{RAW}&keyterm={'x' * 2001}", "too_many_keyterms"),
        (RAW + "&keyterm=x" * 101, "too_many_keyterms"),
    ],
)
def test_unsupported_options_are_refused(query: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_options(QueryParams(query), Hear())
        audio_format(QueryParams(query))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        (RAW, AudioFormat("pcm_s16le", 16_000)),
        (f"{RAW}&channels=2", AudioFormat("pcm_s16le", 16_000, 2)),
        ("encoding=mulaw", AudioFormat("pcm_mulaw", 8000)),
        ("encoding=alaw&sample_rate=16000", AudioFormat("pcm_alaw", 16_000)),
        ("encoding=flac", "flac"),
        ("encoding=opus&sample_rate=48000", "opus"),
    ],
)
def test_a_body_is_samples_of_a_format_or_a_file(query: str, expected: AudioFormat | str | None) -> None:
    assert file_format(QueryParams(query)) == expected


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("encoding=linear16", "sample_rate"),
        ("encoding=mp7", "linear16, mulaw, alaw, flac, opus"),
        (f"{RAW}&channels=0", "channels"),
        (f"{RAW}&channels=two", "channels"),
        ("encoding=linear16&sample_rate=-1", "sample_rate"),
    ],
)
def test_a_wrong_format_is_named(query: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        file_format(QueryParams(query))


def test_channels_one_by_one_are_for_files_alone() -> None:
    query = QueryParams(f"{RAW}&multichannel=true")
    assert parse_options(query, Hear(), multichannel=True).multichannel
    with pytest.raises(InvalidRequest, match="multichannel"):
        parse_options(query, Hear())
