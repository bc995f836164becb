"""Watches by HTTP and by the event socket. No webhook URL or secret is shown again."""

from __future__ import annotations

import json
from pathlib import Path

from tests.builders.service import serving, socket_of, until
from tests.fakes.http_receiver import listening


async def test_watches_are_added_listed_and_removed_without_showing_the_webhook(tmp_path: Path) -> None:
    async with (
        listening() as listener,
        serving(tmp_path, server={"private_urls": True}) as (_, place, client),
    ):
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
