"""Where Chromium lies, how it is started, pages that may not fail in silence, and what axe finds on them."""

from __future__ import annotations

import contextlib
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-features=SpareRendererForSitePerProcess"]


def serious(page: Page) -> list[str]:
    """Serious and critical violations that axe reports; run by the debugger, so the page keeps its CSP."""
    page.evaluate(AXE_FILE_PATH.read_text())
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [
        f"{v['id']}: {n['html'][:120]} {n['failureSummary']}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"]
    ]


Open = Callable[..., Page]
CAPTURE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def sound_file(source: Path, target: Path) -> None:
    """Write speech as WAV, 48 kHz, 16 bit, mono, which Chromium's fake microphone loops."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
    with av.open(str(source)) as recording, wave.open(str(target), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        for frame in [*recording.decode(audio=0), None]:
            for part in resampler.resample(frame):
                out.writeframes(np.ascontiguousarray(part.to_ndarray()).tobytes())
        out.writeframes(bytes(2 * 48_000))  # a second of silence between rounds


@contextlib.contextmanager
def opening(browser: Browser, origin: str) -> Iterator[Open]:
    """Yields a function that opens a path of `origin` in a context of its own.

    Fails on console errors but those that hold a part of `allowed`, and on requests to another origin.
    """
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def note(message: ConsoleMessage, allowed: tuple[str, ...]) -> None:
        if message.type in ("error", "warning") and not any(part in message.text for part in allowed):
            faults.append(message.text)

    def stays(request: Request) -> None:
        if not request.url.startswith((origin, "blob:", "data:")):
            faults.append(f"left the origin: {request.url}")

    def open_(
        path: str = "/", allowed: tuple[str, ...] = (), using: Browser | None = None, **options: Any
    ) -> Page:
        context = (using or browser).new_context(bypass_csp=False, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda message: note(message, allowed))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", stays)
        page.goto(origin + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not faults, faults


def wait_for(page: Page, condition: Callable[[], bool]) -> None:
    """Wait until a condition of the test's own holds, at most 8 s."""
    for _ in range(160):
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError("what was waited for did not happen within 8 s")
