"""Where the parts of a session are found."""

from __future__ import annotations

from streamsvc.core.config import Server
from streamsvc.service.broadcast_ids import new_id
from streamsvc.service.session_addresses import addresses, frame_path


def test_a_broadcast_is_published_to_and_overlaid_under_its_name_and_read_under_its_id() -> None:
    session = new_id("studio")
    found = addresses(session, Server(public_url="https://example.org/live"))
    base = "https://example.org/live"
    assert found["whip_url"] == f"{base}/whip/studio"
    assert found["overlay_url"] == f"{base}/overlay/studio"
    assert found["events_url"] == f"{base}/v1/sessions/{session}/events"


def test_a_keyframe_is_found_by_its_millisecond() -> None:
    assert frame_path("s", 1.23456) == "/v1/sessions/s/frames/1.235.jpg"
