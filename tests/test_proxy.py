"""The service behind Debian's nginx: a bare proxy_pass, and the recipe of deploy/nginx.conf."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.async_api import Page, async_playwright, expect
from websockets.asyncio.client import connect

from tests.builders.browser import CHROMIUM, FLAGS
from tests.builders.free_ports import free_tcp_port
from tests.builders.proxy import NGINX, nginx
from tests.builders.service import error_of, serving, until

RECIPE = Path(__file__).resolve().parents[1] / "deploy" / "nginx.conf"
KEY = "a-key-of-sixteen-or-more"

pytestmark = pytest.mark.skipif(
    not Path(NGINX).exists(), reason=f"{NGINX} is not there: install Debian's package nginx-light"
)
in_chromium = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
)


# As nginx's own documentation upgrades a WebSocket: the Host stays that of the proxy_pass.
UPGRADE = (
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"
)


def bare(port: int, place: str, more: str = "") -> str:
    """A server block that does no more than pass requests on."""
    return f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://{place}; {more} }} }}"


def recipe(place: str, whole: int, below: int, *, strips: bool = True) -> str:
    """deploy/nginx.conf with these ports."""
    text = RECIPE.read_text()
    assert len(re.findall(r"127\.0\.0\.1:8080", text)) == 2
    text = text.replace("127.0.0.1:8080", place)
    if not strips:
        text = text.replace(f"{place}/;", f"{place};")
    for listen, port in (("80", whole), ("81", below)):
        text = text.replace(f"listen {listen};", f"listen 127.0.0.1:{port};")
    return text


async def ask_on_the_page(page: Page, address: str) -> list[str]:
    """Make a session on the page, ask it, and wait for the answer. Returns the addresses that were opened."""
    opened: list[str] = []
    page.on("request", lambda request: opened.append(request.url))
    page.on("websocket", lambda socket: opened.append(socket.url))
    await page.goto(address)
    await page.get_by_text("OBS", exact=True).click()
    await page.get_by_role("button", name="Make a session").click()
    await expect(page.locator("#status-text")).to_have_text("Waiting for the stream…", timeout=20_000)
    await expect(page.locator("#dock")).to_be_visible(timeout=20_000)
    await page.click("#tab-ask")  # the addresses are shown first, for OBS
    await page.fill("#question", "What was said?")
    await page.click("#ask-button")
    await expect(page.locator("#answers li").first).to_contain_text(
        re.compile("nothing has been said", re.IGNORECASE), timeout=20_000
    )
    return opened


@in_chromium
@pytest.mark.browser
@pytest.mark.parametrize("more", ["", UPGRADE])
async def test_the_page_works_behind_a_bare_proxy_pass_without_a_websocket(tmp_path: Path, more: str) -> None:
    port = free_tcp_port()
    async with serving(tmp_path) as (_, place, _), async_playwright() as playwright:
        with nginx(bare(port, place, more), tmp_path, port):
            browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            opened = await ask_on_the_page(await browser.new_page(), f"http://localhost:{port}/")
            await browser.close()
    assert any(urlsplit(url).path.endswith("/events") and url.startswith("http:") for url in opened)


@in_chromium
@pytest.mark.browser
@pytest.mark.parametrize("strips", [True, False])
async def test_the_page_lives_below_a_sub_path_by_the_recipe(tmp_path: Path, strips: bool) -> None:
    whole, below = free_tcp_port(), free_tcp_port()
    public = f"http://localhost:{below}/live"
    async with serving(tmp_path, server={"public_url": public}) as (_, place, _):
        with nginx(recipe(place, whole, below, strips=strips), tmp_path, below):
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
                page = await browser.new_page()
                opened = await ask_on_the_page(page, public)
                assert (await page.input_value("#whip-url")).startswith(f"{public}/whip/0.")
                await page.goto(f"{public}/overlay/0.none?demo=1")
                await expect(page.locator(".caption-line").first).to_be_visible(timeout=10_000)
                await page.goto(f"{public}/docs")
                await expect(page.get_by_role("heading", name="streamsvc").first).to_be_visible()
                await browser.close()
    assert all(urlsplit(url).path.startswith("/live") for url in opened)
    assert any(url.startswith("ws:") for url in opened)


@pytest.mark.parametrize("strips", [True, False])
async def test_every_address_begins_with_the_public_url_and_leads_back(tmp_path: Path, strips: bool) -> None:
    whole, below = free_tcp_port(), free_tcp_port()
    public = f"http://localhost:{below}/live"
    async with serving(tmp_path, server={"public_url": public, "api_key": KEY}) as (service, place, direct):
        with nginx(recipe(place, whole, below, strips=strips), tmp_path, below):
            bearer = {"Authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(headers=bearer, timeout=20) as client:
                made = await client.post(f"{public}/v1/sessions", json={})
                body = made.json()
                assert made.headers["Location"] == f"{public}/v1/sessions/{body['id']}"
                for name in ("events_url", "whip_url", "overlay_url", "captions_url"):
                    assert body[name].startswith(f"{public}/"), name
                assert (await client.get(made.headers["Location"])).json()["id"] == body["id"]
                assert (await client.get(body["overlay_url"])).status_code == 200
                session = service.sessions.find(body["id"])
                await session.store_frame(1.0, b"\xff\xd8\xff picture")
                signed = session.frame_url(1.0)
                assert signed.startswith(f"{public}/v1/sessions/")
                async with httpx.AsyncClient() as stranger:
                    assert (await stranger.get(signed)).content == b"\xff\xd8\xff picture"
                    assert error_of(await stranger.get(signed.partition("?")[0]))[0] == 401
                    path = signed.removeprefix(public)
                    assert (await stranger.get(f"http://{place}{path}")).status_code == 200, (
                        "without the proxy"
                    )
                asked = await client.post(f"{made.headers['Location']}/questions", json={"text": "Who?"})
                assert asked.headers["Location"].startswith(f"{public}/v1/sessions/{body['id']}/questions/")
                assert (await client.get(asked.headers["Location"])).status_code in (200, 202)
                assert (await direct.get("/v1/capacity", headers=bearer)).status_code == 200
            address = body["events_url"].partition("?")[0].replace("http", "ws", 1) + "?after=0"
            async with connect(address, additional_headers=bearer) as events:
                await events.send(json.dumps({"type": "ping"}))
                await until(events, "pong")
