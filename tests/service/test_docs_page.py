"""/docs shows every operation, without scripts and without anything from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from streamsvc.service import docs_page
from tests.builders.browser import CHROMIUM, FLAGS
from tests.builders.service import serving


async def test_the_page_names_every_operation_and_loads_from_here_alone(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, _, client):
        answer = await client.get("/docs")
        document = (await client.get("/openapi.json")).json()
        page = answer.text
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        for path, methods in document["paths"].items():
            for method in methods:
                assert f"<b>{method.upper()}</b> {path}</code>" in page
        loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
        assert loaded
        for address in loaded:
            assert "//" not in address
            assert (await client.get(f"/{address}")).status_code == 200, address
        assert "<script" not in page
        assert " style=" not in page
        assert "at most 64" in page  # limits of a value
        assert "curl -X POST -H &#x27;Content-Type: application/json&#x27;" in page


def test_text_of_the_document_is_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    schema = {
        "type": "object",
        "properties": {evil: {"type": "string", "description": evil, "default": evil}},
    }
    operation = {
        "summary": evil,
        "description": evil,
        "tags": [evil],
        "parameters": [{"name": evil, "in": "query", "schema": {"type": "string"}, "required": True}],
        "requestBody": {"content": {evil: {"schema": {"$ref": "#/components/schemas/X"}}}},
        "responses": {"200": {"description": evil}},
    }
    document = {
        "info": {"title": evil, "version": "1", "description": evil},
        "paths": {f"/{evil}": {"post": operation}},
        "components": {"schemas": {"X": schema}},
    }
    page = docs_page.render(document, "http://here")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there")
async def test_a_browser_without_internet_shows_it_and_reports_no_violation(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, place, _), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = await browser.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("requestfailed", lambda request: said.append(request.url))
        await page.goto(f"http://{place}/docs")
        await page.get_by_text("/v1/sessions/{session_id}/questions").first.click()
        await expect(page.get_by_text("response_format").first).to_be_visible()
        assert said == []
        await browser.close()
