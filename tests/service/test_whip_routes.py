"""WHIP offers that the service refuses."""

from __future__ import annotations

from pathlib import Path

from tests.builders.service import error_of, serving


async def test_an_offer_of_the_wrong_type_or_syntax_is_refused_and_opens_no_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as (service, _, client):
        plain = await client.post("/whip", content="x", headers={"Content-Type": "text/plain"})
        assert error_of(plain) == (415, "unsupported_media_type")
        malformed = await client.post("/whip", content="v=0 x", headers={"Content-Type": "application/sdp"})
        assert error_of(malformed) == (400, "malformed_sdp")
        assert service.sessions.by_id == {}
