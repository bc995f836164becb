"""Tokens that were revoked before their time, kept in a file until they would have expired anyway."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, ConfigError
from streamsvc.events.store import sync_folder

FILE = "~revoked.json"  # in the data folder; no session can have this name
_MOST = 10_000  # kept at once; security limit
_MOST_OF_ONE = 100  # of the tokens made with one token, so that its holder leaves room for the owner's


class Revocations:
    """The revoked tokens of a service. A token made with a revoked one is revoked too.

    Args:
        path: of the file; None: they are kept in memory alone.

    Raises:
        ConfigError: the file cannot be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._adding = threading.Lock()
        self._until = _read(path) if path is not None else {}  # id of a token -> Unix seconds

    def covers(self, holder: str) -> bool:
        """Whether a token is revoked, or one that it was made with."""
        if not self._until:
            return False
        steps = holder.split(".")
        return any(".".join(steps[:count]) in self._until for count in range(1, len(steps) + 1))

    def add(self, token: str, seconds: float, *, by_owner: bool) -> None:
        """Revoke a token for `seconds`, after which it has expired. Any thread; then it is on the disk.

        Raises:
            CapacityError: too many are revoked, or it cannot be written; nothing is revoked then.
        """
        with self._adding:
            self._add(token, seconds, by_owner=by_owner)

    def all(self) -> Mapping[str, float]:
        """The revoked tokens, each with the Unix second at which it would have expired."""
        return self._until

    def merge(self, others: Mapping[str, float]) -> None:
        """Revoke what other nodes have revoked. Any thread; then it is on the disk.

        Raises:
            CapacityError: it cannot be written; then it holds until this process ends.
        """
        with self._adding:
            if all(one in self._until for one in others):
                return
            now = clock.utc().timestamp()
            kept = {one: until for one, until in {**others, **self._until}.items() if until > now}
            self._until = kept  # in any case: it was refused elsewhere already
            self._keep(kept)

    def _add(self, token: str, seconds: float, *, by_owner: bool) -> None:
        if self.covers(token):
            return
        now = clock.utc().timestamp()
        # What was made with it is covered by it from now on.
        kept = {
            one: until
            for one, until in self._until.items()
            if until > now and not one.startswith(f"{token}.")
        }
        family = token.partition(".")[0]
        of_one = sum(one.partition(".")[0] == family for one in kept)
        if len(kept) >= _MOST or (of_one >= _MOST_OF_ONE and not by_owner):
            raise CapacityError(
                "Too many tokens are revoked; revoke the one that they were made with",
                code="too_many_revoked",
            )
        kept[token] = now + seconds
        self._keep(kept)
        self._until = kept

    def _keep(self, until: Mapping[str, float]) -> None:
        if self._path is None:
            return
        try:
            _write(self._path, until)
        except OSError:
            raise CapacityError(
                "a revocation cannot be written to the disk of this server now", code="store_failed"
            ) from None


def _read(path: Path) -> dict[str, float]:
    """The revocations in a file; those that are over go with the next that is added."""
    try:
        found = json.loads(path.read_bytes())
        return {str(token): float(until) for token, until in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError):
        raise ConfigError(
            f"{path} cannot be read: it names the tokens that were revoked in the last 24 hours. "
            "Without it they are valid again until they expire; delete it to start all the same"
        ) from None


def _write(path: Path, until: Mapping[str, float]) -> None:
    """Replace the file as a whole, readable by this user alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(until, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)
