"""Requests that the owner of a session alone can answer, forwarded to it by the node that was asked.

Questions, watches, pushes, changes, and what belongs to a publication. Forwarded requests carry the grants of
the client under the signature of this node, never its token; what comes back is passed on as it comes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from streamsvc.core.errors import ClusterUnavailable, StreamsvcError
from streamsvc.core.types import Grants
from streamsvc.service.node_signature import HEADER, Forwarded, NodeSignature

log = structlog.get_logger()
UNREACHABLE = "owner_unreachable"  # code of an error
MESSAGES = "/v1/sessions/{session_id}/messages"  # where a node takes messages of another one's event sockets
_CONNECT_SECONDS = 2.0
_READ_SECONDS = 60.0  # between two pieces of an answer: a streamed one has a keepalive before
_CONNECTIONS = 64  # to all nodes together; more requests wait
_ANSWER_BYTES = 1 << 20  # of an answer to a message
_PASSED_ON = ("accept", "content-type", "if-match", "last-event-id")  # headers of the request
_GIVEN_BACK = (  # headers of the answer
    "content-type",
    "location",
    "etag",
    "link",
    "accept-patch",
    "cache-control",
    "retry-after",
    "content-disposition",
    "x-accel-buffering",
)


class Relayed(Exception):
    """The answer of the owner, no error. The check before a route raises it, a handler returns `response`."""

    def __init__(self, response: StreamingResponse) -> None:
        super().__init__()
        self.response = response


class Forwarder:
    """Sends requests to other nodes.

    Args:
        signature: of the cluster.
    """

    def __init__(self, signature: NodeSignature) -> None:
        self._signature = signature
        # Not httpx's client, which logs addresses.
        self._transport = httpx.AsyncHTTPTransport(
            trust_env=False, limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=20.0)
        )

    async def forward(self, node: str, request: Forwarded, headers: Mapping[str, str]) -> StreamingResponse:
        """The answer of a node to a request, streamed.

        Args:
            node: its address (`cluster.advertise`).
            request: what is asked, and by whom.
            headers: of the client's request; some are passed on.

        Raises:
            ClusterUnavailable: "owner_unreachable": it does not answer.
        """
        passed = {name: headers[name] for name in _PASSED_ON if name in headers}
        response = await self._send(node, request, passed)
        given = {name: response.headers[name] for name in _GIVEN_BACK if name in response.headers}
        return _Streamed(response, given)

    async def message(
        self, node: str, session: str, text: str, grants: Grants, audience: str
    ) -> list[tuple[str, dict[str, Any]]]:
        """Hand a message of the event socket to the owner of its session.

        Returns:
            The replies to this subscriber alone, each as type and body; answers come with the events.

        Raises:
            StreamsvcError: what the owner says against it. ClusterUnavailable: it does not answer.
        """
        target = MESSAGES.format(session_id=session)
        request = Forwarded("POST", target, text.encode(), grants, "", audience)
        response = await self._send(node, request, {"content-type": "application/json"})
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        if response.status_code >= 400:
            raise _error(response.status_code, body)
        return [(str(reply["type"]), reply["body"]) for reply in body["replies"]]

    async def _send(self, node: str, request: Forwarded, headers: Mapping[str, str]) -> httpx.Response:
        signed = {**headers, HEADER: self._signature.forwarded(request)}
        timeouts = {
            "connect": _CONNECT_SECONDS,
            "pool": _CONNECT_SECONDS,
            "read": _READ_SECONDS,
            "write": 10.0,
        }
        try:
            return await self._transport.handle_async_request(
                httpx.Request(
                    request.method,
                    f"{node}{request.target}",
                    headers=signed,
                    content=request.body,
                    extensions={"timeout": timeouts},
                )
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
            log.warning("a node does not answer", node=node, error=type(error).__name__)
            raise ClusterUnavailable(
                "the node that this session lives on does not answer now; try again in a moment",
                code=UNREACHABLE,
            ) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


class _Streamed(StreamingResponse):
    """The answer of another node, passed on as it comes; given up when the client has gone."""

    def __init__(self, response: httpx.Response, headers: Mapping[str, str]) -> None:
        self._pieces = _pieces(response)
        self._response = response
        super().__init__(self._pieces, response.status_code, headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()
            await self._response.aclose()


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The pieces of a body; where the node dies within it, the body ends."""
    with contextlib.suppress(httpx.TransportError):
        async for piece in response.aiter_raw():
            yield piece


async def _read(response: httpx.Response) -> dict[str, Any]:
    content = bytearray()
    try:
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > _ANSWER_BYTES:
                break
        body: dict[str, Any] = json.loads(content)
    except (httpx.TransportError, ValueError):
        raise ClusterUnavailable(
            "the node that this session lives on has answered in part alone", code=UNREACHABLE
        ) from None
    return body


def _error(status: int, body: Mapping[str, Any]) -> StreamsvcError:
    """An error as another node has told it."""
    told = body.get("error", {})
    error = StreamsvcError(str(told.get("message", "refused")), code=str(told.get("code", "internal")))
    error.type = str(told.get("type", error.type))
    error.status = status
    error.retryable = bool(told.get("retryable", False))
    return error
