"""Deepgram's prerecorded protocol: `POST /v1/listen` with a file, raw samples, or a file's URL.

The response is the transcript. An upload is stored in a temporary folder until the response is sent.
Raw samples (`encoding` linear16, mulaw or alaw, with `sample_rate` and `channels`) get a WAV head.
Channels are mixed; with `multichannel` each is transcribed by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request

from streamsvc.core import json_input
from streamsvc.core.config import Ingest
from streamsvc.core.errors import DeadlineMissed, InvalidRequest, NotFound, SourceError, TooLarge
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.ingest.channel_reader import ChannelReader
from streamsvc.ingest.source_policy import Place
from streamsvc.service.compat.audio_file import WAV_HEAD, has_container, split_channels, wav_head
from streamsvc.service.compat.audio_session import AudioFormat, ConnectionLimits
from streamsvc.service.compat.deepgram_messages import Message, RequestInfo, alternative
from streamsvc.service.compat.deepgram_options import FILE_HEADS, Options, file_format, parse_options
from streamsvc.service.service import Service
from streamsvc.service.session import Session

_JSON_BYTES = 8192  # security limit: a body that names a URL
_HEAD_BYTES = 12  # at the beginning of a body: what kind of file it is

Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to transcribe.

    location: path or URL. roots: folders that may be read. digest: hexadecimal SHA-256 of the file, or of the
    URL. holder: of the token that asks for it.
    """

    location: str
    roots: tuple[Path, ...]
    digest: str
    holder: str


async def transcribe(service: Service, http: Request, request_id: str, limits: ConnectionLimits) -> Message:
    """Transcribe the file or the samples in a request's body, or the file at the URL that it names.

    Raises:
        InvalidRequest, SourceError: bad option or media. TooLarge. CapacityError. DeadlineMissed.
    """
    hear = service.settings.hear
    options = parse_options(http.query_params, hear, multichannel=True)
    request = RequestInfo(request_id, hear.model)
    holder = service.auth.of(http.scope).holder
    if "json" in http.headers.get("content-type", ""):
        if options.multichannel:
            raise InvalidRequest("multichannel is not supported for a URL", code="unsupported_option")
        url = _url(await _in_time(_whole(http, _JSON_BYTES), limits.file_seconds))
        source = _Source(url, (), hashlib.sha256(url.encode()).hexdigest(), holder)
        events, seconds = await _transcribe(service, source, options, limits.file_seconds)
        return _body(request, source.digest, seconds, [events], options)
    expected = file_format(http.query_params)
    with tempfile.TemporaryDirectory(prefix="streamsvc-") as folder:
        path = Path(folder) / "audio"
        digest = await _in_time(_store(http, path, expected, limits), limits.file_seconds)
        paths = [path]
        try:
            if options.multichannel:
                paths = await _split(path, service.settings.ingest, limits)
            runs = [
                await _transcribe(
                    service, _Source(str(one), (Path(folder),), digest, holder), options, limits.file_seconds
                )
                for one in paths
            ]
        except SourceError as error:  # its message contains a path of this machine
            hint = "" if expected else "; raw samples require encoding and sample_rate"
            raise InvalidRequest(
                f"failed to process audio: corrupt or unsupported data{hint}", code=error.code
            ) from None
    return _body(request, digest, runs[0][1], [events for events, _ in runs], options)


async def _store(
    http: Request, path: Path, expected: AudioFormat | str | None, limits: ConnectionLimits
) -> str:
    """Write the body to a file, samples with a head; returns its hexadecimal SHA-256.

    Raises:
        InvalidRequest: it is not what the request says. TooLarge.
    """
    digest = hashlib.sha256()
    head = b""
    size = 0
    with path.open("wb") as file:
        file.seek(WAV_HEAD if isinstance(expected, AudioFormat) else 0)
        async for piece in _limited(http, limits.file_bytes):
            digest.update(piece)
            head = (head + piece)[:_HEAD_BYTES] if len(head) < _HEAD_BYTES else head
            size += len(piece)
            await asyncio.to_thread(file.write, piece)
    if isinstance(expected, str) and not head.startswith(FILE_HEADS[expected]):
        raise InvalidRequest(f"the body is not a {expected} file, as encoding says", code="corrupt")
    if isinstance(expected, AudioFormat):
        if size < expected.sample_bytes:
            raise InvalidRequest("failed to process audio: the body holds no sample", code="empty")
        await asyncio.to_thread(_set_head, path, expected, size, head)
    return digest.hexdigest()


def _set_head(path: Path, audio_format: AudioFormat, size: int, head: bytes) -> None:
    """Complete the head of a file of samples, or remove its room where the body is a file of its own."""
    if has_container(head):
        path.write_bytes(path.read_bytes()[WAV_HEAD:])
        return
    with path.open("r+b") as file:
        file.write(wav_head(audio_format, size - size % audio_format.sample_bytes))
        file.truncate(WAV_HEAD + size - size % audio_format.sample_bytes)


async def _in_time(reading: Coroutine[Any, Any, Read], seconds: float) -> Read:
    """What is read of a body. Raises InvalidRequest: it did not come within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            return await reading
    except TimeoutError:
        raise InvalidRequest(f"The body did not come within {seconds:g} s", code="body_timeout") from None


async def _whole(http: Request, limit: int) -> bytes:
    return b"".join([piece async for piece in _limited(http, limit)])


async def _limited(http: Request, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in http.stream():
        size += len(piece)
        if size > limit:
            raise TooLarge(f"The body is larger than {limit} bytes")
        yield piece


def _url(text: bytes) -> str:
    try:
        body = json_input.parse(text)
    except ValueError:
        raise InvalidRequest(
            "Content-type was application/json, but we could not process the JSON payload.", code="bad_json"
        ) from None
    url = body.get("url") if isinstance(body, dict) else None
    if not isinstance(url, str) or not _is_web(url):
        raise InvalidRequest('The JSON body must be {"url": "http(s)://…"}', code="bad_url")
    return url


def _is_web(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False


async def _split(path: Path, settings: Ingest, limits: ConnectionLimits) -> list[Path]:
    """Files of each channel of a file, beside it.

    Raises:
        SourceError: it is damaged. TooLarge: it is too long, or has too many channels. DeadlineMissed.
    """
    reader = ChannelReader(Place("file", "the file", path), settings)
    try:
        async with asyncio.timeout(limits.file_seconds):
            return await asyncio.to_thread(split_channels, reader, path.parent, limits.audio_seconds)
    except TimeoutError:
        raise DeadlineMissed(f"The file was not read within {limits.file_seconds:g} s") from None
    finally:
        reader.close()


async def _transcribe(
    service: Service, source: _Source, options: Options, seconds: float
) -> tuple[list[Mapping[str, Any]], float]:
    """The events of a session on the source, and its seconds; `seconds` limits the wall-clock time."""
    speech = SpeechOptions(options.speech.language, options.speech.vocabulary)
    session = await service.sessions.create(
        source.location,
        SessionOptions(speech, VisionOptions(enabled=False), stored=False),
        speed=None,
        roots=source.roots,
        holder=source.holder,
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
    return events, session.clock.position()


def _body(
    request: RequestInfo,
    digest: str,
    seconds: float,
    channels: Sequence[Sequence[Mapping[str, Any]]],
    options: Options,
) -> Message:
    """The response, from the events of each channel."""
    metadata = request.metadata(digest, seconds) | {"channels": len(channels)}
    each = [results(events, options, channel) for channel, events in enumerate(channels)]
    body: Message = {"channels": [result["channels"][0] for result in each]}
    if options.utterances:
        spoken = [utterance for result in each for utterance in result["utterances"]]
        body["utterances"] = sorted(spoken, key=lambda utterance: float(utterance["start"]))
    return {"metadata": metadata, "results": body}


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


def results(events: Sequence[Mapping[str, Any]], options: Options, channel: int = 0) -> Message:
    """The `results` of one channel, from its closed captions. An utterance ends where speech stops."""
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
                "channel": channel,
                "id": f"utterance-{channel}-{len(utterances)}" if channel else f"utterance-{len(utterances)}",
            }
            utterances.append(span | alternative(spoken, options.punctuate))
    body: Message = {"channels": [{"alternatives": [alternative(words, options.punctuate)]}]}
    return body | ({"utterances": utterances} if options.utterances else {})
