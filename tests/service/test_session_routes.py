"""Sessions by HTTP: sources and options that are refused, capacity, search with keyframes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.builders.clips import clip
from tests.builders.service import error_of, open_session, serving
from tests.builders.units import cue, sight


async def test_a_bad_source_is_refused_and_leaves_no_session(tmp_path: Path) -> None:
    roots = tmp_path / "media"
    roots.mkdir()
    (roots / "empty.mp4").touch()
    (roots / "corrupt.mp4").write_bytes(b"no media at all" * 100)
    clip(tmp_path / "outside.mp4")
    async with serving(tmp_path, server={"sources": (roots,)}) as (service, _, client):
        for source, expected in {
            f"file:{roots}/absent.mp4": (422, "not_found"),
            f"file:{roots}/empty.mp4": (422, "empty"),
            f"file:{roots}/corrupt.mp4": (422, "corrupt"),
            f"file:{tmp_path}/outside.mp4": (403, "outside_sources"),
            "gopher://x/y": (422, "bad_scheme"),
        }.items():
            assert error_of(await client.post("/v1/sessions", json={"source": source})) == expected
        assert error_of(await client.post("/v1/sessions", json={"source": 7})) == (400, "bad_request")
        assert error_of(await client.post("/v1/sessions", json={"speed": 0})) == (400, "bad_speed")
        assert error_of(await client.get("/v1/sessions/0.none")) == (404, "no_session")
        assert (await client.get("/v1/capacity")).json() == {
            "sessions": 0,
            "limit": 4,
            "draining": False,
            "level": 0,
        }
        assert service.sessions.by_id == {}


async def test_options_that_the_models_do_not_support_are_refused(tmp_path: Path) -> None:
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
            assert error_of(await client.post("/v1/sessions", json=body))[0] in (400, 422), body
            assert error_of(await client.post("/v1/sessions", json=body))[1] == code, body
        assert service.sessions.by_id == {}
        assert (
            await client.post(
                "/v1/sessions", json={"language": "en", "translate": False, "replace": {"a b": "c"}}
            )
        ).status_code == 201


async def test_a_full_server_sends_retry_after(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"sessions": 1}) as (_, _, client):
        session = await open_session(client)
        answer = await client.post("/v1/sessions", json={})
        assert error_of(answer) == (503, "capacity")
        assert int(answer.headers["Retry-After"]) >= 1
        await client.delete(f"/v1/sessions/{session}")
        async with asyncio.timeout(5):
            while (await client.post("/v1/sessions", json={})).status_code != 201:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_search_result_has_the_url_of_its_keyframe_while_that_is_stored(tmp_path: Path) -> None:
    async with serving(tmp_path, store={"frames": 1}) as (service, _, client):
        session = service.sessions.by_id[await open_session(client)]
        for at in (1.0, 9.0):
            await session.log.put_frame(at, f"keyframe at {at}".encode())
            session.timeline.add(sight(at, f"cat {at:.0f}"))
            session.timeline.add(cue("A stone-cutter lived there.", at + 0.5))
        new, old = (await client.get(f"/v1/sessions/{session.id}/search", params={"q": "stonecutter"})).json()
        assert (new["start"], new["kind"], new["text"]) == (9.5, "speech", "A stone-cutter lived there.")
        assert (await client.get(new["frame_url"])).content == b"keyframe at 9.0"
        assert old["start"] == 1.5
        assert "frame_url" not in old
        assert error_of(await client.get("/v1/sessions/none/search", params={"q": "stone"})) == (
            404,
            "no_session",
        )
