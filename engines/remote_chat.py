"""Streamed chat completions of an OpenAI-compatible endpoint.

The protocol, the mapping of its errors, and a thread-safe client.

Sources: OpenAI's API reference, chat completions with "stream": true; Server-Sent Events, HTML standard
section 9.2.6; Retry-After, RFC 9110 section 10.2.3. Deviations of other servers are accepted: comments in the
stream, a usage chunk without choices, an end without "[DONE]", an error inside the stream, a complete answer
instead of a stream.

Texts of the endpoint are never part of our error messages, because they may quote the session or the
question.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import re
import threading
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from streamsvc.core.errors import CapacityError, ConfigError, DeadlineMissed, StreamsvcError, WorkerError

HEARTBEAT_SECONDS = 0.1  # of silence, after which an empty piece lets the reader check for cancellation
CONNECT_SECONDS = 5.0
RETRY_SECONDS = 0.2  # before the second attempt
KEEPALIVE_SECONDS = 60.0  # that an idle connection stays open; a new one costs three round trips
MAX_BYTES = 4 * 1024 * 1024  # of one answer; security limit
_LONGEST_WAIT = 3600.0  # seconds of Retry-After
# Error codes of the protocol; they contain no user data and may be shown.
_CODES = {
    "context_length_exceeded",
    "exceed_context_size_error",
    "insufficient_quota",
    "invalid_api_key",
    "invalid_image_url",
}
_CODES |= {
    "invalid_request_error",
    "model_not_found",
    "rate_limit_exceeded",
    "unsupported_parameter",
    "unsupported_value",
}
# Optional fields that an endpoint may refuse, with their replacement (for OpenAI's reasoning models).
_REPLACEMENTS = {"max_tokens": "max_completion_tokens", "temperature": "", "stop": "", "response_format": ""}
_LINE = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the end may be the first half of a CRLF


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint.

    Args:
        url: the base URL, including /v1.
        key: sent as a Bearer token unless "".
        timeout: seconds for a complete answer.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of an answer.

    `text`: "" for a heartbeat. `end`: "" until the end; then "stop", "length" (token limit), "content_filter"
    or "broken" (the connection was lost in the middle).
    """

    text: str = ""
    end: str = ""


class _Unsupported(Exception):
    """The endpoint refuses this field of the request."""


class Events:
    """An incremental parser of Server-Sent Events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, part: bytes) -> list[str]:
        """The data of the events completed by `part`. An empty part ends the stream and its last event."""
        *lines, self._rest = _LINE.split(self._rest + part) if part else (self._rest.rstrip(b"\r"), b"", b"")
        complete = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
            elif not line and self._data:
                complete.append("\n".join(self._data))
                self._data = []
        return complete


def piece(chunk: Any) -> Piece:
    """The piece in one chunk of a stream or in a complete answer.

    Raises:
        StreamsvcError: the chunk is an error, or not a chunk.
    """
    if not isinstance(chunk, dict):
        raise _protocol_error()
    if chunk.get("error"):
        error = chunk["error"]
        code = error.get("code") if isinstance(error, dict) else None
        raise refusal(code if isinstance(code, int) and 400 <= code < 600 else 500, {}, chunk)
    if not isinstance(choices := chunk.get("choices"), list):
        raise _protocol_error()
    if not choices:  # a usage chunk
        return Piece()
    try:
        message = choices[0].get("delta") or choices[0].get("message") or {}
        text, reason = message.get("content") or "", choices[0].get("finish_reason") or ""
    except AttributeError:
        raise _protocol_error() from None
    if not isinstance(text, str):
        raise _protocol_error()
    return Piece(text, str(reason) if reason in ("", "length", "content_filter") else "stop")


def refusal(status: int, headers: Mapping[str, str], body: Any) -> StreamsvcError:
    """Map an HTTP error response to an error of ours.

    Args:
        status: HTTP status.
        headers: response headers.
        body: the parsed JSON body, or None.
    """
    error = body.get("error") if isinstance(body, dict) else None
    codes = [error.get("code"), error.get("type")] if isinstance(error, dict) else []
    code = next((f", {word}" for word in codes if isinstance(word, str) and word in _CODES), "")
    reason = f"({status}{code})"
    if status in (401, 403):
        return ConfigError(
            f"the remote endpoint refuses the key {reason}: check STREAMSVC_REMOTE__KEY", code="remote_key"
        )
    if status == 429:
        wait = retry_after(headers.get("retry-after", ""), time.time())
        return CapacityError(f"the remote endpoint accepts no more requests now {reason}", retry_after=wait)
    if status in (408, 504):
        return DeadlineMissed(f"the remote endpoint did not answer in time {reason}")
    if status >= 500:
        return WorkerError(f"the remote endpoint failed {reason}")
    if 300 <= status < 400:
        return ConfigError(
            f"the remote endpoint redirects {reason}, and redirects are not followed: check remote.url",
            code="remote_url",
        )
    if status in (404, 405):
        return ConfigError(
            f"the remote endpoint has no such path or model {reason}: check remote.url and remote.model"
        )
    return ConfigError(
        f"the remote endpoint refuses the request {reason}: check remote.model and think.window_tokens"
    )


def retry_after(value: str, now: float) -> float:
    """Seconds to wait.

    Args:
        value: the header Retry-After, seconds or a date; anything else means 5 s.
        now: Unix time in seconds.
    """
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 5.0
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _protocol_error() -> WorkerError:
    return WorkerError("the remote endpoint does not speak the protocol of chat completions")


def _connection_error(error: httpx.RequestError) -> StreamsvcError:
    """Map a connection error to an error of ours."""
    if isinstance(error, httpx.TimeoutException):
        return DeadlineMissed("the remote endpoint could not be reached in time")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigError(
            "the certificate of the remote endpoint is not trusted: check remote.url",
            code="remote_certificate",
        )
    return WorkerError(
        f"the remote endpoint cannot be reached, or closed the connection ({type(error).__name__})"
    )


class Chat:
    """A client of one endpoint.

    Thread-safe; requests run in an event loop on one thread, which owns the connections.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._refused: set[tuple[str, str]] = set()  # model, field of a request
        # Without compression, which delays a stream.
        headers = {"Accept": "text/event-stream", "User-Agent": "streamsvc", "Accept-Encoding": "identity"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=min(CONNECT_SECONDS, endpoint.timeout)),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_SECONDS),
            follow_redirects=False,  # security: key and session data go only to the configured address
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cancel running requests and stop the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._client.aclose()

    def stream(self, body: Mapping[str, Any]) -> Generator[Piece, None, None]:
        """Yield the answer in pieces; the last one has an `end`.

        Closing the generator closes the HTTP stream.

        Args:
            body: of the request: "model", "messages" and options.

        Raises:
            ConfigError: the endpoint refuses the key, the model, the path or the request; the message names
                the setting.
            CapacityError: the endpoint accepts no more requests now; `retry_after` seconds.
            WorkerError: the endpoint failed twice, or cannot be reached.
            DeadlineMissed: the answer was not complete in time.
        """
        pieces: queue.Queue[Piece | Exception] = queue.Queue()  # bounded by MAX_BYTES of an answer
        job = asyncio.run_coroutine_threadsafe(self._answer({**body, "stream": True}, pieces), self._loop)
        end = False
        try:
            while not end:
                try:
                    item = pieces.get(timeout=HEARTBEAT_SECONDS)
                except queue.Empty:
                    item = Piece()
                if isinstance(item, Exception):
                    raise item
                end = bool(item.end)
                yield item
        finally:
            if (
                not end
            ):  # otherwise the job reads the rest of the stream, so that the connection can be reused
                job.cancel()

    async def _answer(self, body: dict[str, Any], pieces: queue.Queue[Piece | Exception]) -> None:
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                await self._request_with_retry(body, pieces)
        except TimeoutError:
            pieces.put(DeadlineMissed("the remote endpoint did not answer in time"))
        except Exception as error:  # passed to the reader, which would wait forever otherwise
            pieces.put(error)

    async def _request_with_retry(self, body: dict[str, Any], pieces: queue.Queue[Piece | Exception]) -> None:
        """Send the request, and once more if it fails before the first text. Pieces go into the queue."""
        for last in (False, True):
            text = end = False
            try:
                async with contextlib.aclosing(self._request(body)) as received:
                    async for got in received:
                        pieces.put(got)
                        text, end = text or bool(got.text), end or bool(got.end)
                return
            except (httpx.RequestError, StreamsvcError) as error:
                failure = _connection_error(error) if isinstance(error, httpx.RequestError) else error
            if end:
                return
            if text:
                pieces.put(Piece(end="broken"))
                return
            if last or not isinstance(failure, WorkerError):
                raise failure
            await asyncio.sleep(RETRY_SECONDS)

    async def _request(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Send the request without the fields that the endpoint refused for this model before."""
        for _ in range(len(_REPLACEMENTS) + 1):
            fields = {
                _REPLACEMENTS[name] if (str(body["model"]), name) in self._refused else name: value
                for name, value in body.items()
            }
            fields.pop("", None)
            try:
                async with contextlib.aclosing(self._send(fields)) as pieces:
                    async for got in pieces:
                        yield got
                return
            except _Unsupported as error:
                self._refused.add((str(body["model"]), str(error)))

    async def _send(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Send one request and yield its pieces."""
        async with (
            self._client.stream("POST", f"{self._endpoint.url}/chat/completions", json=body) as response,
            contextlib.aclosing(_bounded(response)) as parts,
        ):
            if response.status_code != 200 or not response.headers.get("content-type", "").startswith(
                "text/event-stream"
            ):
                answer = _json(b"".join([part async for part in parts]))
                if response.status_code == 200:  # a complete answer instead of a stream
                    whole = piece(answer)
                    yield Piece(whole.text, whole.end or "stop")
                    return
                if (name := _unsupported(response.status_code, answer)) in body:
                    raise _Unsupported(name)
                raise refusal(response.status_code, response.headers, answer)
            events, end, done = Events(), "", False
            async for part in parts:
                for data in events.feed(part):
                    if done or not data.strip():
                        continue
                    if done := data.strip() == "[DONE]":
                        yield Piece(end=end or "stop")
                        continue
                    got = piece(_json(data))
                    end = got.end or end
                    if got.text:
                        yield Piece(got.text)
            if not done and not end:
                raise WorkerError("the remote endpoint broke off in the middle of an answer")
            if not done:
                yield Piece(end=end)


async def _bounded(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body in parts, then an empty part.

    Raises:
        WorkerError: the body is longer than MAX_BYTES.
    """
    read = 0
    async for part in response.aiter_bytes():
        read += len(part)
        if read > MAX_BYTES:
            raise WorkerError(f"an answer of the remote endpoint exceeds {MAX_BYTES} bytes")
        if part:
            yield part
    yield b""


def _json(data: bytes | str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _unsupported(status: int, body: Any) -> str:
    """The optional field that the endpoint refuses; "" for any other error."""
    error = body.get("error") if isinstance(body, dict) else None
    if (
        status != 400
        or not isinstance(error, dict)
        or error.get("code") not in ("unsupported_parameter", "unsupported_value")
    ):
        return ""
    return next((name for name in _REPLACEMENTS if name == error.get("param")), "")
