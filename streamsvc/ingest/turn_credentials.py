"""Credentials of TURN servers that expire (coturn's `use-auth-secret`): for publishers and for our own side.

See draft-uberti-behave-turn-rest-00: the user name is the time of expiry, the password an HMAC of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Turn


def credentials(turn: Turn, user: str) -> tuple[str, str] | None:
    """User name and password for `turn.seconds` from now; None: there is no secret.

    `user`: who it is made for, for the server's log: letters, digits, "-" and "_".
    """
    if turn.secret is None:
        return None
    name = f"{int(clock.utc().timestamp()) + turn.seconds}:{user}"
    key = turn.secret.get_secret_value().encode()
    return name, base64.b64encode(hmac.new(key, name.encode(), hashlib.sha1).digest()).decode()


def links(settings: Ingest, user: str) -> Sequence[str]:
    """Values of WHIP's Link header: each ICE server, with credentials where it takes them (RFC 9725, 4.6)."""
    found = [f'<{url}>; rel="ice-server"' for url in settings.ice_servers]
    if (made := credentials(settings.turn, user)) is not None:
        name, password = made
        told = f'username="{name}"; credential="{password}"; credential-type="password"'
        found += [f'<{url}>; rel="ice-server"; {told}' for url in settings.turn.urls]
    return found
