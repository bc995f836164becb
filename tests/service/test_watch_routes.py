"""Watches by HTTP and by the event socket. No webhook URL or secret is shown again."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from streamsvc.service import app
from tests.builders import fake_service, fuzz
from tests.builders.service import serving, socket_of, until, warm
from tests.builders.spoken import KEY
from tests.fakes.http_receiver import listening


async def test_watches_are_added_listed_and_removed_without_showing_the_webhook(tmp_path: Path) -> None:
    async with (
        listening() as listener,
        serving(tmp_path, server={"private_urls": True}) as (service, place, client),
    ):
        await warm(service)
        session = (await client.post("/v1/sessions", json={"no_store": True})).json()["id"]
        path = f"/v1/sessions/{session}/watches"
        made = await client.post(
            path, json={"when": "when a cat appears", "cooldown_s": 3, "webhook": f"{listener.url}/hidden"}
        )
        assert made.status_code == 201
        assert made.json()["secret"].startswith("whsec_")
        shown = (await client.get(path)).json()
        assert [row["when"] for row in shown] == ["when a cat appears"]
        assert "hidden" not in str(shown)
        assert "secret" not in str(shown)
        refused = await client.post(path, json={"when": "when the dog barks"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "cannot_watch")
        assert (await client.delete(f"{path}/{made.json()['id']}")).status_code == 200
        assert (await client.delete(f"{path}/{made.json()['id']}")).status_code == 404
        assert (await client.get("/v1/sessions/0.none/watches")).status_code == 404
        async with socket_of(place, session) as events:
            message = {"type": "watch.add", "when": "when a cat appears", "cooldown_s": 5}
            await events.send(json.dumps(message))
            (added,) = (await until(events, "watch.added"))[-1:]
            await events.send(json.dumps({"type": "watch.add", "when": "when the dog barks"}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "cannot_watch"
            await events.send(json.dumps({"type": "watch.add"}))
            assert (await until(events, "error"))[-1]["error"]["code"] == "bad_watch"
            await events.send(json.dumps({"type": "watch.remove", "watch_id": added["watch_id"]}))
            assert (await until(events, "watch.removed"))[-1]["when"] == "when a cat appears"
        assert (await client.get(path)).json() == []


async def test_a_watch_wants_the_right_to_ask_and_one_with_a_webhook_that_to_publish_too(
    tmp_path: Path,
) -> None:
    webhook = {"when": "when a cat appears", "webhook": "http://127.0.0.1:9/hidden"}
    server = {"api_key": KEY, "private_urls": True}
    async with fake_service.serving(tmp_path, server=server) as service:
        await service.sessions.create(name="talk")
        application = app.build(service)
        owner = service.auth.grants({"authorization": f"Bearer {KEY}"})

        def bearer(*may: str) -> str:
            token = service.auth.token(owner, session="talk", may=("subscribe", *may), seconds=60).token
            return f"Bearer {token}"

        async def remove(watch: str, who: str) -> str:
            """The last event of a socket that removes a watch."""
            message = json.dumps({"type": "watch.remove", "watch_id": watch})
            got = await fuzz.converse(
                application,
                fuzz.Conversation(
                    "/v1/sessions/talk/events", "", (("authorization", who.encode()),), (), (message,)
                ),
            )
            return str([one["text"] for one in got if "text" in one][-1])

        asker, publisher = bearer("ask"), bearer("ask", "publish")
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(application), base_url="http://127.0.0.1"
        ) as client:
            path = "/v1/sessions/talk/watches"

            async def add(body: dict[str, str], who: str) -> httpx.Response:
                return await client.post(path, json=body, headers={"Authorization": who})

            plain = [(await add({"when": "when a cat appears"}, asker)).json()["id"] for _ in range(2)]
            assert (await add(webhook, asker)).status_code == 403
            hooked = [(await add(webhook, publisher)).json()["id"] for _ in range(2)]
            for who, watch, status in (
                (asker, plain[0], 200),
                (asker, hooked[0], 403),
                (publisher, hooked[0], 200),
            ):
                answer = await client.delete(f"{path}/{watch}", headers={"Authorization": who})
                assert answer.status_code == status
            assert "watch.removed" in await remove(plain[1], asker)
            assert "forbidden" in await remove(hooked[1], asker)
            assert "watch.removed" in await remove(hooked[1], publisher)
