"""End to end: Chromium publishes real pictures and speech by WHIP through the page to the real service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from websockets.sync.client import connect

from tests.builders.browser import CHROMIUM, FLAGS, serious, sound_file

pytestmark = [
    pytest.mark.browser,
    pytest.mark.media,
    pytest.mark.models,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
    ),
]

LIVE = re.compile("^Live")  # "; captions are late: this machine is busy" may follow
QUESTIONS = (
    "What was said about the smell?",
    "What can be seen?",
    "How many people are there?",
    "Is there a cat?",
    "What was just said?",
    "What does the slide say?",
    "What was said about the cold?",
    "Who speaks?",
    "What is the weather like in Paris?",
    "What happened at the beginning?",
)
SIZES = ((1440, 900), (1024, 768), (390, 844))  # pixels
PICTURES_PER_S = 15
PLAYED_S = 24  # seconds of the scenario: an astronaut, then a cup of coffee
WORDS = {
    "stale",
    "smell",
    "beer",
    "lingers",
    "heat",
    "odor",
    "cold",
    "dip",
    "restores",
    "health",
    "salt",
    "pickle",
    "tacos",
    "zestful",
}


def picture_file(source: Path, target: Path) -> None:
    """Write the start of a video as Motion JPEG, 640x360, which Chromium's fake camera loops."""
    with av.open(str(source)) as movie, av.open(str(target), "w", format="mjpeg") as out:
        stream = out.add_stream("mjpeg", rate=PICTURES_PER_S, options={"qmin": "4", "qmax": "4"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuvj420p"
        for frame in movie.decode(video=0):
            if frame.time is not None and frame.time > PLAYED_S:
                break
            out.mux(stream.encode(frame.reformat(640, 360, "yuvj420p")))
        out.mux(stream.encode(None))


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[str]:
    """The real service in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "streamsvc",
        "serve",
        "--port",
        str(port),
        "--data-dir",
        str(tmp_path / "data"),
    ]
    log_path = tmp_path / "serve.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=os.environ)
    try:
        deadline = time.monotonic() + 90
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the service did not become ready:\n{log_path.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    with (
        contextlib.suppress(urllib.error.URLError, OSError),
        urllib.request.urlopen(url, timeout=5) as response,
    ):
        return bool(response.status == 200)
    return False


@pytest.fixture
def page(origin: str, media: Path, tmp_path: Path) -> Iterator[Page]:
    """The page in Chromium, with recordings as camera and microphone.

    Fails on console errors and on requests to another origin.
    """
    picture_file(media / "scenarios/scenes_photos.mp4", tmp_path / "camera.mjpeg")
    sound_file(media / "speech/harvard.flac", tmp_path / "microphone.wav")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags += [f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}"]
    flags += [f"--use-file-for-fake-audio-capture={tmp_path / 'microphone.wav'}"]
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *flags])
        page = browser.new_page(viewport={"width": 1360, "height": 900})
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda r: None if r.url.startswith((origin, "blob:", "data:")) else faults.append(r.url),
        )
        page.goto(origin)
        yield page
        browser.close()
    assert faults == []


def events(origin: str, session: str) -> list[dict[str, Any]]:
    """All durable events of a session so far, as another subscriber receives them."""
    received = []
    address = f"{origin.replace('http', 'ws')}/v1/sessions/{session}/events?after=0"
    with contextlib.suppress(TimeoutError), connect(address, compression=None) as subscriber:
        while True:
            event = json.loads(subscriber.recv(timeout=1.0))
            if "seq" in event:
                received.append(event)
    return received


def test_real_pictures_and_speech_are_captioned_described_and_asked_about_through_the_page(
    page: Page, origin: str, tmp_path: Path
) -> None:
    publish_camera(page, origin, tmp_path)
    page.get_by_role("button", name="New session").click()
    publish_file(page, tmp_path / "microphone.wav")


def publish_camera(page: Page, origin: str, tmp_path: Path) -> None:
    """Publish camera and microphone: captions (also at another subscriber), a scene, an answer, the end."""
    page.locator("#start").click()
    expect(page.locator("#status-text")).to_have_text(LIVE, timeout=20_000)
    expect(page.locator("#captions .caption-line").first).to_be_visible(timeout=30_000)
    expect(page.locator("#transcript li").nth(2)).to_be_visible(timeout=60_000)
    expect(page.locator("#scenes .scene-text:not(:empty)").first).to_be_visible(timeout=30_000)
    heard = " ".join(page.locator("#transcript .words").all_inner_texts()).lower()
    assert len({word for word in WORDS if word in heard}) >= 3, heard

    session = page.url.partition("#session=")[2]
    log = events(origin, session)
    finals = [event["text"] for event in log if event["type"] == "caption.final"]
    assert any(word in " ".join(finals).lower() for word in WORDS)
    assert [event["seq"] for event in log] == list(range(1, len(log) + 1))

    page.locator("body").press("/")
    for number, question in enumerate(QUESTIONS, 1):
        page.keyboard.type(question)
        page.keyboard.press("Enter")
        expect(page.locator("#answers > li:not(.pending)")).to_have_count(number, timeout=30_000)
    answered = page.locator("#answers .supported, #answers .unsupported")
    assert all(text.strip() for text in answered.locator(".reply").all_inner_texts())
    assert answered.count() >= 5  # a busy machine may refuse some
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(500)
        page.screenshot(path=tmp_path / f"live_{width}.png")
        size = page.evaluate("(({scrollWidth, scrollHeight}) => [scrollWidth, scrollHeight])(document.body)")
        assert size[0] <= width and size[1] <= height
        assert serious(page) == []
    page.set_viewport_size({"width": 1360, "height": 900})

    page.locator("#stop").click()
    expect(page.locator("#status-text")).to_have_text("Ended", timeout=30_000)
    assert page.locator("#transcript li").count() >= 3
    expect(page.locator("#hint")).to_contain_text("Stopped.")
    expect(page.locator("#captions .caption-line")).to_have_count(0)
    page.screenshot(path=tmp_path / "ended.png", full_page=True)


def publish_file(page: Page, clip: Path) -> None:
    """Publish 20 s of speech without video; the stream ends by itself."""
    page.get_by_text("File", exact=True).click()
    page.locator("#file").set_input_files(clip)
    page.locator("#file-muted").check()
    page.locator("#start").click()
    expect(page.locator("#status-text")).to_have_text(LIVE, timeout=20_000)
    expect(page.locator("#status-text")).to_have_text("Ended", timeout=60_000)
    heard = " ".join(page.locator("#transcript .words").all_inner_texts()).lower()
    assert len({word for word in WORDS if word in heard}) >= 6, heard
