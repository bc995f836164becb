"""Chat completions of an OpenAI-compatible endpoint, streamed: the protocol, what its errors mean here, and a client for all threads.

Sources: OpenAI's API reference, chat completions with "stream": true; Server-Sent Events, HTML standard section 9.2.6; Retry-After,
RFC 9110 section 10.2.3. What other servers do differently is taken as it comes: comments in the stream, a chunk of usage without choices,
an end without "[DONE]", an error in the stream, a whole answer instead of a stream.

The endpoint's own words never reach an error's text: they may quote what was said, shown or asked.
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

BEAT_SECONDS = 0.1  # without news, and an empty piece tells the reader so: it may have to leave, or to say that it is alive
CONNECT_SECONDS = 5.0
AGAIN_SECONDS = 0.2  # before the second try
KEPT_SECONDS = 60.0  # that a connection waits for the next question: a new one costs three round trips
MAX_BYTES = 4 * 1024 * 1024  # of one answer; security limit: a broken endpoint must not make us allocate more
_LONGEST_WAIT = 3600.0  # seconds of Retry-After
# Codes of the endpoint that may be told: words of the protocol, not of the user.
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
# Fields that an endpoint may refuse, and what is sent instead. OpenAI's reasoning models want the newer name of the limit.
_INSTEAD = {"max_tokens": "max_completion_tokens", "temperature": "", "stop": ""}
_LINE = re.compile(rb"\r\n|\n|\r(?!\Z)")  # a CR at the end may be half of a CRLF


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where it is.

    Args:
        url: as OpenAI's clients take it, with its /v1.
        key: sent as a Bearer token; "": none is sent.
        timeout: seconds for a whole answer.
    """

    url: str
    key: str = field(default="", repr=False)
    timeout: float = 15.0


@dataclass(frozen=True, slots=True)
class Piece:
    """What an answer grows by.

    `text`: "" when there was no news for a beat. `end`: "" while it goes on; then "stop", "length" (the limit of tokens), "content_filter",
    or "broken" (the endpoint has gone in the middle).
    """

    text: str = ""
    end: str = ""


class _Unsupported(Exception):
    """The endpoint does not take this field of the request."""


class Events:
    """Server-Sent Events out of bytes as they come."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, part: bytes) -> list[str]:
        """The data of each event that is whole now; an empty part ends the stream, and with it its last event."""
        *lines, self._rest = _LINE.split(self._rest + part) if part else (self._rest.rstrip(b"\r"), b"", b"")
        whole = []
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
            elif not line and self._data:
                whole.append("\n".join(self._data))
                self._data = []
        return whole


def piece(chunk: Any) -> Piece:
    """What one chunk of a stream, or a whole answer, tells.

    Raises:
        StreamsvcError: it is an error, or no chunk.
    """
    if not isinstance(chunk, dict):
        raise _stranger()
    if chunk.get("error"):
        error = chunk["error"]
        code = error.get("code") if isinstance(error, dict) else None
        raise refusal(code if isinstance(code, int) and 400 <= code < 600 else 500, {}, chunk)
    if not isinstance(choices := chunk.get("choices"), list):
        raise _stranger()
    if not choices:  # the chunk of usage
        return Piece()
    try:
        told = choices[0].get("delta") or choices[0].get("message") or {}
        text, reason = told.get("content") or "", choices[0].get("finish_reason") or ""
    except AttributeError:
        raise _stranger() from None
    if not isinstance(text, str):
        raise _stranger()
    return Piece(text, str(reason) if reason in ("", "length", "content_filter") else "stop")


def refusal(status: int, headers: Mapping[str, str], body: Any) -> StreamsvcError:
    """What an answer other than 200 means here.

    Args:
        status: of HTTP.
        headers: of the answer.
        body: its JSON; anything else, if it was none.
    """
    error = body.get("error") if isinstance(body, dict) else None
    told = [error.get("code"), error.get("type")] if isinstance(error, dict) else []
    code = next((f", {word}" for word in told if isinstance(word, str) and word in _CODES), "")
    said = f"({status}{code})"
    if status in (401, 403):
        return ConfigError(
            f"the remote endpoint refuses the key {said}: check STREAMSVC_REMOTE__KEY", code="remote_key"
        )
    if status == 429:
        wait = retry_after(headers.get("retry-after", ""), time.time())
        return CapacityError(f"the remote endpoint takes no more requests now {said}", retry_after=wait)
    if status in (408, 504):
        return DeadlineMissed(f"the remote endpoint did not answer in time {said}")
    if status >= 500:
        return WorkerError(f"the remote endpoint failed {said}")
    if 300 <= status < 400:
        return ConfigError(
            f"the remote endpoint sends us elsewhere {said}, where we do not go: check remote.url",
            code="remote_url",
        )
    if status in (404, 405):
        return ConfigError(
            f"the remote endpoint does not know the path or the model {said}: check remote.url and remote.model"
        )
    return ConfigError(
        f"the remote endpoint refuses what it is asked {said}: check remote.model and think.window_tokens"
    )


def retry_after(value: str, now: float) -> float:
    """Seconds to wait.

    Args:
        value: of the header Retry-After, seconds or a date; anything else means 5 s.
        now: seconds since 1970.
    """
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return 5.0
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _stranger() -> WorkerError:
    return WorkerError("the remote endpoint does not speak the protocol of chat completions")


def _lost(error: httpx.RequestError) -> StreamsvcError:
    """What it means that no answer came, or half of one."""
    if isinstance(error, httpx.TimeoutException):
        return DeadlineMissed("the remote endpoint could not be reached in time")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return ConfigError(
            "the certificate of the remote endpoint is not to be trusted: check remote.url",
            code="remote_certificate",
        )
    return WorkerError(f"the remote endpoint cannot be reached, or has gone ({type(error).__name__})")


class Chat:
    """Asks one endpoint. Any thread may call it; requests run on one thread of its own, which keeps the connections."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._refused: set[tuple[str, str]] = set()  # model, field of a request
        headers = {
            "Accept": "text/event-stream",
            "User-Agent": "streamsvc",
            "Accept-Encoding": "identity",
        }  # packing delays what streams
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(None, connect=min(CONNECT_SECONDS, endpoint.timeout)),
            limits=httpx.Limits(keepalive_expiry=KEPT_SECONDS),
            follow_redirects=False,  # security: the key and what was said go where the operator has said, and nowhere else
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="remote", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what runs, and the thread."""
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
        """The answer as it comes, its last piece with an `end`. Closing the iterator closes the HTTP stream.

        Args:
            body: of the request: "model", "messages" and what else is wanted.

        Raises:
            ConfigError: the endpoint refuses the key, the model, the path or the request; the message names the setting.
            CapacityError: it takes no more requests now; `retry_after` seconds.
            WorkerError: it failed, or cannot be reached. It was asked twice. DeadlineMissed: there was no whole answer in time.
        """
        box: queue.Queue[Piece | Exception] = queue.Queue()  # bounded by MAX_BYTES of an answer
        job = asyncio.run_coroutine_threadsafe(self._answer({**body, "stream": True}, box), self._loop)
        end = False
        try:
            while not end:
                try:
                    got = box.get(timeout=BEAT_SECONDS)
                except queue.Empty:
                    got = Piece()
                if isinstance(got, Exception):
                    raise got
                end = bool(got.end)
                yield got
        finally:
            if not end:  # else the job reads on to the true end of the stream, so that its connection is kept
                job.cancel()

    async def _answer(self, body: dict[str, Any], box: queue.Queue[Piece | Exception]) -> None:
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                await self._tried(body, box)
        except TimeoutError:
            box.put(DeadlineMissed("the remote endpoint did not answer in time"))
        except Exception as error:  # whatever it is, the reader waits for it
            box.put(error)

    async def _tried(self, body: dict[str, Any], box: queue.Queue[Piece | Exception]) -> None:
        """Ask, and once more if it fails before the first text; pieces go into the box."""
        for last in (False, True):
            text = end = False
            try:
                async with contextlib.aclosing(self._fitted(body)) as pieces:
                    async for got in pieces:
                        box.put(got)
                        text, end = text or bool(got.text), end or bool(got.end)
                return
            except (httpx.RequestError, StreamsvcError) as error:
                failure = _lost(error) if isinstance(error, httpx.RequestError) else error
            if end:
                return
            if text:
                box.put(Piece(end="broken"))
                return
            if last or not isinstance(failure, WorkerError):
                raise failure
            await asyncio.sleep(AGAIN_SECONDS)

    async def _fitted(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """Ask without the fields that this endpoint has refused for this model; each is refused once at most."""
        for _ in range(len(_INSTEAD) + 1):
            fields = {
                _INSTEAD[name] if (str(body["model"]), name) in self._refused else name: value
                for name, value in body.items()
            }
            fields.pop("", None)
            try:
                async with contextlib.aclosing(self._once(fields)) as pieces:
                    async for got in pieces:
                        yield got
                return
            except _Unsupported as error:
                self._refused.add((str(body["model"]), str(error)))

    async def _once(self, body: dict[str, Any]) -> AsyncGenerator[Piece, None]:
        """One request and its pieces."""
        async with (
            self._client.stream("POST", f"{self._endpoint.url}/chat/completions", json=body) as response,
            contextlib.aclosing(_bounded(response)) as parts,
        ):
            if response.status_code != 200 or not response.headers.get("content-type", "").startswith(
                "text/event-stream"
            ):
                told = _json(b"".join([part async for part in parts]))
                if response.status_code == 200:  # it does not stream
                    whole = piece(told)
                    yield Piece(whole.text, whole.end or "stop")
                    return
                if (name := _unsupported(response.status_code, told)) in body:
                    raise _Unsupported(name)
                raise refusal(response.status_code, response.headers, told)
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
    """The body in parts, and an empty one at its end.

    Raises:
        WorkerError: it is too long.
    """
    read = 0
    async for part in response.aiter_bytes():
        read += len(part)
        if read > MAX_BYTES:
            raise WorkerError(f"an answer of the remote endpoint is over {MAX_BYTES} bytes")
        if part:
            yield part
    yield b""


def _json(data: bytes | str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def _unsupported(status: int, body: Any) -> str:
    """The field that the endpoint does not take, of those that can be left out; "" if that is not what it says."""
    error = body.get("error") if isinstance(body, dict) else None
    if (
        status != 400
        or not isinstance(error, dict)
        or error.get("code") not in ("unsupported_parameter", "unsupported_value")
    ):
        return ""
    return next((name for name in _INSTEAD if name == error.get("param")), "")
