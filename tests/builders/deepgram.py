"""The official Deepgram client, pointed at a local service."""

from __future__ import annotations

import warnings

import httpx

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports websockets.legacy
    from deepgram import AsyncDeepgramClient, DeepgramClientEnvironment

RAW = "encoding=linear16&sample_rate=16000"  # query of a live socket


def official(place: str, http: httpx.AsyncClient, key: str = "none") -> AsyncDeepgramClient:
    """A client of the service at `place` (host:port)."""
    environment = DeepgramClientEnvironment(
        base=f"http://{place}", production=f"ws://{place}", agent="", agent_rest=""
    )
    return AsyncDeepgramClient(api_key=key, environment=environment, httpx_client=http)
