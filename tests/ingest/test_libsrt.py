"""The binding of libsrt: what is missing or too old is told, and a peer's address is read."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Any

import pytest

from streamsvc.ingest import libsrt


def fake(version: int) -> Any:
    class Library:
        @staticmethod
        def srt_getversion() -> int:
            return version

    return Library()


def test_a_missing_library_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libsrt, "_NAMES", ("libsrt-that-nobody-has.so",))
    with pytest.raises(libsrt.SrtError, match=r"libsrt is missing: install libsrt .*apt install libsrt"):
        libsrt.load()


def test_a_library_that_cannot_refuse_with_a_reason_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake(0x010401))
    with pytest.raises(libsrt.SrtError, match=r"1\.4\.1 is too old"):
        libsrt.load()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: fake(0x010402))
    libsrt.load()


@pytest.mark.parametrize(
    ("family", "host", "packed"),
    [
        (socket.AF_INET, "192.0.2.7", struct.pack("!H4s8x", 5, socket.inet_aton("192.0.2.7"))),
        (
            socket.AF_INET6,
            "2001:db8::7",
            struct.pack("!HI16sI", 5, 0, socket.inet_pton(socket.AF_INET6, "2001:db8::7"), 0),
        ),
        (
            socket.AF_INET6,
            "192.0.2.7",
            struct.pack("!HI16sI", 5, 0, socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.7"), 0),
        ),
        (socket.AF_UNIX, "", b"abc"),
    ],
)
def test_the_host_of_a_peer_is_read_from_its_address(family: int, host: str, packed: bytes) -> None:
    address = ctypes.create_string_buffer(struct.pack("=H", family) + packed)
    assert libsrt.peer_host(ctypes.addressof(address)) == host


def test_no_address_is_no_host() -> None:
    assert libsrt.peer_host(None) == ""
