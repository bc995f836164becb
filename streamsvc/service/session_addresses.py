"""The addresses of a session."""

from __future__ import annotations

import contextlib

from streamsvc.core.config import Server
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.types import Grants
from streamsvc.service.auth import SIGNED, Auth
from streamsvc.service.broadcast_ids import door_of

OVERLAY_SECONDS = 24 * 3600.0  # that the token of an overlay is valid: as long as tokens are


def frame_path(session_id: str, at: float) -> str:
    """The path of the keyframe of session second `at`."""
    return f"/v1/sessions/{session_id}/frames/{at:.3f}.jpg"


def addresses(session_id: str, server: Server) -> dict[str, str]:
    """Where the parts of a session are found; it is published to, and overlaid, under its name."""
    base, door = f"/v1/sessions/{session_id}", door_of(session_id)
    return {
        "events_url": server.address(f"{base}/events"),
        "whip_url": server.address(f"/whip/{door}"),
        "overlay_url": server.address(f"/overlay/{door}"),
        "captions_url": server.address(f"{base}/captions.vtt"),
    }


def signed_addresses(
    session_id: str, server: Server, auth: Auth, grants: Grants, seconds: float
) -> dict[str, str]:
    """Those of `addresses` that are read, for one that cannot send a header; empty: it may not subscribe.

    The overlay, whose page opens a socket, has a token to subscribe in its fragment, which no server is sent.

    Args:
        session_id: of the session.
        server: without a key there is nothing to sign.
        auth: signs.
        grants: of whoever is told; what is signed ends with them.
        seconds: that signatures hold.
    """
    if server.api_key is None or grants.tenant == SIGNED or "subscribe" not in grants.may:
        return {}
    base, door = f"/v1/sessions/{session_id}", door_of(session_id)
    found = {
        "events_url": auth.sign(f"{base}/events", seconds, grants),
        "captions_url": auth.sign(f"{base}/captions.vtt", seconds, grants),
    }
    with contextlib.suppress(
        StreamsvcError
    ):  # it is for this broadcast alone, or too many steps from the key
        made = auth.token(grants, session=door, may=("subscribe",), seconds=OVERLAY_SECONDS, short=True)
        found["overlay_url"] = server.address(f"/overlay/{door}#token={made.token}")
    return found
