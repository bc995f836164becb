"""The doors of the real service: a recording goes in, events come out, and everything wrong is told clearly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from os import kill
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from fastapi import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed

from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import read
from streamsvc.service import app
from streamsvc.service.media_input import State
from tests.builders.clips import clip
from tests.builders.service import serving, socket_of, until
from tests.builders.units import cue, sight
from tests.fakes.hear_engine import written

KEY = "a-key-of-enough-length"


async def opened(client: httpx.AsyncClient, **body: Any) -> str:
    answer = await client.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def told(answer: httpx.Response) -> tuple[int, str]:
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"]


@pytest.mark.media
@pytest.mark.models
async def test_a_recording_becomes_captions_that_can_be_resumed_asked_about_and_read_as_subtitles(
    media: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, server={"sources": (media,)}) as (service, place, client):
        session = await opened(client, source=f"file:{media}/speech/harvard.flac", speed=4)
        async with socket_of(place, session) as events:
            first = await until(events, "caption.final")
            await events.send(
                json.dumps(
                    {"type": "question.ask", "id": "mine", "text": "What did they say about the stale smell?"}
                )
            )
            asked = await until(events, "answer.done")
            rest = await until(events, "session.closed")
        everything = first + asked + rest
        durable = [event for event in everything if "seq" in event]
        assert [event["seq"] for event in durable] == list(range(1, len(durable) + 1))
        assert [event["prev"] for event in durable] == list(range(len(durable)))
        text = " ".join(event["text"] for event in everything if event["type"] == "caption.final").lower()
        assert "takes heat to bring out the odor" in text
        assert "tacos" in text
        assert asked[-1]["question_id"] == "mine"
        assert "stale smell" in asked[-1]["text"].lower()
        assert asked[-1]["supported"]
        assert rest[-1]["reason"] == "source_ended"

        epoch, middle = durable[0]["epoch"], durable[len(durable) // 2]["seq"]
        async with socket_of(place, session, f"?epoch={epoch}&after={middle}") as events:
            resumed = await until(events, "session.closed")
        assert [event["seq"] for event in resumed if event["type"] != "answer.done"] == [
            event["seq"] for event in durable if event["seq"] > middle and event["type"] != "answer.done"
        ]
        answer = await client.get(
            f"/v1/sessions/{session}/events?types=caption.final", headers={"Last-Event-ID": f"{epoch}.0"}
        )
        assert (
            answer.text.count("event: caption.final") == text.count(".")
            or "event: caption.final" in answer.text
        )
        assert (await client.get(f"/v1/sessions/{session}/captions.vtt")).text.startswith("WEBVTT\n")
        assert "00:00:01," in (await client.get(f"/v1/sessions/{session}/captions.srt")).text
        assert (await client.get(f"/v1/sessions/{session}/captions.json")).json()[0]["words"]
        await service.ready()
        for query, wanted in (
            ("smell", ("stale smell",)),
            ("a nasty stench", ("stale smell", "odor")),
        ):  # by its word, by its meaning
            hit = (await client.get(f"/v1/sessions/{session}/search", params={"q": query})).json()[0]
            assert hit["kind"] == "speech"
            assert any(word in hit["text"] for word in wanted)
            assert "frame_url" not in hit
        assert (await client.get(f"/v1/sessions/{session}/stats")).json()["state"] == "ended"
        assert told(await client.post(f"/v1/sessions/{session}/questions", json={"text": "Late?"})) == (
            404,
            "session_ended",
        )
        assert (await client.delete(f"/v1/sessions/{session}", params={"purge": 1})).status_code == 200
        assert not (tmp_path / "data" / session).exists()
        assert told(await client.get(f"/v1/sessions/{session}")) == (404, "no_session")


@pytest.mark.media
@pytest.mark.models
async def test_two_languages_in_one_stream_come_out_each_in_its_own_and_in_english(
    media: Path, tmp_path: Path
) -> None:
    parts = [
        read(media / path)
        for path in ("multilingual/lp_fr.flac", "speech/sb_spk1_snt1.flac", "multilingual/lp_de.flac")
    ]
    pause = np.zeros(SAMPLE_RATE, np.float32)
    file = written(
        tmp_path / "three.wav", np.concatenate([sound for part in parts for sound in (part, pause)])
    )
    async with serving(tmp_path, server={"sources": (tmp_path,)}, hear={"model": "whisper-base"}) as (
        _,
        place,
        client,
    ):
        session = await opened(
            client, source=f"file:{file}", speed="max", translate=True, replace={"il devient": "il sera"}
        )
        async with socket_of(
            place, session, "?after=0&types=caption.final,caption.translation,session.closed"
        ) as events:
            got = await until(events, "session.closed", 120)
        finals = [event for event in got if event["type"] == "caption.final"]
        languages = [event["language"] for event in finals]
        assert sorted(set(languages), key=languages.index) == ["fr", "en", "de"]
        assert "il sera conservateur" in " ".join(event["text"] for event in finals)
        foreign = {event["id"] for event in finals if event["language"] != "en"}
        assert {event["of"] for event in got if event["type"] == "caption.translation"} == foreign
        english = (await client.get(f"/v1/sessions/{session}/captions.vtt", params={"lang": "en"})).text
        assert english.count("-->") == len(finals)
        assert "room" in english.lower()


@pytest.mark.media
@pytest.mark.models
async def test_the_session_outlives_its_killed_workers_and_its_events_resume(
    media: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, server={"sources": (media,)}) as (service, place, client):
        await service.ready()
        session = await opened(client, source=f"file:{media}/scenarios/scenes_photos.mp4")
        async with socket_of(place, session) as events:
            for role, kind in (("hear", "caption.final"), ("see", "sight.ready")):
                await until(events, kind)
                process = service.workers[role]
                old = process.pid
                assert old is not None
                killed, resumed = service.sessions.by_id[session].clock.position(), 0.0
                kill(old, signal.SIGKILL)
                while process.pid in (None, old):  # noqa: ASYNC110  # the supervisor tells nobody
                    await asyncio.sleep(0.05)
                while resumed < killed:
                    resumed = (await until(events, kind))[-1]["at"]
        assert service.sessions.by_id[session].state is State.LIVE


@pytest.mark.media
@pytest.mark.models
async def test_the_death_of_the_language_model_costs_no_answer(media: Path, tmp_path: Path) -> None:
    async with serving(tmp_path, server={"sources": (media,)}) as (service, place, client):
        session = await opened(client, source=f"file:{media}/speech/two_cities.flac")
        async with socket_of(place, session) as events:
            await until(events, "caption.final")
            await service.roles.think.call("count", {"text": "a"}, deadline_in_s=60)
            old = service.workers["think"].pid
            assert old is not None
            kill(old, signal.SIGKILL)
            await events.send(
                json.dumps(
                    {
                        "type": "question.ask",
                        "id": "after",
                        "text": "When did somebody say the best of times?",
                    }
                )
            )
            done = (await until(events, "answer.done"))[-1]
            assert done["question_id"] == "after"
            assert done["supported"]
            while service.workers["think"].pid in (None, old):  # noqa: ASYNC110  # the supervisor tells nobody
                await asyncio.sleep(0.05)
        assert (await service.roles.think.call("count", {"text": "a"}, deadline_in_s=60))["tokens"] >= 1
        assert service.sessions.by_id[session].state is State.LIVE


async def test_bad_sources_are_told_at_the_door_and_leave_nothing(tmp_path: Path) -> None:
    roots = tmp_path / "media"
    roots.mkdir()
    (roots / "empty.mp4").touch()
    (roots / "corrupt.mp4").write_bytes(b"no media at all" * 100)
    clip(tmp_path / "outside.mp4")
    async with serving(tmp_path, server={"sources": (roots,)}) as (service, _, client):
        for source, wanted in {
            f"file:{roots}/absent.mp4": (422, "not_found"),
            f"file:{roots}/empty.mp4": (422, "empty"),
            f"file:{roots}/corrupt.mp4": (422, "corrupt"),
            f"file:{tmp_path}/outside.mp4": (403, "outside_sources"),
            "gopher://x/y": (422, "bad_scheme"),
        }.items():
            assert told(await client.post("/v1/sessions", json={"source": source})) == wanted
        assert told(await client.post("/v1/sessions", json={"source": 7})) == (400, "bad_request")
        assert told(await client.post("/v1/sessions", json={"speed": 0})) == (400, "bad_speed")
        assert told(await client.post("/whip", content="x", headers={"Content-Type": "text/plain"})) == (
            415,
            "unsupported_media_type",
        )
        assert told(
            await client.post("/whip", content="v=0 x", headers={"Content-Type": "application/sdp"})
        ) == (400, "malformed_sdp")
        assert told(await client.get("/v1/sessions/0.none")) == (404, "no_session")
        assert told(await client.get("/nowhere")) == (404, "not_found")
        assert told(await client.put("/v1/sessions")) == (405, "method_not_allowed")
        assert (await client.get("/v1/capacity")).json() == {
            "sessions": 0,
            "limit": 4,
            "draining": False,
            "level": 0,
        }
        assert service.sessions.by_id == {}


async def test_a_silent_clip_is_no_error_and_a_question_before_any_content_is_refused_clearly(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = await opened(client, no_store=True)
        async with socket_of(place, session) as events:
            await events.send(json.dumps({"type": "question.ask", "text": "What is shown?"}))
            done = (await until(events, "answer.done"))[-1]
            assert not done["supported"]
            assert done["evidence"] == []
            for message, code in (
                ("no json", "bad_json"),
                ("[]", "bad_json"),
                ("[" * 60_000, "bad_json"),
                ('{"type":"fly"}', "unknown_type"),
                ('{"type":"question.ask"}', "empty_question"),
                ('{"type":"question.ask","id":"\\ud800","text":"Who?"}', "bad_json"),
                ('{"type":"question.cancel","id":"q"}', "no_question"),
            ):
                await events.send(message)
                assert (await until(events, "error"))[-1]["error"]["code"] == code
            await events.send('{"type":"ping","id":"p"}')
            assert (await until(events, "pong"))[-1]["id"] == "p"
        answer = await client.post(
            f"/v1/sessions/{session}/questions",
            json={"text": "Anything?"},
            headers={"Accept": "text/event-stream"},
        )
        assert "event: answer.done" in answer.text
        assert told(await client.post(f"/v1/sessions/{session}/questions", json={"text": " "})) == (
            400,
            "empty_question",
        )
        assert told(await client.delete(f"/v1/sessions/{session}/questions/q_none")) == (404, "no_question")
        assert not (tmp_path / "data" / session).exists(), "no_store writes nothing"


class Gone:
    """A socket whose client has left before it was let in."""

    scope: dict[str, Any] = {"subprotocols": ()}  # noqa: RUF012

    def __init__(self, place: str) -> None:
        self.headers = {"host": place}

    async def accept(self, _: str | None) -> None:
        raise WebSocketDisconnect(1006)


async def test_subscribers_who_leave_at_the_handshake_take_no_place(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"subscribers": 2}) as (service, place, client):
        session = await opened(client, no_store=True)
        for _ in range(3):
            await app._event_socket(service, cast(WebSocket, Gone(place)), session, [], None, None, "")
        async with socket_of(place, session) as events:
            await until(events, "session.created")


async def test_a_hit_comes_with_the_picture_that_was_shown_then_as_long_as_it_is_kept(tmp_path: Path) -> None:
    async with serving(tmp_path, store={"frames": 1}) as (service, _, client):
        session = service.sessions.by_id[await opened(client)]
        for at in (1.0, 9.0):
            await session.log.put_frame(at, f"picture at {at}".encode())
            session.timeline.add(sight(at, f"cat {at:.0f}"))
            session.timeline.add(cue("A stone-cutter lived there.", at + 0.5))
        new, old = (await client.get(f"/v1/sessions/{session.id}/search", params={"q": "stonecutter"})).json()
        assert (new["start"], new["kind"], new["text"]) == (9.5, "speech", "A stone-cutter lived there.")
        assert (await client.get(new["frame_url"])).content == b"picture at 9.0"
        assert old["start"] == 1.5
        assert "frame_url" not in old
        assert told(await client.get("/v1/sessions/none/search", params={"q": "stone"})) == (
            404,
            "no_session",
        )


async def test_a_full_server_says_when_to_come_back(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"sessions": 1}) as (_, _, client):
        session = await opened(client)
        answer = await client.post("/v1/sessions", json={})
        assert told(answer) == (503, "capacity")
        assert int(answer.headers["Retry-After"]) >= 1
        await client.delete(f"/v1/sessions/{session}")
        async with asyncio.timeout(5):
            while (await client.post("/v1/sessions", json={})).status_code != 201:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_with_a_key_every_door_wants_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, place, client):
        bearer = {"Authorization": f"Bearer {KEY}"}
        for method, path in (
            ("POST", "/v1/sessions"),
            ("GET", "/v1/capacity"),
            ("GET", "/metrics"),
            ("POST", "/v1/tokens"),
        ):
            assert told(await client.request(method, path, json={} if method == "POST" else None)) == (
                401,
                "unauthorized",
            )
        session = (await client.post("/v1/sessions", json={}, headers=bearer)).json()["id"]
        with pytest.raises(ConnectionClosed) as refused:
            async with socket_of(place, session) as events:
                while True:
                    await events.recv()
        assert refused.value.rcvd is not None
        assert refused.value.rcvd.code == 4401
        token = (
            await client.post("/v1/tokens", json={"session": session, "may": ["subscribe"]}, headers=bearer)
        ).json()["token"]
        async with socket_of(
            place, session, subprotocols=["streamsvc.v1", f"streamsvc.token.{token}"]
        ) as events:
            await until(events, "session.created")
            await events.send(json.dumps({"type": "question.ask", "text": "May I?"}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "forbidden"
        answer = await client.delete(f"/v1/sessions/{session}", headers={"Authorization": f"Bearer {token}"})
        assert told(answer) == (403, "forbidden")


async def test_an_open_server_refuses_foreign_pages_and_names(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        assert told(
            await client.post("/v1/sessions", json={}, headers={"Origin": "https://evil.example"})
        ) == (403, "bad_origin")
        assert told(await client.get("/v1/capacity", headers={"Host": "evil.example"})) == (403, "bad_host")


async def test_operations_answer_and_metrics_have_the_names_of_the_interface(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        assert (await client.get("/healthz")).status_code == 200
        text = (await client.get("/metrics")).text
        for name in [
            "sessions_active",
            "sessions_total",
            "stage_latency_seconds",
            "caption_age_seconds",
            "answer_first_delta_seconds",
            "deadline_missed_total",
            "frames_total",
            "queue_depth",
            "asr_backlog_seconds",
            "audio_processed_seconds_total",
            "caption_gap_seconds_total",
            "subscribers",
            "events_dropped_total",
            "ice_failures_total",
            "rtp_packets_lost_total",
            "batch_size",
            "worker_restarts_total",
            "degradation_level",
            "build_info",
        ]:
            assert f" streamsvc_{name.removesuffix('_total')}" in text, name
        page = await client.get("/")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert "caption.final" in (await client.get("/v1/schema")).json()["$defs"]
        assert (await client.get("/docs")).status_code == 200


async def test_the_language_of_a_live_session_can_be_fixed_by_whoever_may_publish(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}, hear={"model": "whisper-base"}) as (
        service,
        place,
        client,
    ):
        client.headers["Authorization"] = f"Bearer {KEY}"
        session = await opened(client)
        reader = service.auth.token(
            service.auth.grants(client.headers), session=session, may=("subscribe",), seconds=60
        )
        async with socket_of(place, session, additional_headers={"Authorization": f"Bearer {KEY}"}) as events:
            await until(events, "session.created")
            for body, code in (
                ({"language": "klingon"}, "unknown_language"),
                ({}, "bad_update"),
                ({"language": 7}, "bad_update"),
            ):
                await events.send(json.dumps({"type": "session.update", **body}))
                assert (await until(events, "error"))[-1]["error"]["code"] == code
            await events.send(json.dumps({"type": "session.update", "language": "de"}))
            assert (await until(events, "session.updated"))[-1]["reason"] == "language"
        async with socket_of(
            place, session, additional_headers={"Authorization": f"Bearer {reader}"}
        ) as events:
            await events.send(json.dumps({"type": "session.update", "language": None}))
            assert (await until(events, "error"))[-1]["error"]["type"] == "permission_error"


async def test_what_the_models_cannot_do_is_refused_when_a_session_is_made(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, client):
        for body, code in (
            ({"translate": True}, "cannot_translate"),
            ({"language": "de"}, "unknown_language"),
            ({"language": "tlh"}, "unknown_language"),
            ({"adapter": "medical"}, "no_adapter"),
            ({"adapter": "a" * 65}, "bad_request"),
            ({"replace": {"a": ""}}, "bad_request"),
            ({"replace": {"a" * 101: "b"}}, "bad_request"),
            ({"replace": {str(number): "b" for number in range(201)}}, "bad_request"),
        ):
            assert told(await client.post("/v1/sessions", json=body))[0] in (400, 422), body
            assert told(await client.post("/v1/sessions", json=body))[1] == code, body
        assert service.sessions.by_id == {}
        assert (
            await client.post(
                "/v1/sessions", json={"language": "en", "translate": False, "replace": {"a b": "c"}}
            )
        ).status_code == 201


async def test_the_end_of_the_service_is_told_to_subscribers(tmp_path: Path) -> None:
    got: list[dict[str, Any]] = []
    async with contextlib.AsyncExitStack() as stack:
        service, place, client = await stack.enter_async_context(serving(tmp_path))
        session = await opened(client)
        events = await stack.enter_async_context(socket_of(place, session))
        await until(events, "session.created")
        ending = asyncio.create_task(service.drain())
        got = await until(events, "session.closed")
        await ending
        assert told(await client.post("/v1/sessions", json={})) == (503, "capacity")
    assert [event["type"] for event in got] == ["session.going_away", "session.closed"]
