"""Subtitle files of a live session: in one language or another, as a whole or as the cues close, valid at every instant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamsvc.core.types import Cue, Translation, Word
from streamsvc.events.serialize import event_draft
from streamsvc.service.session import Session
from tests.builders.service import serving

VTT = "WEBVTT\n"


def close(live: Session, text: str, start: float, language: str = "de", english: str = "") -> None:
    """A cue of two seconds closes, and is translated."""
    cue = Cue(live.id, "main", start, 0.0, text, (Word(text, start, start + 2.0),), 1, True, language)
    live.published.cues.append(cue)
    event = live.log.emit("caption.final", event_draft(cue, str).body, at=start)
    if english:
        unit = Translation(live.id, "main", start, 0.0, event.id, english, "en", start, start + 2.0)
        live.published.translations.append(unit)
        live.log.emit("caption.translation", event_draft(unit, str).body, at=start)


async def session_of(client: httpx.AsyncClient) -> str:
    return str((await client.post("/v1/sessions", json={})).json()["id"])


async def reached(pieces: AsyncIterator[str], text: str, so_far: str = "") -> str:
    """What has come of a stream once a text is in it."""
    async with asyncio.timeout(10):
        while text not in so_far:
            so_far += await anext(pieces)
    return so_far


async def test_the_translated_track_has_the_times_of_what_was_said_and_without_lang_it_is_the_original(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (service, _, client):
        session = await session_of(client)
        live = service.sessions.by_id[session]
        close(live, "Guten Tag.", 1.0, english="Good <day>.")
        close(live, "Well.", 4.0, "en")
        original = await client.get(f"/v1/sessions/{session}/captions.vtt")
        assert original.headers["content-type"] == "text/vtt; charset=utf-8"
        first, second = "00:00:01.000 --> 00:00:03.000", "00:00:04.000 --> 00:00:06.000"
        assert original.text == f"{VTT}\n{first}\nGuten Tag.\n\n{second}\nWell.\n"
        for lang in ("en", "en-US"):
            english = await client.get(f"/v1/sessions/{session}/captions.vtt", params={"lang": lang})
            assert english.text == f"{VTT}\n{first}\nGood &lt;day&gt;.\n\n{second}\nWell.\n"
        german = (await client.get(f"/v1/sessions/{session}/captions.json", params={"lang": "de"})).json()
        assert [cue["text"] for cue in german] == ["Guten Tag."]
        srt = await client.get(f"/v1/sessions/{session}/captions.srt", params={"lang": "en"})
        assert srt.text.startswith("1\n00:00:01,000 --> 00:00:03,000\nGood \u2039day\u203a.\n\n2\n")
        assert (await client.get(f"/v1/sessions/{session}/captions.vtt", params={"lang": "fi"})).text == VTT
        refused = await client.get(f"/v1/sessions/{session}/captions.json", params={"follow": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "cannot_follow")


@pytest.mark.parametrize(
    ("lang", "texts"), [("", ["eins", "zwei", "three"]), ("en", ["one", "two", "three"])]
)
async def test_a_followed_file_begins_with_what_there_is_grows_cue_by_cue_and_ends_with_the_session(
    tmp_path: Path, lang: str, texts: list[str]
) -> None:
    async with serving(tmp_path) as (service, _, client):
        session = await session_of(client)
        live = service.sessions.by_id[session]
        query: dict[str, Any] = {"follow": 1} | ({"lang": lang} if lang else {})
        async with client.stream("GET", f"/v1/sessions/{session}/captions.vtt", params=query) as answer:
            pieces = answer.aiter_text()
            assert await anext(pieces) == VTT, "at once"
            close(live, "eins", 1.0, english="one")
            file = await reached(pieces, f"{texts[0]}\n", VTT)
            close(live, "zwei", 4.0, english="two")
            close(live, "three", 7.0, "en")
            file = await reached(pieces, f"{texts[2]}\n", file)
            live.end("ended")
            rest = [piece async for piece in pieces]
        assert rest == []
        assert (
            file
            == (
                await client.get(
                    f"/v1/sessions/{session}/captions.vtt", params={"lang": lang} if lang else {}
                )
            ).text
        )
        again = await client.get(f"/v1/sessions/{session}/captions.srt", params=query)
        assert [line for line in again.text.splitlines() if line.isalpha()] == texts, (
            "of an ended session: the whole file, and the end"
        )


async def test_a_reader_that_falls_behind_is_let_go_and_finds_everything_when_it_comes_again(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, limits={"subscriber_events": 5}) as (service, _, client):
        session = await session_of(client)
        live = service.sessions.by_id[session]
        async with client.stream(
            "GET", f"/v1/sessions/{session}/captions.vtt", params={"follow": 1}
        ) as answer:
            pieces = answer.aiter_text()
            await anext(pieces)
            for number in range(20):  # at once: nobody can read them meanwhile
                close(live, f"cue {number}", 3.0 * number)
            rest = [piece async for piece in pieces]
        assert rest == []
        assert (await client.get(f"/v1/sessions/{session}/captions.vtt")).text.count("-->") == 20


async def test_a_reader_that_leaves_is_no_subscriber_any_more(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"subscribers": 1}) as (_, _, client):
        session = await session_of(client)
        address = f"/v1/sessions/{session}/captions.vtt"
        async with client.stream("GET", address, params={"follow": 1}) as answer:
            pieces = answer.aiter_text()  # held: an iterator that is collected closes its stream
            await anext(pieces)
            assert (await client.get(address, params={"follow": 1})).status_code == 503
        async with asyncio.timeout(10):
            while (again := client.build_request("GET", address, params={"follow": 1})) is not None:
                answer = await client.send(again, stream=True)
                await answer.aclose()
                if answer.status_code == 200:
                    break
