"""Caption pushes over HTTP, against local targets that follow the documents strictly."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from streamsvc.events import caption_push
from tests.builders.service import serving, socket_of, until
from tests.fakes.caption_target import QUICK, SECRET, caption_target


async def test_the_routes_need_the_right_to_publish_and_never_show_the_url(tmp_path: Path) -> None:
    key = "a-key-of-enough-length"
    async with (
        caption_target("zoom") as zoom,
        serving(tmp_path, server={"api_key": key, "private_urls": True}, limits={"pushes": 2}) as (
            service,
            _,
            client,
        ),
    ):
        own = {"Authorization": f"Bearer {key}"}
        session = (await client.post("/v1/sessions", json={"no_store": True}, headers=own)).json()["id"]
        path = f"/v1/sessions/{session}/pushes"
        viewer = (await client.post("/v1/tokens", json={"session": session}, headers=own)).json()["token"]
        wanted = {"to": "zoom", "url": zoom.url}
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {viewer}"}, 403)):
            for answer in (
                await client.post(path, json=wanted, headers=headers),
                await client.get(path, headers=headers),
                await client.delete(f"{path}/p_1", headers=headers),
            ):
                assert answer.status_code == status
        made = await client.post(path, json=wanted, headers=own)
        assert made.status_code == 201
        assert made.json()["host"] == "127.0.0.1"
        service.sessions.by_id[session].log.emit(
            "caption.final", {"text": "Hello.", "words": [], "start": 0.0, "end": 1.0, "language": "en"}
        )
        await zoom.until(lambda: zoom.bodies == ["Hello.\n"])
        refusals = {
            (409, "already_pushed"): wanted,
            (400, "bad_url"): {**wanted, "url": f"gopher://{SECRET}"},
            (400, "bad_request"): {**wanted, "to": "twitch"},
        }
        for (status, code), body in refusals.items():
            answer = await client.post(path, json=body, headers=own)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert SECRET not in answer.text
        assert (await client.post(path, json={**wanted, "to": "youtube"}, headers=own)).status_code == 201
        assert (await client.post(path, json={**wanted, "url": zoom.url + "2"}, headers=own)).json()["error"][
            "code"
        ] == "too_many_pushes"
        shown = await client.get(path, headers=own)
        assert [push["to"] for push in shown.json()] == ["zoom", "youtube"]
        stats = await client.get(f"/v1/sessions/{session}/stats", headers=own)
        assert SECRET not in shown.text + stats.text + made.text
        assert (await client.delete(f"{path}/{made.json()['id']}", headers=own)).status_code == 200
        assert (await client.delete(f"{path}/{made.json()['id']}", headers=own)).json()["error"][
            "code"
        ] == "no_push"
        assert (
            await client.delete(f"/v1/sessions/{session}", params={"purge": 1}, headers=own)
        ).status_code == 200
        assert (await client.get(path, headers=own)).json()["error"]["code"] == "no_session"
        assert not service.pushes.running


async def test_private_targets_are_refused_by_default(tmp_path: Path) -> None:
    async with caption_target("zoom") as zoom, serving(tmp_path) as (_, _, client):
        session = (await client.post("/v1/sessions", json={"no_store": True})).json()["id"]
        answer = await client.post(f"/v1/sessions/{session}/pushes", json={"to": "zoom", "url": zoom.url})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "private_url")
        assert zoom.heads == []


async def test_a_push_that_fails_for_good_is_an_error_event_of_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_push, "RetryPolicy", lambda: QUICK)
    async with (
        caption_target("zoom") as zoom,
        serving(tmp_path, server={"private_urls": True}) as (service, place, client),
    ):
        zoom.responses.extend([403] * 9)
        session = (await client.post("/v1/sessions", json={"no_store": True})).json()["id"]
        assert (
            await client.post(f"/v1/sessions/{session}/pushes", json={"to": "zoom", "url": zoom.url})
        ).status_code == 201
        async with socket_of(place, session) as events:
            service.sessions.by_id[session].log.emit(
                "caption.final", {"text": "Hello.", "words": [], "start": 0.0, "end": 1.0, "language": "en"}
            )
            error = (await until(events, "error"))[-1]["error"]
        assert (error["type"], error["code"], error["retryable"]) == ("push_error", "push_stopped", False)
        assert SECRET not in json.dumps(error)


@pytest.mark.media
@pytest.mark.models
async def test_what_is_said_in_a_recording_arrives_at_zoom_and_at_youtube(
    media: Path, tmp_path: Path
) -> None:
    async with (
        caption_target("zoom") as zoom,
        caption_target("youtube") as youtube,
        serving(tmp_path, server={"sources": (media,), "private_urls": True}) as (service, place, client),
    ):
        await service.ready()
        session = (
            await client.post(
                "/v1/sessions", json={"source": f"file:{media}/speech/harvard.flac", "speed": 2}
            )
        ).json()["id"]
        path = f"/v1/sessions/{session}/pushes"
        for receiver in (zoom, youtube):
            assert (await client.post(path, json={"to": receiver.to, "url": receiver.url})).status_code == 201
        async with socket_of(place, session) as events:
            finals = [
                event["text"]
                for event in await until(events, "session.closed")
                if event["type"] == "caption.final"
            ]
        for receiver in (zoom, youtube):
            bodies = receiver.bodies
            await receiver.until(
                functools.partial(lambda bodies: "".join(bodies).count("\n") >= len(finals), bodies)
            )
        assert " ".join(" ".join(zoom.bodies).split()) == " ".join(finals)
        said = " ".join(
            line.replace("<br>", " ") for body in youtube.bodies for line in body.split("\n")[1::2]
        )
        assert said == " ".join(finals)
        assert "cold dip restores health and zest" in said.lower()
        assert zoom.seqs == list(range(1, len(finals) + 1))
        assert [push["dropped"] for push in (await client.get(path)).json()] == [0, 0]
