"""A page in Chromium that may publish its camera, and what it asks of WHIP doors; async Playwright."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import ConsoleMessage, Page, Response, async_playwright

from tests.builders.browser import CAPTURE, CHROMIUM, FLAGS, sound_file
from tests.fakes.rtmp_publisher import SPEECH


@dataclass(frozen=True)
class Exchange:
    """A request of a browser with its headers as they were sent, and the status of the answer."""

    method: str
    url: str
    status: int
    headers: dict[str, str]

    @property
    def origin(self) -> str:
        """Of the server."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def page(self) -> str:
        """The origin that the browser tells."""
        return self.headers.get("origin", "")

    @property
    def has_token(self) -> bool:
        """Whether the server was told a token."""
        return "authorization" in self.headers


@contextlib.asynccontextmanager
async def publishing_page(
    folder: Path, allowed: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Page, list[Exchange]]]:
    """A page with a camera and a microphone, and what it has asked of WHIP doors, once the context has ended.

    Fails on console errors but those that hold a part of `allowed`. `folder`: for what the microphone hears,
    speech: Chromium takes its own beeps for noise, and removes them, now and then.
    """
    asked: list[Exchange] = []
    faults: list[str] = []
    reading: list[asyncio.Task[Exchange]] = []  # in the order of the answers

    async def read(response: Response) -> Exchange:
        sent = await response.request.all_headers()
        return Exchange(response.request.method, response.url, response.status, sent)

    def answered(response: Response) -> None:
        if urlsplit(response.url).path.startswith("/whip"):
            reading.append(asyncio.create_task(read(response)))

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and not any(part in message.text for part in allowed):
            faults.append(message.text)

    sound_file(SPEECH, folder / "microphone.wav")
    flags = [*FLAGS, *CAPTURE, f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        try:
            page = await browser.new_page()
            page.on("response", answered)
            page.on("console", said)
            yield page, asked
            asked.extend(await asyncio.gather(*reading))
        finally:
            for task in reading:
                task.cancel()
            await browser.close()
    assert faults == []
