"""Authorisation and refusals of each protocol, and PCM into an existing session."""

from __future__ import annotations

import base64
import json
import warnings
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.builders.deepgram import RAW, official
from tests.builders.service import serving, socket_of, until
from tests.builders.spoken import KEY, heard, samples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from deepgram.core.api_error import ApiError

pytestmark = pytest.mark.filterwarnings("ignore:websockets.*:DeprecationWarning")  # the official client's

REALTIME = "/v1/realtime?intent=transcription"
LISTEN = f"/v1/listen?{RAW}"


async def refused(address: str, **options: Any) -> tuple[int, dict[str, Any], Any]:
    """Status, body and headers of a handshake that fails."""
    with pytest.raises(InvalidStatus) as caught:
        async with connect(address, **options):
            pass
    answer = caught.value.response
    return answer.status_code, json.loads(answer.body or b"{}"), answer.headers


async def test_a_wrong_key_is_refused_in_the_format_of_each_protocol(tmp_path: Path) -> None:
    wrong = {"Authorization": "Bearer wrong"}
    async with serving(tmp_path, server={"api_key": KEY}) as (service, place, http):
        for headers in (None, wrong):
            status, body, _ = await refused(f"ws://{place}{REALTIME}", additional_headers=headers)
            assert (status, body["error"]["code"], body["error"]["type"]) == (
                401,
                "invalid_api_key",
                "invalid_request_error",
            )
            status, body, sent = await refused(f"ws://{place}{LISTEN}", additional_headers=headers)
            assert (status, body["err_code"]) == (401, "INVALID_AUTH")
            assert sent["dg-request-id"] == body["request_id"]
            assert sent["dg-error"]
            status, body, _ = await refused(
                f"ws://{place}/v1/sessions/0.none/audio", additional_headers=headers
            )
            assert (status, body["error"]["type"]) == (401, "authentication_error")
            answer = await http.post("/v1/listen", content=b"x", headers=headers)
            assert (answer.status_code, answer.json()["err_code"]) == (401, "INVALID_AUTH")
        with pytest.raises(ApiError) as caught:
            async with official(place, http, key="wrong").listen.v1.connect(
                model="nova-3", encoding="linear16", sample_rate=16_000
            ):
                pass
        assert caught.value.status_code == 401
        async with AsyncOpenAI(api_key="wrong", base_url=f"http://{place}/v1") as client:
            with pytest.raises(InvalidStatus):
                await client.realtime.connect(extra_query={"intent": "transcription"}).enter()
        assert service.sessions.by_id == {}


async def test_a_key_is_accepted_in_a_header_and_in_a_subprotocol(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, place, _):
        for options, chosen in (
            ({"additional_headers": {"Authorization": f"Bearer {KEY}"}}, None),
            ({"subprotocols": ["realtime", f"openai-insecure-api-key.{KEY}"]}, "realtime"),
        ):
            async with connect(f"ws://{place}{REALTIME}", **options) as socket:
                assert json.loads(await socket.recv())["type"] == "session.created"
                assert socket.subprotocol == chosen
        for options, chosen in (
            ({"additional_headers": {"Authorization": f"Token {KEY}"}}, None),
            ({"subprotocols": ["token", KEY]}, "token"),
        ):
            async with connect(f"ws://{place}{LISTEN}", **options) as socket:
                await socket.send('{"type": "CloseStream"}')
                assert json.loads(await socket.recv())["type"] == "Metadata"
                assert socket.subprotocol == chosen


async def test_a_token_without_the_required_rights_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, place, http):
        owner = {"Authorization": f"Bearer {KEY}"}
        for body in (
            {"may": ["subscribe"]},
            {"may": ["publish"]},
            {"may": ["publish", "subscribe"], "session": "0.one"},
        ):
            token = (await http.post("/v1/tokens", json=body, headers=owner)).json()["token"]
            assert (
                await refused(f"ws://{place}{LISTEN}", additional_headers={"Authorization": f"Token {token}"})
            )[0] == 403
        made = (await http.post("/v1/sessions", json={}, headers=owner)).json()["id"]
        token = (
            await http.post("/v1/tokens", json={"may": ["publish"], "session": made}, headers=owner)
        ).json()["token"]
        async with connect(
            f"ws://{place}/v1/sessions/{made}/audio",
            subprotocols=[Subprotocol("streamsvc.v1"), Subprotocol(f"streamsvc.token.{token}")],
        ) as socket:
            await socket.send(bytes(320))
            await socket.send('{"type": "session.close"}')
            with pytest.raises(ConnectionClosed):
                await socket.recv()


async def test_an_unsupported_request_is_refused_at_the_handshake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as (service, place, _):
        status, body, _ = await refused(f"ws://{place}/v1/realtime?model=gpt-realtime")
        assert (status, body["error"]["code"]) == (400, "unsupported_intent")
        status, body, _ = await refused(f"ws://{place}{REALTIME}&model=gpt-9")
        assert (status, body["error"]["code"]) == (400, "model_not_found")
        status, body, _ = await refused(f"ws://{place}/v1/listen?encoding=opus&sample_rate=48000")
        assert (status, body["err_code"]) == (400, "Bad Request")
        assert "linear16, mulaw, alaw" in body["err_msg"]
        assert (
            await refused(f"ws://{place}{LISTEN}", additional_headers={"Origin": "https://evil.example"})
        )[0] == 403
        assert service.sessions.by_id == {}
    assert not [record for record in caplog.records if record.levelname == "ERROR"], (
        "a refusal is not logged as an error"
    )


async def test_a_full_server_and_the_rate_limit_send_retry_after(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, limits={"sessions": 1, "requests_per_minute": 3}) as (_, place, _),
        connect(f"ws://{place}{REALTIME}") as socket,
    ):
        await socket.recv()
        for address, where in ((REALTIME, "error"), (LISTEN, "err_msg")):
            status, body, headers = await refused(f"ws://{place}{address}")
            assert status == 503
            assert where in body
            assert int(headers["Retry-After"]) >= 1
        status, body, headers = await refused(f"ws://{place}{REALTIME}")
        assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
        assert headers["Retry-After"]


async def audio_refused(http: httpx.AsyncClient, place: str, session: str) -> tuple[int, str]:
    status, body, _ = await refused(f"ws://{place}/v1/sessions/{session}/audio")
    return status, body["error"]["code"]


@pytest.mark.media
@pytest.mark.models
async def test_samples_are_published_to_an_existing_session(media: Path, tmp_path: Path) -> None:
    data = samples(media / "speech" / "harvard.flac", 16_000)
    async with serving(tmp_path) as (service, place, http):
        await service.ready()
        assert await audio_refused(http, place, "0.none") == (404, "no_session")
        session = (await http.post("/v1/sessions", json={"speed": "max", "no_store": True})).json()["id"]
        async with socket_of(place, session, "?after=0&types=caption.final,session.*") as events:
            async with connect(f"ws://{place}/v1/sessions/{session}/audio?sample_rate=16000") as socket:
                assert await audio_refused(http, place, session) == (409, "already_publishing")
                for first in range(0, len(data), 32_000):
                    piece = data[first : first + 32_000]
                    message = json.dumps(
                        {"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()}
                    )
                    await socket.send(piece if first % 64_000 else message)
                await socket.send('{"type": "session.close"}')
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
            got = await until(events, "session.closed")
        assert len(heard(" ".join(event["text"] for event in got if event["type"] == "caption.final"))) >= 5
        assert got[-1]["reason"] == "source_ended"


async def test_a_disconnected_publisher_stalls_the_session_and_an_invalid_message_closes_the_socket(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (_, place, http):
        session = (await http.post("/v1/sessions", json={})).json()["id"]
        async with socket_of(place, session) as events:
            async with connect(f"ws://{place}/v1/sessions/{session}/audio") as socket:
                await socket.send(bytes(640))
            await until(events, "session.stalled", 10)
            async with connect(f"ws://{place}/v1/sessions/{session}/audio") as socket:
                await until(events, "session.resumed", 10)
                await socket.send('{"type": "input_audio_buffer.append", "audio": ' + "[" * 100_000)
                assert json.loads(await socket.recv())["error"]["code"] == "bad_audio"
                with pytest.raises(ConnectionClosed) as caught:
                    await socket.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 4400
