"""Fixtures of the service tests."""

from __future__ import annotations

import asyncio

import pytest

from streamsvc.core.errors import (
    InvalidRequest,
)
from streamsvc.ingest import peer
from tests.builders.fake_service import Peer


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> list[Peer]:
    """Every offer is answered by a stand-in, which is put here.

    The offer "bad" fails once `unlock` is set.
    """
    made: list[Peer] = []

    async def answer(
        offer: str, _settings: object, _limits: object, sink: peer.FrameSink, _ice_servers: object
    ) -> Peer:
        if offer != "good":
            await asyncio.sleep(1.0)  # negotiating
            raise InvalidRequest("no", code="malformed_sdp")
        made.append(Peer(sink.on_state))
        return made[-1]

    monkeypatch.setattr(peer, "answer", answer)
    return made
