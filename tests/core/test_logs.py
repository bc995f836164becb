"""Log lines name the places of an exception, never its message."""

from __future__ import annotations

import re
from typing import Any

from streamsvc.core.logs import redact_exception


def test_an_exception_is_logged_by_its_places_without_its_message() -> None:
    try:
        raise ExceptionGroup("what was said", [ValueError("the user's words")])
    except ExceptionGroup:
        event: dict[str, Any] = redact_exception(None, "error", {"event": "failed", "exc_info": True})
    assert re.fullmatch(r"test_logs\.py:\d+", event["places"][0])
    assert event.keys() == {"event", "places"}
    assert "said" not in str(event)
    assert "words" not in str(event)


def test_an_event_without_an_exception_stays_as_it_is() -> None:
    assert redact_exception(None, "info", {"event": "ready"}) == {"event": "ready"}
