"""Tokens of about 100 characters, for stream keys: what a JWT of ours says, packed and signed.

    version, permissions, expiry, steps of the id, session | MAC

in base64 for URLs (RFC 4648), without dots, which tell a JWT from it. The MAC is HMAC-SHA256 cut to 128 bits
(RFC 2104, section 5), by a key that signs nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_VERSION = 1
_HEAD = struct.Struct(">BBIB")  # version, permissions as bits, Unix seconds of its expiry, steps
_STEP_BYTES = 9  # of a step of an id: 12 characters
_MAC_BYTES = 16


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says.

    Attributes:
        id: steps of 12 characters in base64 for URLs, with dots between them.
        session: that it is for; "*": all.
        may: permissions.
        expires: Unix seconds.
    """

    id: str
    session: str
    may: frozenset[str]
    expires: int


def pack(claims: Claims, permissions: Sequence[str], key: bytes) -> str:
    """The token that says this. `permissions`: all there are, eight at most, in a lasting order."""
    steps = [base64.urlsafe_b64decode(step) for step in claims.id.split(".")]
    bits = sum(1 << place for place, name in enumerate(permissions) if name in claims.may)
    body = _HEAD.pack(_VERSION, bits, claims.expires, len(steps)) + b"".join(steps) + claims.session.encode()
    return _text(body + _mac(body, key))


def unpack(token: str, permissions: Sequence[str], key: bytes) -> Claims:
    """What a token says, which was signed with this key. Raises ValueError: it was not, or is none."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
    body, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(body, key)) or _text(data) != token:  # one text for each token
        raise ValueError("not signed")
    version, bits, expires, count = _HEAD.unpack_from(body)
    if version != _VERSION:
        raise ValueError("of another version")
    end = _HEAD.size + count * _STEP_BYTES
    steps = _parts(body[_HEAD.size : end])
    may = frozenset(name for place, name in enumerate(permissions) if bits >> place & 1)
    return Claims(".".join(map(_text, steps)), body[end:].decode(), may, expires)


def _parts(steps: bytes) -> Iterable[bytes]:
    return (steps[first : first + _STEP_BYTES] for first in range(0, len(steps), _STEP_BYTES))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _mac(body: bytes, key: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()[:_MAC_BYTES]
