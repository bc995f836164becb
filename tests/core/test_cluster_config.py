"""Settings of a cluster."""

from __future__ import annotations

import pytest

from streamsvc.core import config
from streamsvc.core.errors import ConfigError

WHOLE = {
    "url": "redis://:hidden-word@127.0.0.1:6379/0",
    "advertise": "http://10.0.0.5:8080/",
    "secret": "not to be seen anywhere",
}


def test_without_an_address_of_redis_a_node_is_alone() -> None:
    assert config.load().cluster.url is None
    assert config.load(cluster={"url": " "}).cluster.url is None


def test_a_whole_group_is_taken() -> None:
    cluster = config.load(cluster=WHOLE).cluster
    assert cluster.url is not None
    assert cluster.url.get_secret_value() == WHOLE["url"]
    assert cluster.advertise == "http://10.0.0.5:8080"


@pytest.mark.parametrize("url", ["rediss://redis.example:6380/1", "unix:///run/redis.sock"])
def test_other_ways_to_redis_are_taken(url: str) -> None:
    assert config.load(cluster=WHOLE | {"url": url}).cluster.url is not None


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("url", "http://:hidden-word@127.0.0.1"),
        ("url", "redis://:hidden-word@"),
        ("url", "redis://:hidden-word@127.0.0.1:port"),
        ("advertise", "10.0.0.5:8080"),
        ("node", "no name"),
        ("secret", "too short"),
        ("prefix", ""),
        ("prefix", "with:colon"),
        ("lease_seconds", 0.1),
    ],
)
def test_a_wrong_setting_is_named_and_no_password_told(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"cluster.{setting}") as failed:
        config.load(cluster=WHOLE | {setting: value})
    assert "hidden-word" not in str(failed.value)


@pytest.mark.parametrize("missing", ["advertise", "secret"])
def test_an_address_of_redis_needs_the_others(missing: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster: .*needs {missing}"):
        config.load(cluster={name: value for name, value in WHOLE.items() if name != missing})


def test_a_lease_outlives_a_heartbeat_that_is_lost() -> None:
    with pytest.raises(ConfigError, match="twice heartbeat_seconds"):
        config.load(cluster=WHOLE | {"lease_seconds": 1.5, "heartbeat_seconds": 1.0})


def test_secrets_are_not_shown() -> None:
    shown = repr(config.load(cluster=WHOLE).cluster)
    assert "hidden-word" not in shown
    assert "not to be seen" not in shown
