"""Whose a private answer is: of a token, and of the client that the token's holder names."""

from __future__ import annotations

import hashlib
import secrets

from streamsvc.core.types import Grants
from streamsvc.service.auth import LOCAL, OWNER

_SECRET = 16  # characters from which on the name of a client is taken for a secret that nobody guesses


def audience_of(grants: Grants, client: str) -> str:
    """The audience of private answers to one client, which no client of another holder can be.

    A client that gives the same name again, as after a reconnect, is the same. The API key and an open server
    have many users: there a name that could be guessed names nobody, and as without a name the audience is
    of this connection alone.
    """
    if len(client) < (_SECRET if is_shared(grants) else 1):
        return secrets.token_hex(12)
    return hashlib.sha256(f"{grants.holder} {client}".encode(errors="replace")).hexdigest()[:24]


def is_shared(grants: Grants) -> bool:
    """Whether these grants tell no one holder from another."""
    return grants.holder in (OWNER, LOCAL)
