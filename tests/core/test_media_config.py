"""Settings of media that come in."""

from __future__ import annotations

import pytest

from streamsvc.core import config
from streamsvc.core.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("udp_ports", "50100-50000"),
        ("udp_ports", "http"),
        ("advertise", ("example.org",)),
        ("start", 1),
        ("rtmp_listen", "1935"),
        ("srt_listen", "localhost:9710"),
        ("srt_passphrase", "too short"),
        ("srt_passphrase", "long" * 20),
        ("srt_latency_ms", 10_000),
        ("hooks", {"srs": "rtmp://127.0.0.1/live/studio"}),
        ("hooks", {"ome": "http://127.0.0.1:3333/{app}/{name}/ts:playlist.m3u8"}),
    ],
)
def test_a_wrong_setting_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"ingest.{setting}"):
        config.load(ingest={setting: value})


def test_a_secret_is_not_shown() -> None:
    ingest = config.load(ingest={"turn": {"urls": ("turn:a.example",), "secret": "not to be seen"}}).ingest
    assert ingest.turn.secret is not None
    assert "seen" not in repr(ingest)
    hooks = {"ome": "http://127.0.0.1/{app}/{name}.m3u8", "ome_secret": "not to be seen"}
    assert "seen" not in repr(config.load(ingest={"hooks": hooks}).ingest)
    assert "seen" not in repr(config.load(ingest={"srt_passphrase": "not to be seen"}).ingest)


def test_groups_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.Ingest().loopback = False  # type: ignore[misc]
