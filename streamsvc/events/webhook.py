"""Webhooks: signed POSTs of alerts, retried with backoff.

A request has the header `Streamsvc-Signature: t=SECONDS,v1=HEX`: t is the Unix time of the try, v1 the
HMAC-SHA256 of "t.body" under the webhook's secret. The body, and the `id` in it, are the same for every try.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from streamsvc.core import clock, http_client, metrics
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.http_client import HostClient
from streamsvc.core.queues import Closed, Ring

MAX_TRIES = 6
FIRST_DELAY = 1.0  # seconds before the second try; doubled for each further one, less up to 30 % jitter
TIMEOUT = 5.0  # seconds for one try
GRACE = 5.0  # seconds after the end of the session for alerts that wait
QUEUE_SIZE = 32  # waiting alerts; the oldest are dropped
_RETRIED = frozenset({None, 408, 425, 429, 500, 502, 503, 504})  # statuses; None: no response


class Webhook:
    """A webhook with a bounded queue: alerts are POSTed one after the other, `put` never blocks.

    Args:
        url: http(s). It may hold a secret: it appears in no response, message or log.
        private_urls: security limit: whether hosts of private networks are allowed.
        signed: makes the addresses in a body its receiver's.

    Raises:
        InvalidRequest: "bad_webhook": the URL is not valid.
    """

    def __init__(self, url: str, private_urls: bool, signed: Callable[[str], str] = str) -> None:
        parsed = http_client.parse_url(url)
        if parsed is None:
            raise InvalidRequest(
                "a webhook is an http(s) URL without a user or a fragment", code="bad_webhook"
            )
        self.secret = f"whsec_{secrets.token_urlsafe(24)}"
        self._signed = signed
        self.sent = 0
        self.failed = 0
        self._path = parsed.raw_path.decode()
        host = parsed.raw_host.decode()
        self._client = HostClient(parsed.scheme, host, parsed.port, private_urls, TIMEOUT)
        self._queue: Ring[bytes] = Ring(QUEUE_SIZE, lambda body: self._count_failed("dropped"))

    async def check(self) -> None:
        """Check that the host may be reached. Raises as `HostClient.resolve`."""
        await self._client.resolve()

    def put(self, body: Mapping[str, Any]) -> None:
        """Queue an alert."""
        self._queue.put(self._signed(json.dumps(body, separators=(",", ":"))).encode())

    def close(self) -> None:
        """Close the queue; waiting alerts are still sent."""
        self._queue.close()

    def describe(self) -> dict[str, int]:
        """Numbers of alerts as JSON."""
        return {"sent": self.sent, "failed": self.failed, "waiting": len(self._queue)}

    async def run(self) -> None:
        """Send alerts until the queue is closed and empty."""
        try:
            with suppress(Closed):
                while True:
                    (body,) = await self._queue.take(1)
                    await self._send(body)
        finally:
            for _ in range(len(self._queue)):
                self._count_failed("given_up")
            await self._client.close()

    async def _send(self, body: bytes) -> None:
        status: int | None = None
        for number in range(MAX_TRIES):
            if number:
                await clock.sleep(FIRST_DELAY * 2 ** (number - 1) * random.uniform(0.7, 1.0))
            headers = {
                "Content-Type": "application/json",
                "Streamsvc-Signature": signature(self.secret, body, clock.utc().timestamp()),
            }
            status, _ = await self._client.request("POST", self._path, headers, body)
            if status not in _RETRIED:
                break
        if status is not None and 200 <= status < 300:
            self.sent += 1
            metrics.webhooks.labels("sent").inc()
        else:
            self._count_failed("refused" if status is not None else "no_answer")

    def _count_failed(self, reason: str) -> None:
        self.failed += 1
        metrics.webhooks.labels(reason).inc()


def signature(secret: str, body: bytes, at: float) -> str:
    """The signature header of a body sent at `at` (Unix seconds)."""
    stamp = str(int(at))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"
