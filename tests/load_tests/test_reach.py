"""A publisher behind NAT is captioned through the router's range of ports."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from load_tests.reach import Arrival, _servers, measured, told, verdict
from load_tests.street import missing

SPEECH = Path(__file__).resolve().parents[1] / "fixtures" / "canary.ogg"


def test_a_path_without_a_caption_is_wrong_and_a_control_with_one() -> None:
    found = [Arrival("range", 3.0, "host"), Arrival("expired", None, "host")]
    assert verdict(found) == []
    assert "| range   | host                     | 3.0              |" in told(found)
    swapped = [Arrival("range", None, "host"), Arrival("expired", 3.0, "host,relay")]
    assert verdict(swapped) == ["range was not captioned", "expired was captioned"]


def test_servers_are_read_from_link_headers_with_their_credentials() -> None:
    (server,) = _servers(
        [
            '<stun:stun.example>; rel="ice-server"',
            '<turn:203.0.113.1:3478>; rel="ice-server"; username="1:a"; credential="b="; more="c"',
        ]
    )
    assert (server.urls, server.username, server.credential) == ("turn:203.0.113.1:3478", "1:a", "b=")


@pytest.mark.load
@pytest.mark.models
@pytest.mark.parametrize("path", ["range", "relay"])
def test_a_publisher_behind_nat_is_captioned(path: str, tmp_path: Path) -> None:
    if why := missing():
        pytest.skip(why)
    (found,) = asyncio.run(measured([path], SPEECH, tmp_path))
    assert found.caption is not None
    assert ("relay" in found.candidates) is (path == "relay")
