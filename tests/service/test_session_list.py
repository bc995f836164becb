"""The list of sessions: newest first, in pages that no deletion disturbs, and only what one may see."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.errors import InvalidRequest, SourceError
from streamsvc.core.types import Grants
from streamsvc.service import session_list
from streamsvc.service.session import Session
from streamsvc.service.session_list import overview
from tests.builders.session import Playing, Sender, make, packets, send
from tests.builders.units import cue, screen

ALL = Grants("owner", "*", frozenset({"subscribe"}), None, "owner")


def page(
    made: list[Session], grants: Grants, states: tuple[str, ...], limit: int, after: Any
) -> dict[str, Any]:
    return session_list.page(made, grants, states, limit, after, lambda stored: {"id": stored.id})


def sessions(count: int) -> list[Session]:
    """Sessions a second apart, the oldest first."""
    made = [make() for _ in range(count)]
    for number, session in enumerate(made):
        session.id = f"0.s{number}"
        session.clock.started_utc = made[0].clock.started_utc + timedelta(seconds=number)
    return made


def ids(found: dict[str, object]) -> list[str]:
    listed = found["sessions"]
    assert isinstance(listed, list)
    return [entry["id"] for entry in listed]


async def test_pages_are_whole_whatever_is_deleted_between_them() -> None:
    made = sessions(5)
    first = page(made, ALL, (), 2, None)
    assert ids(first) == ["0.s4", "0.s3"]
    left = [session for session in made if session.id not in ("0.s3", "0.s0")]
    second = page([*left, *sessions(1)], ALL, (), 2, first["next"])
    assert ids(second)[:2] == ["0.s2", "0.s1"]
    assert page(made, ALL, (), 5, None)["next"] is None, "a full last page has no next"


async def test_a_token_of_one_session_sees_that_one_alone() -> None:
    made = sessions(3)
    assert ids(page(made, replace(ALL, session="0.s1"), (), 10, None)) == ["0.s1"]
    assert ids(page(made, replace(ALL, session="0.other"), (), 10, None)) == []


async def test_states_are_filtered_before_pages_are_cut() -> None:
    made = sessions(4)
    made[0].media.attach(Sender())
    assert ids(page(made, ALL, ("live",), 1, None)) == ["0.s0"]
    assert ids(page(made, ALL, ("live", "created"), 9, None)) == ["0.s3", "0.s2", "0.s1", "0.s0"]
    assert ids(page(made, ALL, ("ended",), 9, None)) == []


@pytest.mark.parametrize("cursor", ["", "x", "x.y", "-5.a", "5", "5" * 200 + ".a", "\u0665.a"])
async def test_a_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="leave it out for the first page"):
        page(sessions(1), ALL, (), 1, cursor)


def test_an_entry_has_what_a_session_is_recognised_by(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        async with Playing(make()) as played:
            live = played.session
            new = overview(live)
            assert (new["seconds"], new["title"], new["thumbnail_url"], new["ended_utc"]) == (
                0.0,
                None,
                None,
                None,
            )
            live.media.attach(Sender())
            live.dispatcher.dispatch(cue("Once more.", 0.5))
            live.dispatcher.dispatch(screen(1.0, "Budget"))
            await send(live, packets(tmp_path, 2.0))
            shown = overview(live)
            assert shown["state"] == "live"
            assert (shown["title"], shown["last_caption"]) == ("Budget", "Once more.")
            assert shown["seconds"] == pytest.approx(2.0, abs=0.2)
            assert shown["thumbnail_url"].startswith("/v1/sessions/s/frames/")
            live.end("source_failed", SourceError("it broke off", code="no_answer"))
            await played.ended()
            over = overview(live)
            assert over["state"] == "ended"
            assert over["error"]["message"] == "it broke off"
            assert over["ended_utc"] > over["started_utc"]

    stage.run(main())
