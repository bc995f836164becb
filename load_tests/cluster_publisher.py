"""Publishers of `load_tests.cluster`, in a process of their own, that come again by themselves.

Each publishes tones to its name by WHIP at some node, follows a 307 without its token (as libcurl and
browsers do across origins), and offers again at any node once its connection is gone. It gives up a node that
has not answered ICE's requests for about two seconds; browsers take five, which changes no figure here: all
count from its first offer after that.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

import httpx
from aioice import ice

from load_tests import tone_engine
from load_tests.beside import begun, commands
from load_tests.rtp_media import Recording, recording
from load_tests.rtp_sender import Publisher

CONSENT_SECONDS, CONSENT_FAILURES = 0.5, 3  # between two requests; unanswered ones in a row
PAUSE_SECONDS = (0.0, 4.0)  # until a publisher that is gone comes again
AGAIN_SECONDS = 0.25  # between two offers that were refused
ASK_SECONDS = 5.0  # for an answer
REDIRECTS = 3  # that are followed
MEDIA_SECONDS = 30.0  # then it begins again


class Publishing:
    """One publisher under one name.

    Args:
        name: that it publishes to.
        addresses: of the nodes.
        key: the API key.
        out: its raw log, whose form load_tests/cluster_counts.py tells.
        draw: chooses nodes and pauses.
    """

    def __init__(
        self, name: str, addresses: Sequence[str], key: str, out: TextIO, draw: random.Random
    ) -> None:
        self._name = name
        self._addresses = addresses
        self._key = key
        self._out = out
        self._draw = draw
        self._asked = 0.0  # monotonic second of the first offer since the publisher was gone
        self._node = -1
        self._session = ""

    def _note(self, kind: str, **more: Any) -> float:
        now = time.monotonic()
        line = {"t": now, "kind": kind, "name": self._name, "node": self._node, **more}
        self._out.write(json.dumps(line) + "\n")
        return now

    async def run(self, media: Recording) -> None:
        """Publish, and come again, without end."""
        while True:
            publisher = Publisher(media)
            try:
                await publisher.connect(self._exchange)
                publisher.begin()
                self._note("accepted", session=self._session, asked=self._asked)
                await publisher.gone.wait()
                self._note("gone")
                self._asked = 0.0
            except TimeoutError:
                self._note("refused", status="no connection")
            finally:
                await publisher.close()
            await asyncio.sleep(self._draw.uniform(*PAUSE_SECONDS))

    async def _exchange(self, offer: str) -> str:
        """Offer at one node after the other until one takes it; returns its answer."""
        async with httpx.AsyncClient(timeout=ASK_SECONDS) as client:
            while True:
                self._node = self._draw.randrange(len(self._addresses))
                now = self._note("asked")
                self._asked = self._asked or now
                try:
                    answer = await self._offer(client, offer)
                except httpx.HTTPError as error:
                    self._note("refused", status=type(error).__name__)
                else:
                    if answer.status_code == 201:
                        self._session = session_of(answer)
                        return answer.text
                    self._note("refused", status=answer.status_code, code=code_of(answer))
                await asyncio.sleep(AGAIN_SECONDS)

    async def _offer(self, client: httpx.AsyncClient, offer: str) -> httpx.Response:
        url = f"{self._addresses[self._node]}/whip/{self._name}"
        headers = {"Content-Type": "application/sdp", "Authorization": f"Bearer {self._key}"}
        answer = await client.post(url, content=offer, headers=headers)
        for _ in range(REDIRECTS):
            if answer.status_code != 307:
                break
            target = answer.headers["Location"]
            origin = "{0.scheme}://{0.netloc}".format(urlsplit(target))
            self._node = self._addresses.index(origin) if origin in self._addresses else -1
            self._note("redirected", ticket="ticket=" in target)
            headers.pop("Authorization", None)  # across origins clients drop it
            answer = await client.post(target, content=offer, headers=headers)
        return answer


def session_of(answer: httpx.Response) -> str:
    """The id of the session that an offer was taken for: of the event stream that a Link header names."""
    for link in answer.headers.get_list("link"):
        if "urn:ietf:params:whip:ext:streamsvc:events" in link:
            path = urlsplit(link[link.index("<") + 1 : link.index(">")]).path
            return path.split("/sessions/", 1)[1].split("/", 1)[0]
    raise ValueError("the answer to an offer names no event stream")


def code_of(answer: httpx.Response) -> str:
    """The error code of a refusal; "": it has none."""
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


async def _run(names: Sequence[str], addresses: Sequence[str], key: str, log: Path, seed: int) -> None:
    tones = await asyncio.to_thread(tone_engine.write, log.parent / "tones.wav", MEDIA_SECONDS)
    media = await asyncio.to_thread(
        recording, log.parent / "media", seconds=MEDIA_SECONDS, audio=tones, form=None
    )
    draw = random.Random(seed)
    with log.open("a", buffering=1, encoding="utf-8") as out:
        publishing = [Publishing(one, addresses, key, out, random.Random(draw.random())) for one in names]
        tasks = [asyncio.create_task(one.run(media)) for one in publishing]
        begun()
        try:
            async for _ in commands():
                pass
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


def publish(names: list[str], addresses: list[str], key: str, log: str, seed: int) -> None:
    """Publish to names until told to stop.

    Args:
        names: one publisher each.
        addresses: of the nodes.
        key: the API key.
        log: the raw log, a path; encoded media are kept beside it.
        seed: of the choice of nodes and the pauses.
    """
    ice.CONSENT_INTERVAL, ice.CONSENT_FAILURES = CONSENT_SECONDS, CONSENT_FAILURES  # type: ignore[assignment]
    asyncio.run(_run(names, addresses, key, Path(log), seed))
