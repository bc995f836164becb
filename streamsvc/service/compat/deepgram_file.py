"""Deepgram's prerecorded protocol: `POST /v1/listen` with a whole file, or with the address of one. The answer is the transcript.

The file lies in a folder of its own below the system's temporary one while it is read, and is gone with the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request as HttpRequest

from streamsvc.core.errors import DeadlineMissed, InvalidRequest, NotFound, SourceError, TooLarge
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.service.compat.audio_session import Bounds
from streamsvc.service.compat.deepgram_live import Message, Options, Request, alternative, options
from streamsvc.service.service import Service
from streamsvc.service.session import Session

_URL_BYTES = 8192


async def answer(service: Service, http: HttpRequest, request: str, bounds: Bounds) -> Message:
    """Transcribe the file in a request's body, or at its URL.

    Raises:
        InvalidRequest, SourceError: an option or the media. TooLarge. CapacityError. DeadlineMissed: it took too long.
    """
    heard = service.settings.hear
    asked = options(http.query_params, heard, live=False)
    if "json" in http.headers.get("content-type", ""):
        url = _url(b"".join([piece async for piece in _limited(http, _URL_BYTES)]))
        digest = hashlib.sha256(url.encode()).hexdigest()
        return await _transcribed(service, url, (), asked, Request(request, heard.model), digest, bounds)
    with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
        path = Path(folder) / "audio"
        hashed = hashlib.sha256()
        with path.open("wb") as file:
            async for piece in _limited(http, bounds.file_bytes):
                hashed.update(piece)
                await asyncio.to_thread(file.write, piece)
        try:
            return await _transcribed(
                service,
                str(path),
                (Path(folder),),
                asked,
                Request(request, heard.model),
                hashed.hexdigest(),
                bounds,
            )
        except SourceError as error:  # its message names a path of this machine
            raise InvalidRequest(
                "failed to process audio: corrupt or unsupported data", code=error.code
            ) from None


async def _limited(http: HttpRequest, most: int) -> Any:
    size = 0
    async for piece in http.stream():
        size += len(piece)
        if size > most:
            raise TooLarge(f"the body is over {most} bytes")
        yield piece


def _url(text: bytes) -> str:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(
            "Content-type was application/json, but we could not process the JSON payload.", code="bad_json"
        ) from None
    url = told.get("url") if isinstance(told, dict) else None
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise InvalidRequest('the JSON body is {"url": "http(s)://…"}', code="bad_url")
    return url


async def _transcribed(
    service: Service,
    source: str,
    roots: Sequence[Path],
    asked: Options,
    request: Request,
    digest: str,
    bounds: Bounds,
) -> Message:
    session = await service.sessions.create(
        source,
        SessionOptions(
            SpeechOptions(language=asked.language, vocabulary=tuple(asked.vocabulary)),
            VisionOptions(enabled=False),
            stored=False,
        ),
        speed=None,
        roots=roots,
    )
    try:
        async with asyncio.timeout(bounds.file_seconds):
            events = await _events(session)
    except TimeoutError:
        raise DeadlineMissed(f"the file was not transcribed within {bounds.file_seconds:g} s") from None
    finally:
        with contextlib.suppress(NotFound):
            await service.sessions.delete(session.id, purge=True)
    if (error := session.failure) is not None:
        raise error
    return {"metadata": request.metadata(digest, session.clock.position()), "results": results(events, asked)}


async def _events(session: Session) -> list[Mapping[str, Any]]:
    subscription = session.log.subscribe(("speech.stopped", "caption.final"))
    events: list[Mapping[str, Any]] = []
    try:
        while (batch := await subscription.next()) is not None:
            events += [json.loads(text) for _, text in batch]
    finally:
        session.log.unsubscribe(subscription)
    return events


def results(events: Sequence[Mapping[str, Any]], asked: Options) -> Message:
    """The `results` of a file from its closed captions; an utterance ends where speech stops."""
    words: list[Mapping[str, Any]] = []
    utterances: list[Message] = []
    begun = 0
    for event in (*events, {"type": "speech.stopped"}):
        if event["type"] == "caption.final":
            words += event["words"]
        elif len(words) > begun:
            spoken, begun = words[begun:], len(words)
            span = {
                "start": spoken[0]["start"],
                "end": spoken[-1]["end"],
                "channel": 0,
                "id": f"utterance-{len(utterances)}",
            }
            utterances.append(span | alternative(spoken, asked.punctuate))
    found: Message = {"channels": [{"alternatives": [alternative(words, asked.punctuate)]}]}
    return found | ({"utterances": utterances} if asked.utterances else {})
