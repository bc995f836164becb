"""Ids of broadcasts: a name is a door that stays, and each broadcast under it has an id of its own. Pure.

lecture                           the name: published to and followed, again and again
lecture.20261130-104512-3f9c      one broadcast of it, by the UTC time at which it was begun
0.Yx3…                            a session without a name
"""

from __future__ import annotations

import re
import secrets

from streamsvc.core import clock
from streamsvc.core.errors import InvalidRequest

NAME_LENGTH = 40  # characters; an id has 21 more
_BROADCAST = re.compile(r"(.+)\.[0-9]{8}-[0-9]{6}-[0-9a-f]{4}")
_UNNAMED = re.compile(r"0\.[A-Za-z0-9_-]{16}")
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_LENGTH}}}")


def new_id(name: str | None) -> str:
    """An id for a broadcast under a name; None: for a session without one, which cannot be guessed."""
    if name is None:
        return f"0.{secrets.token_urlsafe(12)}"
    return f"{name}.{clock.utc():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def name_of(session_id: str) -> str | None:
    """The name that a broadcast was begun under; None: this is no id of a broadcast."""
    found = _BROADCAST.fullmatch(session_id)
    return found[1] if found else None


def is_id(address: str) -> bool:
    """Whether an address has the form of an id, which no name has: it leads to that session alone."""
    return name_of(address) is not None or _UNNAMED.fullmatch(address) is not None


def door_of(session_id: str) -> str:
    """The address to publish to and to follow: the name, else the id."""
    return name_of(session_id) or session_id


def check_name(name: str) -> None:
    """Raise InvalidRequest where a session cannot have this name."""
    if not _NAME.fullmatch(name) or not name.strip(".") or is_id(name):
        raise InvalidRequest(
            f"a session's name has 1 to {NAME_LENGTH} letters, digits, '.', '_' or '-', and is not written "
            "like the id of a session",
            code="bad_session_id",
        )
