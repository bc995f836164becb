"""The addresses of a session."""

from __future__ import annotations

from streamsvc.core.config import Server
from streamsvc.service.broadcast_ids import door_of


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
