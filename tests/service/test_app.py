"""The whole application: recordings in, events out; errors, tokens, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from os import kill
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import read
from streamsvc.service import app
from streamsvc.service.media_input import State
from streamsvc.service.public_path import PublicPath
from streamsvc.workers.supervisor import Worker
from tests.builders import fake_service
from tests.builders.fake_service import at_the_door
from tests.builders.service import error_of, open_session, serving, socket_of, until, warm
from tests.builders.spoken import KEY
from tests.fakes.hear_engine import written

CANARY = "canary-7f3a"


@pytest.mark.media
@pytest.mark.models
async def test_a_recording_gives_resumable_captions_answers_subtitles_and_search_results(
    media: Path, tmp_path: Path
) -> None:
    async with serving(tmp_path, server={"sources": (media,)}) as (service, place, client):
        await warm(service)
        session = await open_session(client, source=f"file:{media}/speech/harvard.flac", speed=4)
        async with socket_of(place, session) as events:
            first = await until(events, "caption.final")
            await events.send(
                json.dumps(
                    {"type": "question.ask", "id": "mine", "text": "What did they say about the stale smell?"}
                )
            )
            answered = await until(events, "answer.done")
            rest = await until(events, "session.closed")
        all_events = first + answered + rest
        durable = [event for event in all_events if "seq" in event]
        assert [event["seq"] for event in durable] == list(range(1, len(durable) + 1))
        assert [event["prev"] for event in durable] == list(range(len(durable)))
        text = " ".join(event["text"] for event in all_events if event["type"] == "caption.final").lower()
        assert "takes heat to bring out the odor" in text
        assert "tacos" in text
        assert answered[-1]["question_id"] == "mine"
        assert "stale smell" in answered[-1]["text"].lower()
        assert answered[-1]["supported"]
        assert (answered[-1]["outcome"], "reason" in answered[-1]) == ("answer", False)
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
        for query, phrases in (
            ("smell", ("stale smell",)),
            ("a nasty stench", ("stale smell", "odor")),
        ):  # an exact word, then a paraphrase
            hit = (await client.get(f"/v1/sessions/{session}/search", params={"q": query})).json()[0]
            assert hit["kind"] == "speech"
            assert any(phrase in hit["text"] for phrase in phrases)
            assert "frame_url" not in hit
        assert (await client.get(f"/v1/sessions/{session}/stats")).json()["state"] == "ended"
        late = await client.post(
            f"/v1/sessions/{session}/questions",
            json={"text": "What was said about the smell of old beer?"},
            headers={"Accept": "text/event-stream"},
        )
        assert "stale smell" in late.text.lower()
        assert (await client.delete(f"/v1/sessions/{session}", params={"purge": 1})).status_code == 200
        assert not (tmp_path / "data" / session).exists()
        assert error_of(await client.get(f"/v1/sessions/{session}")) == (404, "no_session")


@pytest.mark.media
@pytest.mark.models
async def test_captions_in_several_languages_are_also_translated_to_english(
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
        session = await open_session(
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
async def test_a_session_survives_killed_workers_and_its_events_resume(media: Path, tmp_path: Path) -> None:
    async with serving(tmp_path, server={"sources": (media,)}) as (service, place, client):
        await service.ready()
        session = await open_session(client, source=f"file:{media}/scenarios/scenes_photos.mp4")
        async with socket_of(place, session) as events:
            for role, kind in (("hear", "caption.final"), ("see", "sight.ready")):
                await until(events, kind)
                process = service.workers[role]
                old = process.pid
                assert old is not None
                killed, resumed = service.sessions.by_id[session].clock.position(), 0.0
                kill(old, signal.SIGKILL)
                while process.pid in (None, old):  # noqa: ASYNC110  # no event reports a restart
                    await asyncio.sleep(0.05)
                while resumed < killed:
                    resumed = (await until(events, kind))[-1]["at"]
        assert service.sessions.by_id[session].state is State.LIVE


@pytest.mark.media
@pytest.mark.models
async def test_an_answer_comes_although_the_think_worker_was_killed(media: Path, tmp_path: Path) -> None:
    async with serving(tmp_path, server={"sources": (media,)}) as (service, place, client):
        await warm(service)
        session = await open_session(client, source=f"file:{media}/speech/two_cities.flac")
        async with socket_of(place, session) as events:
            await until(events, "caption.final")
            await service.roles.think.call("count", {"texts": ["a"]}, deadline_in_s=60)
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
            assert (done["outcome"], done["supported"], done["by"]) == ("answer", True, "tool")
            while service.workers["think"].pid in (None, old):  # noqa: ASYNC110  # no event reports a restart
                await asyncio.sleep(0.05)
        counted = await service.roles.think.call("count", {"texts": ["a"]}, deadline_in_s=60)
        assert counted["tokens"][0] >= 1
        assert service.sessions.by_id[session].state is State.LIVE


async def test_unknown_paths_and_methods_have_the_error_body(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        assert error_of(await client.get("/nowhere")) == (404, "not_found")
        assert error_of(await client.put("/v1/sessions")) == (405, "method_not_allowed")


REFUSED = [
    ("POST", "/v1/sessions", {"sorce": "x"}, "sorce: unknown key (meant source?); allowed: adapter, "),
    ("POST", "/v1/sessions", {"speed": "fast"}, "speed must be a number or 'max'"),
    ("POST", "/v1/sessions", [1], "the body must be an object of names and values"),
    ("POST", "/v1/sessions", None, "the body is missing"),
    ("POST", "/v1/sessions", b"{", "the body is not valid JSON (Expecting"),
    ("POST", "/v1/tokens", {"expires_in": "soon"}, "expires_in must be a number"),
    ("POST", "/v1/sessions/a/questions", {}, "text is missing"),
    ("POST", "/v1/sessions/a/watches", {"when": ""}, "when must not be empty"),
    ("POST", "/v1/sessions/a/pushes", {"to": "x", "url": "y"}, "to must be 'youtube', 'zoom' or 'ome'"),
    ("GET", "/v1/sessions/a/search", None, "q is missing"),
    ("GET", "/v1/sessions/a/frames/now.jpg", None, "at must be a number"),
    ("GET", "/v1/sessions/a/captions.doc", None, "form must be 'vtt', 'srt' or 'json'"),
    ("PUT", "/v1/tokens", None, "PUT is not possible here; allowed: "),
    ("GET", "/nowhere", None, "there is no /nowhere here; /docs lists the paths"),
]


async def test_every_refusal_names_what_was_wrong_in_plain_words(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        for method, path, body, said in REFUSED:
            content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
            labelled = {"Content-Type": "application/json"}
            refused = await client.request(method, path, content=content, headers=labelled)
            message = refused.json()["error"]["message"]
            assert message.startswith(said), (path, body)
            assert "Input" not in message
        bare = await client.post("/v1/sessions", content=b"{}")
        assert bare.json()["error"]["message"].endswith("sent with Content-Type: application/json")


async def test_with_a_key_every_route_requires_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path, server={"api_key": KEY}) as (_, place, client):
        bearer = {"Authorization": f"Bearer {KEY}"}
        for method, path in (
            ("POST", "/v1/sessions"),
            ("GET", "/v1/capacity"),
            ("GET", "/metrics"),
            ("POST", "/v1/tokens"),
        ):
            assert error_of(await client.request(method, path, json={} if method == "POST" else None)) == (
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
        assert error_of(answer) == (403, "forbidden")


async def test_an_open_server_refuses_foreign_origins_and_hosts(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        assert error_of(
            await client.post("/v1/sessions", json={}, headers={"Origin": "https://evil.example"})
        ) == (403, "bad_origin")
        assert error_of(await client.get("/v1/capacity", headers={"Host": "evil.example"})) == (
            403,
            "bad_host",
        )


async def test_health_metrics_schema_and_docs_are_served(tmp_path: Path) -> None:
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
        assert "caption.final" in (await client.get("/v1/schema")).json()["$defs"]
        assert (await client.get("/docs")).status_code == 200


async def test_a_service_whose_models_are_broken_or_not_yet_checked_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "fresh", True)
    async with fake_service.serving(tmp_path) as service:
        url = "http://127.0.0.1"
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app.build(service)), base_url=url
        ) as client:
            assert (await client.get("/readyz")).status_code == 503
            service.wrong_models = {"toy": "model toy: model.bin: missing. Run `streamsvc models pull toy`"}
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert answer.json()["wrong_models"] == service.wrong_models
            service.wrong_models = {}
            assert (await client.get("/readyz")).json()["ready"]


@pytest.mark.parametrize(
    ("asked", "status"), [("bytes=99999999-", 416), ("bytes=b-a", 400), ("lines=1", 400)]
)
async def test_a_wrong_range_of_a_file_has_the_error_body_too(
    tmp_path: Path, asked: str, status: int
) -> None:
    async with at_the_door(tmp_path) as (_, _, client):
        for path in ("/", "/web/page.js"):
            answer = await client.get(path, headers={"Range": asked})
            assert error_of(answer) == (status, "bad_range")
            assert answer.headers.get("content-range", "").startswith("bytes */") == (status == 416)
        answer = await client.get("/", headers={"Range": "bytes=0-3"})
        assert (answer.status_code, len(answer.content)) == (206, 4)


async def test_a_fault_has_the_error_body_and_its_text_reaches_neither_client_nor_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with at_the_door(tmp_path) as (service, _, client):

        def fails(*_: object) -> None:
            raise RuntimeError(CANARY)

        with monkeypatch.context() as patched:
            patched.setattr(service.load_controller, "describe", fails)
            inside = await client.get("/v1/capacity")  # in a route
        monkeypatch.setattr(PublicPath, "__call__", fails)  # in front of all of ours
        outside = await client.get("/healthz")
    for answer in (inside, outside):
        assert error_of(answer) == (500, "internal")
        assert CANARY not in answer.text
    printed = capsys.readouterr()
    assert "request failed" in printed.out + printed.err
    assert CANARY not in printed.out + printed.err


async def test_a_message_larger_than_any_question_ends_its_socket(tmp_path: Path) -> None:
    async with at_the_door(tmp_path, limits={"image_bytes": 10_000}) as (_, place, client):
        session = await open_session(client, no_store=True)
        async with socket_of(place, session) as events:
            await events.send(json.dumps({"type": "ping", "id": "x" * 80_000}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "too_large"
            with pytest.raises(ConnectionClosed) as closed:
                await events.send(json.dumps({"type": "ping", "id": "x" * 120_000}))
                await until(events, "pong")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_sessions_and_tokens_are_made_so_many_a_minute(tmp_path: Path) -> None:
    async with at_the_door(tmp_path, limits={"requests_per_minute": 3, "sessions": 50}) as (_, _, client):
        for path, body in (("/v1/sessions", {"no_store": True}), ("/v1/tokens", {})):
            answers = [(await client.post(path, json=body)).status_code for _ in range(4)]
            assert answers == [201, 201, 201, 429]


async def test_a_drain_sends_going_away_and_closed_to_subscribers(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        service, place, client = await stack.enter_async_context(serving(tmp_path))
        session = await open_session(client)
        events = await stack.enter_async_context(socket_of(place, session))
        await until(events, "session.created")
        ending = asyncio.create_task(service.drain())
        got = await until(events, "session.closed")
        await ending
        assert error_of(await client.post("/v1/sessions", json={})) == (503, "capacity")
    assert [event["type"] for event in got] == ["session.going_away", "session.closed"]


async def test_a_token_may_subscribe_alone_unless_more_is_asked_for(tmp_path: Path) -> None:
    key = "a key of sixteen characters"
    async with at_the_door(tmp_path, server={"api_key": key}) as (service, _, client):
        bearer = {"Authorization": f"Bearer {key}"}
        made = (await client.post("/v1/tokens", json={"session": "*"}, headers=bearer)).json()["token"]
        grants = service.auth.grants({"authorization": f"Bearer {made}"})
        assert grants.may == {"subscribe"}
