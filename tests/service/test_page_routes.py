"""The static page is served with the security headers."""

from __future__ import annotations

from pathlib import Path

from tests.builders.service import serving


async def test_the_page_is_served_with_a_content_security_policy(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        page = await client.get("/")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
