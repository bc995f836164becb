"""The static page is served with the security headers."""

from __future__ import annotations

import re
from pathlib import Path

from streamsvc.service import page_routes
from tests.builders.service import serving


async def test_the_page_is_served_with_a_content_security_policy(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        page = await client.get("/")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_no_address_in_the_pages_begins_at_the_root_of_the_host() -> None:
    """Below a sub-path it would miss the service: client.js has `place` for such addresses."""
    call, attribute = r"""\b(?:fetch|URL|WebSocket|EventSource)\(\s*["'`]""", r"""\b(?:href|src|action)=\""""
    absolute = re.compile(rf"""(?:{call}|{attribute}|from "|url\(["']?)/(?!/)""")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(page_routes.WEB.iterdir())
        if path.suffix in (".html", ".js", ".css")
        for line in path.read_text(encoding="utf-8").splitlines()
        if absolute.search(line)
    ]
    assert found == []
    assert absolute.search("fetch(`/v1/sessions/${id}`)")
    assert absolute.search('<script type="module" src="/web/page.js">')
