"""Deepgram's prerecorded protocol: the results, then the official client with a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from starlette.datastructures import QueryParams

from streamsvc.core.config import Hear
from streamsvc.ingest.source_process import SourceProcess
from streamsvc.service import app
from streamsvc.service.auth import Auth
from streamsvc.service.compat import routes
from streamsvc.service.compat.audio_session import ConnectionLimits
from streamsvc.service.compat.deepgram_file import results
from streamsvc.service.compat.deepgram_options import parse_options
from tests.builders import fake_service
from tests.builders.deepgram import official
from tests.builders.service import serving
from tests.builders.spoken import KEY, caption, heard, samples, speech

pytestmark = pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning")  # the official client's


def test_captions_become_one_transcript_and_utterances() -> None:
    options = parse_options(QueryParams("punctuate=true&utterances=true"), Hear())
    events = [
        caption("One two."),
        caption("Three.", None, 3.0),
        speech(False, 4.0),
        speech(False, 5.0),
        caption("Four.", None, 6.0),
    ]
    body = results(events, options)
    best = body["channels"][0]["alternatives"][0]
    assert best["transcript"] == "One two. Three. Four."
    assert [word["word"] for word in best["words"]] == ["one", "two", "three", "four"]
    utterances = [(line["transcript"], line["start"], line["end"]) for line in body["utterances"]]
    assert utterances == [
        ("One two. Three.", 1.0, 3.4),
        ("Four.", 6.0, 6.4),
    ]
    silent = results([], parse_options(QueryParams(""), Hear()))
    assert silent == {"channels": [{"alternatives": [{"transcript": "", "confidence": 0.0, "words": []}]}]}


@pytest.mark.media
@pytest.mark.models
async def test_the_official_client_gets_the_transcript_of_a_file(media: Path, tmp_path: Path) -> None:
    file = (media / "speech" / "harvard.flac").read_bytes()
    async with serving(tmp_path) as (service, place, http):
        await service.ready()
        client = official(place, http)
        answer: Any = await client.listen.v1.media.transcribe_file(
            request=file, model="nova-3", smart_format=True, utterances=True
        )
        best = answer.results.channels[0].alternatives[0]
        assert len(heard(best.transcript)) >= 5
        assert answer.metadata.duration == pytest.approx(18.3, abs=0.3)
        assert answer.metadata.models == ["whisper-tiny.en"]
        assert " ".join(utterance.transcript for utterance in answer.results.utterances) == best.transcript
        assert service.sessions.by_id == {}
    assert not list((tmp_path / "data").glob("[!.]*")), "nothing was stored"


WRONG = (
    (b"no media at all", "audio/wav", "", 400, "corrupt or unsupported data"),
    (b"", "audio/wav", "", 400, "corrupt or unsupported data"),
    (b"no json", "application/json", "", 400, "could not process the JSON"),
    (b"[" * 5_000, "application/json", "", 400, "could not process the JSON"),
    (b'{"url": "file:///etc/passwd"}', "application/json", "", 400, "http"),
    (b'{"url": "http://127.0.0.1:1/x.wav"}', "application/json", "", 403, "private network"),
    (b"x", "audio/wav", "?redact=pci", 400, "redact"),
    (b"x" * 20_000, "application/json", "", 413, "8192"),
    (b"\1\2" * 4000, "audio/raw", "", 400, "raw samples require encoding and sample_rate"),
    (b"\1\2" * 4000, "audio/raw", "?encoding=linear16", 400, "sample_rate"),
    (b"\1\2" * 4000, "audio/raw", "?encoding=linear24&sample_rate=16000", 400, "linear16, mulaw, alaw"),
    (b"\1\2" * 4000, "audio/raw", "?encoding=linear16&sample_rate=16000&channels=9", 400, "channels"),
    (b"\1\2" * 4000, "audio/raw", "?encoding=flac&sample_rate=16000", 400, "not a flac file"),
    (b"\1", "audio/raw", "?encoding=linear16&sample_rate=16000", 400, "no sample"),
    (b"", "audio/raw", "?encoding=mulaw", 400, "no sample"),
    (b'{"url": "http://127.0.0.1:1/x"}', "application/json", "?multichannel=true", 400, "multichannel"),
)


async def test_bad_media_and_options_are_refused_in_deepgrams_format(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, http):
        for content, kind, query, status, text in WRONG:
            answer = await http.post(f"/v1/listen{query}", content=content, headers={"Content-Type": kind})
            assert answer.status_code == status, content
            assert set(answer.json()) == {"err_code", "err_msg", "request_id"}
            assert text in answer.json()["err_msg"]
            assert "streamsvc-" not in answer.text, "the answer shows no path of this machine"
            assert answer.headers["dg-request-id"] == answer.json()["request_id"]
            assert service.sessions.by_id == {}


async def test_the_number_of_files_in_progress_is_limited(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await go_on.wait()
        yield b"x"

    async with serving(tmp_path, limits={"sessions": 1}) as (_, _, http):
        first = asyncio.create_task(
            http.post("/v1/listen", content=slow(), headers={"Content-Type": "audio/wav"})
        )
        await begun.wait()
        async with asyncio.timeout(10):
            while (answer := await http.post("/v1/listen", content=b"x")).status_code != 503:
                assert answer.status_code == 400, "the first has not arrived yet"
        assert answer.headers["Retry-After"]
        go_on.set()
        assert (await first).status_code == 400


def sent_by(auth: Auth, *tokens: str) -> list[dict[str, str]]:
    """Headers of new tokens; "again": one that was made with the one before."""
    made: list[dict[str, str]] = []
    for name in tokens:
        last = made[-1] if name == "again" else {"Authorization": f"Bearer {KEY}"}
        grants = auth.grants(httpx.Headers(last))
        token = auth.token(grants, session="*", may=("publish", "subscribe"), seconds=60).token
        made.append({"Authorization": f"Bearer {token}"})
    return made


async def test_one_token_has_its_share_of_the_files_in_progress(tmp_path: Path) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        begun.set()
        await go_on.wait()

    limits = {"sessions": 4, "sessions_per_token": 1}
    async with fake_service.serving(tmp_path, limits=limits, server={"api_key": KEY}) as service:
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            mine, again, other = sent_by(service.auth, "new", "again", "new")
            first = asyncio.create_task(http.post("/v1/listen", content=slow(), headers=mine))
            await begun.wait()
            for headers, status in ((mine, 503), (again, 503), (other, 400)):
                answer = await http.post("/v1/listen", content=b"x", headers=headers)
                assert answer.status_code == status, answer.text
                assert ("this token" in answer.text) is (status == 503)
            go_on.set()
            assert (await first).status_code == 400
            assert (await http.post("/v1/listen", content=b"x", headers=mine)).status_code == 400


@pytest.mark.parametrize("kind", ["audio/wav", "application/json"])
async def test_an_upload_that_never_ends_is_given_up(kind: str, tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with fake_service.serving(tmp_path) as service:
        application = FastAPI()
        application.include_router(routes.router(service, ConnectionLimits(file_seconds=0.05)))
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            async with asyncio.timeout(20):
                answer = await http.post("/v1/listen", content=endless(), headers={"Content-Type": kind})
    assert answer.status_code == 400
    assert "within 0.05 s" in answer.text


async def test_a_file_that_ends_the_process_that_reads_its_channels_is_answered_400(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demux, pids = SourceProcess.demux, []

    def ending(process: SourceProcess, *arguments: Any) -> Any:
        pids.append(process.pid)
        psutil.Process(process.pid).kill()
        return demux(process, *arguments)

    monkeypatch.setattr(SourceProcess, "demux", ending)
    body = samples(Path(__file__).parents[2] / "fixtures" / "canary.ogg", 16_000, "pcm_s16le")
    query = "encoding=linear16&sample_rate=16000&channels=2&multichannel=true"
    async with fake_service.serving(tmp_path) as service:
        transport = httpx.ASGITransport(app.build(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            answer = await http.post(
                f"/v1/listen?{query}", content=body, headers={"Content-Type": "audio/raw"}
            )
            assert (await http.get("/healthz")).status_code == 200
    assert answer.status_code == 400
    assert "failed to process audio" in answer.text
    assert len(pids) == 1 and pids[0] != os.getpid()


# Query, codec of libav ("": the file as it is), samples a second, channels.
RAW = [
    ("encoding=linear16&sample_rate=16000", "pcm_s16le", 16_000, 1),
    ("encoding=linear16&sample_rate=44100&channels=2", "pcm_s16le", 44_100, 2),
    ("encoding=mulaw", "pcm_mulaw", 8000, 1),
    ("encoding=alaw&sample_rate=8000", "pcm_alaw", 8000, 1),
    ("encoding=opus", "", 0, 1),
    ("encoding=linear16&sample_rate=16000&channels=2&multichannel=true", "pcm_s16le", 16_000, 2),
]


def raw_body(codec: str, rate: int, channels: int) -> bytes:
    """Seven seconds of speech, and a byte that is no whole sample; of two channels the right is silent."""
    fixture = Path(__file__).parents[2] / "fixtures" / "canary.ogg"
    if not codec:
        return fixture.read_bytes()
    body = samples(fixture, rate, codec)[: 7 * rate * (2 if codec == "pcm_s16le" else 1)]
    if channels == 2:
        body = b"".join(body[at : at + 2] + bytes(2) for at in range(0, len(body), 2))
    return body + b"\1"


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.timeout(300)  # six requests
async def test_raw_samples_are_transcribed(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, http):  # one for all: its models take longer than they do
        await service.ready()
        for query, codec, rate, channels in RAW:
            body = raw_body(codec, rate, channels)
            answer = await http.post(
                f"/v1/listen?{query}", content=body, headers={"Content-Type": "audio/raw"}
            )
            assert answer.status_code == 200, (query, answer.text)
            results, metadata = answer.json()["results"], answer.json()["metadata"]
            heard_in = [one["alternatives"][0]["transcript"] for one in results["channels"]]
            assert "once upon a time" in heard_in[0] and "stone cutter" in heard_in[0], query
            assert len(heard_in) == metadata["channels"] == (2 if "multi" in query else 1), query
            assert heard_in[1:] == [""] * (len(heard_in) - 1), query
