"""Deepgram's prerecorded protocol: `POST /v1/listen` with a file, or with the URL of one.

The response is the transcript. An uploaded file is stored in a temporary folder of its own until the response
is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request

from streamsvc.core.errors import DeadlineMissed, InvalidRequest, NotFound, SourceError, TooLarge
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.service.compat.audio_session import ConnectionLimits
from streamsvc.service.compat.deepgram_messages import Message, RequestInfo, alternative
from streamsvc.service.compat.deepgram_options import Options, parse_options
from streamsvc.service.service import Service
from streamsvc.service.session import Session

_JSON_BYTES = 8192  # security limit: a body that names a URL


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to transcribe.

    location: path or URL. roots: folders that may be read. digest: hexadecimal SHA-256 of the file, or of the
    URL.
    """

    location: str
    roots: tuple[Path, ...]
    digest: str


async def transcribe(service: Service, http: Request, request_id: str, limits: ConnectionLimits) -> Message:
    """Transcribe the file in a request's body, or at the URL that it names.

    Raises:
        InvalidRequest, SourceError: bad option or media. TooLarge. CapacityError. DeadlineMissed.
    """
    hear = service.settings.hear
    options = parse_options(http.query_params, hear)
    request = RequestInfo(request_id, hear.model)
    if "json" in http.headers.get("content-type", ""):
        url = _url(b"".join([piece async for piece in _limited(http, _JSON_BYTES)]))
        source = _Source(url, (), hashlib.sha256(url.encode()).hexdigest())
        return await _transcribe(service, source, options, request, limits.file_seconds)
    with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
        path = Path(folder) / "audio"
        digest = hashlib.sha256()
        with path.open("wb") as file:
            async for piece in _limited(http, limits.file_bytes):
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        source = _Source(str(path), (Path(folder),), digest.hexdigest())
        try:
            return await _transcribe(service, source, options, request, limits.file_seconds)
        except SourceError as error:  # its message contains a path of this machine
            raise InvalidRequest(
                "failed to process audio: corrupt or unsupported data", code=error.code
            ) from None


async def _limited(http: Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in http.stream():
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body is larger than {limit} bytes")
        yield piece


def _url(text: bytes) -> str:
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(
            "Content-type was application/json, but we could not process the JSON payload.", code="bad_json"
        ) from None
    url = body.get("url") if isinstance(body, dict) else None
    if not isinstance(url, str) or urlsplit(url).scheme not in ("http", "https"):
        raise InvalidRequest('The JSON body must be {"url": "http(s)://…"}', code="bad_url")
    return url


async def _transcribe(
    service: Service, source: _Source, options: Options, request: RequestInfo, seconds: float
) -> Message:
    """Run a session on the source; `seconds` limits the wall-clock time."""
    speech = SpeechOptions(options.speech.language, options.speech.vocabulary)
    session = await service.sessions.create(
        source.location,
        SessionOptions(speech, VisionOptions(enabled=False), stored=False),
        speed=None,
        roots=source.roots,
    )
    try:
        async with asyncio.timeout(seconds):
            events = await _events(session)
    except TimeoutError:
        raise DeadlineMissed(f"The file was not transcribed within {seconds:g} s") from None
    finally:
        with contextlib.suppress(NotFound):
            await service.sessions.delete(session.id, purge=True)
    if (error := session.failure) is not None:
        raise error
    metadata = request.metadata(source.digest, session.clock.position())
    return {"metadata": metadata, "results": results(events, options)}


async def _events(session: Session) -> list[Mapping[str, Any]]:
    """All caption.final and speech.stopped events of a session, in order."""
    subscription = session.log.subscribe(("speech.stopped", "caption.final"))
    events: list[Mapping[str, Any]] = []
    try:
        while (batch := await subscription.next()) is not None:
            events += [json.loads(text) for _, text in batch]
    finally:
        session.log.unsubscribe(subscription)
    return events


def results(events: Sequence[Mapping[str, Any]], options: Options) -> Message:
    """The `results` of a file, from its closed captions. An utterance ends where speech stops."""
    words: list[Mapping[str, Any]] = []
    utterances: list[Message] = []
    first = 0  # index of the first word of the present utterance
    for event in (*events, {"type": "speech.stopped"}):
        if event["type"] == "caption.final":
            words += event["words"]
        elif len(words) > first:
            spoken = words[first:]
            first = len(words)
            span = {
                "start": spoken[0]["start"],
                "end": spoken[-1]["end"],
                "channel": 0,
                "id": f"utterance-{len(utterances)}",
            }
            utterances.append(span | alternative(spoken, options.punctuate))
    body: Message = {"channels": [{"alternatives": [alternative(words, options.punctuate)]}]}
    return body | ({"utterances": utterances} if options.utterances else {})
