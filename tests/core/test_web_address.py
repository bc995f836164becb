"""Addresses in settings: as browsers write them, and never ambiguous."""

from __future__ import annotations

import pytest

from streamsvc.core import web_address


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://Example.org", "https://example.org"),
        ("https://example.org:443/", "https://example.org"),
        ("http://example.org:8080", "http://example.org:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(given: str, origin: str) -> None:
    assert web_address.origin(given) == origin


@pytest.mark.parametrize(
    "wrong",
    ["example.org", "ftp://a", "https://a/path", "https://u:p@a", "https://a?b", "null", "https://a b"],
)
def test_what_is_no_origin_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"https://example\.org"):
        web_address.origin(wrong)


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ("", ""),
        ("https://Example.org/", "https://example.org"),
        ("https://example.org/live/", "https://example.org/live"),
        ("http://a:81/x/y.z", "http://a:81/x/y.z"),
    ],
)
def test_a_public_address_may_have_a_path(given: str, public: str) -> None:
    assert web_address.public_url(given) == public


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("example.org/live", "must be a URL"),
        ("https://a/v1", "must not begin with /v1"),
        ("https://a/whip/x", "must not begin with /whip"),
        ("https://a/x/../y", "between the slashes"),
        ("https://a//x", "between the slashes"),
        ("https://a/x y", "must be a URL"),
        ("https://a/x%20y", "between the slashes"),
        ("https://a/x?b=c", "must be a URL"),
    ],
)
def test_a_public_address_that_could_not_be_told_from_our_paths_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        web_address.public_url(wrong)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("10.0.0.1", False)],
)
def test_loopback_hosts_are_recognised(host: str, loopback: bool) -> None:
    assert web_address.is_loopback(host) is loopback


@pytest.mark.parametrize("text", ["50000", "50100-50000", "80-90", "50000-65536", "a-b", "-"])
def test_a_range_of_ports_is_checked(text: str) -> None:
    assert web_address.port_range("50000-50001") == range(50_000, 50_002)
    assert web_address.checked_ports("") == ""
    with pytest.raises(ValueError, match='such as "50000-50100"'):
        web_address.checked_ports(text)


def test_an_address_to_listen_on_has_a_port() -> None:
    assert web_address.host_and_port("0.0.0.0:1935") == ("0.0.0.0", 1935)
    assert web_address.host_and_port("[::]:0") == ("::", 0)
    assert web_address.listen("") == ""
    for wrong in (
        "1935",
        ":1935",
        "localhost:1935",
        "1.2.3.4",
        "1.2.3.4:",
        "1.2.3.4:-1",
        "1.2.3.4:65536",
        "a:b",
    ):
        with pytest.raises(ValueError, match="an address and a port"):
            web_address.listen(wrong)


def test_streams_are_pulled_from_a_url_with_their_name() -> None:
    for right in ("", "rtsp://a:8554/{name}", "rtmp://a/{app}/{name}", "https://a/{app}/{name}/x.m3u8"):
        assert web_address.pull(right) == right
    for wrong in (
        "rtsp://a/live",
        "file:///{name}",
        "{name}",
        "rtmp:///{name}",
        "rtmp://a:x/{name}",
        "rtmp://a/{b}",
    ):
        with pytest.raises(ValueError, match="the URL of a stream"):
            web_address.pull(wrong)


def test_a_proxy_is_told_by_its_address_or_its_network() -> None:
    proxies = ("10.0.0.0/8", "fd00::/8", "192.0.2.1", "caddy")
    for inside in ("10.1.2.3", "fd00::1", "192.0.2.1", "caddy"):
        assert web_address.is_among(inside, proxies), inside
    for outside in ("11.0.0.1", "fe80::1", "192.0.2.2", "", "nginx"):
        assert not web_address.is_among(outside, proxies), outside
    assert web_address.is_among("anything", ("*",))
    assert not web_address.is_among("127.0.0.1", ())


def test_a_network_that_cannot_be_read_is_refused() -> None:
    for right in ("10.0.0.0/8", "10.1.2.3/8", "192.0.2.1", "caddy", "*"):
        assert web_address.proxy(right) == right
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        web_address.proxy("10.0.0.0/99")


@pytest.mark.parametrize("given", ["auto", "10.0.0.1:6379", "ray-head.models.svc:6379", "[::1]:6379"])
def test_a_ray_cluster_is_here_or_at_a_host_and_port(given: str) -> None:
    assert web_address.ray_cluster(given) == given


@pytest.mark.parametrize(
    ("wrong", "why"),
    [("ray://head:10001", "no streams"), ("head", "host:port"), ("", "host:port"), ("a b:1", "host:port")],
)
def test_an_address_that_no_node_can_use_is_refused(wrong: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        web_address.ray_cluster(wrong)
