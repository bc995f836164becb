"""A host is allowed if all its addresses are public, or private ones are allowed."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from streamsvc.core import host_policy
from streamsvc.core.errors import Forbidden


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "0.1.2.3",
        "192.0.0.192",
        "168.63.129.16",
        "100.100.100.200",
        "198.18.0.1",
        "255.255.255.255",
        "224.0.0.1",
        "::1",
        "fe80::1%lo",
        "::ffff:127.0.0.1",
    ],
)
def test_private_loopback_and_multicast_addresses_are_not_public(address: str) -> None:
    assert not host_policy.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b:1::808:808",
        "2001:0:808:808::1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:a01:203::1",
        "::10.1.2.3",
        "::ffff:a01:203",
        "fec0::1",
    ],
)
def test_addresses_that_embed_a_private_one_are_not_public(address: str) -> None:
    assert not host_policy.is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_internet_addresses_are_public(address: str) -> None:
    assert host_policy.is_public(address)


def test_a_private_host_is_refused_unless_allowed() -> None:
    with pytest.raises(Forbidden) as caught:
        host_policy.addresses("127.0.0.1", 80, private_urls=False)
    assert caught.value.code == "private_url"
    assert host_policy.addresses("127.0.0.1", 80, private_urls=True) == ("127.0.0.1",)


def test_one_private_address_refuses_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(*_: Any, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))
            for address in ("8.8.8.8", "8.8.8.8", "10.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(Forbidden):
        host_policy.addresses("captions.example", 443, private_urls=False)
    assert host_policy.addresses("captions.example", 443, private_urls=True) == ("8.8.8.8", "10.0.0.1")


def test_an_unknown_or_invalid_host_name_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="not a host name"):
        host_policy.addresses("x" * 64 + ".example", 443, private_urls=False)

    def fail(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match="unknown"):
        host_policy.addresses("nobody.invalid", 443, private_urls=False)
