"""Subtitles of a live session: by language, as complete files and followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.types import Cue, Translation, Word
from streamsvc.events.serialize import event_draft
from streamsvc.service.session import Session
from tests.builders.service import open_session, serving

VTT = "WEBVTT\n"


def close_cue(live: Session, text: str, start: float, language: str = "de", english: str = "") -> None:
    """Close a cue of two seconds, with a translation if `english` is given."""
    cue = Cue(live.id, "main", start, 0.0, text, (Word(text, start, start + 2.0),), 1, True, language)
    live.dispatcher.cues.append(cue)
    event = live.log.emit("caption.final", event_draft(cue, str).body, at=start)
    if english:
        unit = Translation(live.id, "main", start, 0.0, event.id, english, "en", start, start + 2.0)
        live.dispatcher.translations.append(unit)
        live.log.emit("caption.translation", event_draft(unit, str).body, at=start)


async def read_until(pieces: AsyncIterator[str], text: str, before: str = "") -> str:
    """All of a stream up to the piece that contains `text`. before: what was read already."""
    async with asyncio.timeout(10):
        while text not in before:
            before += await anext(pieces)
    return before


async def test_translated_subtitles_have_the_times_of_the_original(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (service, _, client):
        session = await open_session(client)
        live = service.sessions.by_id[session]
        close_cue(live, "Guten Tag.", 1.0, english="Good <day>.")
        close_cue(live, "Well.", 4.0, "en")
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
async def test_a_followed_file_begins_with_the_closed_cues_and_ends_with_the_session(
    tmp_path: Path, lang: str, texts: list[str]
) -> None:
    async with serving(tmp_path) as (service, _, client):
        session = await open_session(client)
        live = service.sessions.by_id[session]
        query: dict[str, Any] = {"follow": 1} | ({"lang": lang} if lang else {})
        async with client.stream("GET", f"/v1/sessions/{session}/captions.vtt", params=query) as answer:
            pieces = answer.aiter_text()
            assert await anext(pieces) == VTT, "at once"
            close_cue(live, "eins", 1.0, english="one")
            file = await read_until(pieces, f"{texts[0]}\n", VTT)
            close_cue(live, "zwei", 4.0, english="two")
            close_cue(live, "three", 7.0, "en")
            file = await read_until(pieces, f"{texts[2]}\n", file)
            live.end("ended")
            rest = [piece async for piece in pieces]
        assert rest == []
        plain = {"lang": lang} if lang else {}
        assert file == (await client.get(f"/v1/sessions/{session}/captions.vtt", params=plain)).text
        again = await client.get(f"/v1/sessions/{session}/captions.srt", params=query)
        assert [line for line in again.text.splitlines() if line.isalpha()] == texts, (
            "of an ended session: the whole file"
        )


async def test_a_slow_reader_is_disconnected_and_can_request_the_whole_file(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, limits={"subscriber_events": 5}) as (service, _, client):
        session = await open_session(client)
        live = service.sessions.by_id[session]
        async with client.stream(
            "GET", f"/v1/sessions/{session}/captions.vtt", params={"follow": 1}
        ) as answer:
            pieces = answer.aiter_text()
            await anext(pieces)
            for number in range(20):  # without an await: no cue can be read in between
                close_cue(live, f"cue {number}", 3.0 * number)
            rest = [piece async for piece in pieces]
        assert rest == []
        assert (await client.get(f"/v1/sessions/{session}/captions.vtt")).text.count("-->") == 20


async def test_a_reader_that_disconnects_is_unsubscribed(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"subscribers": 1}) as (_, _, client):
        session = await open_session(client)
        address = f"/v1/sessions/{session}/captions.vtt"
        async with client.stream("GET", address, params={"follow": 1}) as answer:
            pieces = (
                answer.aiter_text()
            )  # a reference is kept: an iterator that is collected closes its stream
            await anext(pieces)
            assert (await client.get(address, params={"follow": 1})).status_code == 503
        async with asyncio.timeout(10):
            while (again := client.build_request("GET", address, params={"follow": 1})) is not None:
                answer = await client.send(again, stream=True)
                await answer.aclose()
                if answer.status_code == 200:
                    break
