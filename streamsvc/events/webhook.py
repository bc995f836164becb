"""Webhooks: signed POSTs of alerts, retried with backoff."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from streamsvc.core import clock, http_client, metrics
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.http_client import HostClient
from streamsvc.core.queues import Closed, Ring

TRIES, FIRST, TIMEOUT, GRACE = (
    6,
    1.0,
    5.0,
    5.0,
)  # of a webhook: tries; seconds before the second one, for one, and after the session's end
WAITING = 32  # alerts that wait for a webhook; the oldest go first
_AGAIN = frozenset({None, 408, 425, 429, 500, 502, 503, 504})  # statuses after which a webhook is tried again


class Webhook:
    """A webhook: alerts are POSTed one after the other, and never waited for.

    Args:
        url: http(s). It may hold a secret, and is never told.
        private_urls: security limit: whether hosts of private networks are allowed.

    Raises:
        InvalidRequest: "bad_webhook": no such URL.
    """

    def __init__(self, url: str, private_urls: bool) -> None:
        found = http_client.parse_url(url)
        if found is None:
            raise InvalidRequest(
                "a webhook is an http(s) URL without a name or a fragment in it", code="bad_webhook"
            )
        self.secret = f"whsec_{secrets.token_urlsafe(24)}"
        self.sent = self.failed = 0
        self._target = found.raw_path.decode()
        self._out = HostClient(found.scheme, found.raw_host.decode(), found.port, private_urls, TIMEOUT)
        self.check, self._waiting = (
            self._out.resolve,
            Ring[bytes](WAITING, lambda body: self._failed("dropped")),
        )

    def put(self, body: Mapping[str, Any]) -> None:
        """Have an alert sent."""
        self._waiting.put(json.dumps(body, separators=(",", ":")).encode())

    def close(self) -> None:
        """Take no more; what waits is still sent."""
        self._waiting.close()

    def told(self) -> dict[str, int]:
        """How many alerts were sent, failed and wait."""
        return {"sent": self.sent, "failed": self.failed, "waiting": len(self._waiting)}

    async def run(self) -> None:
        """Send what comes, until it is closed and all is sent or given up."""
        try:
            with suppress(Closed):
                while True:
                    (body,) = await self._waiting.take(1)
                    await self._send(body)
        finally:
            for _ in range(len(self._waiting)):
                self._failed("given_up")
            await self._out.close()

    async def _send(self, body: bytes) -> None:
        status: int | None = None
        for number in range(TRIES):
            if number:
                await clock.sleep(FIRST * 2 ** (number - 1) * random.uniform(0.7, 1.0))
            headers = {
                "Content-Type": "application/json",
                "Streamsvc-Signature": signature(self.secret, body, clock.utc().timestamp()),
            }
            status, _ = await self._out.request("POST", self._target, headers, body)
            if status not in _AGAIN:
                break
        if status is not None and 200 <= status < 300:
            self.sent += 1
            metrics.webhooks.labels("sent").inc()
        else:
            self._failed("refused" if status is not None else "no_answer")

    def _failed(self, why: str) -> None:
        self.failed += 1
        metrics.webhooks.labels(why).inc()


def signature(secret: str, body: bytes, at: float) -> str:
    """What proves that a body comes from here, and when (Unix seconds)."""
    stamp = str(int(at))
    return (
        f"t={stamp},v1={hmac.new(secret.encode(), stamp.encode() + b'.' + body, hashlib.sha256).hexdigest()}"
    )
