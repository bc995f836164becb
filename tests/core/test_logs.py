"""Log lines name the places of an exception, never its message."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any

import pytest
import structlog

from streamsvc.core import metrics
from streamsvc.core.logs import configure_logs, redact_exception


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


@pytest.mark.parametrize("file", ["closed", "full"])
def test_a_line_that_nothing_takes_is_counted_and_does_not_fail_its_caller(file: str) -> None:
    name = "streamsvc_log_lines_lost_total"
    lost = metrics.REGISTRY.get_sample_value(name)
    assert lost is not None
    descriptor = os.open("/dev/full", os.O_WRONLY)
    with contextlib.suppress(OSError), os.fdopen(descriptor, "w") as stream:
        configure_logs(as_json=True, file=stream)
        if file == "closed":
            stream.close()
        structlog.get_logger().warning("a disk is full")
    assert metrics.REGISTRY.get_sample_value(name) == lost + 1
