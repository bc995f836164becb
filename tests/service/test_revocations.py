"""Revoked tokens stay revoked until they would have expired, also after a restart; the number is bounded."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from streamsvc.core.errors import CapacityError, ConfigError
from streamsvc.service import revocations
from streamsvc.service.revocations import Revocations


def token(number: int) -> str:
    return f"{number:012}"


def test_a_token_and_those_made_with_it_are_covered_and_no_others() -> None:
    revoked = Revocations()
    assert not revoked.covers(token(1))
    revoked.add(f"{token(1)}.{token(2)}", 60, by_owner=True)
    assert revoked.covers(f"{token(1)}.{token(2)}")
    assert revoked.covers(f"{token(1)}.{token(2)}.{token(3)}.{token(4)}")
    for other in (token(1), token(2), f"{token(1)}.{token(3)}", f"{token(2)}.{token(1)}", "owner", "local"):
        assert not revoked.covers(other)


def test_they_are_known_after_a_restart_in_a_file_of_this_user_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / revocations.FILE
    Revocations(path).add(token(1), 60, by_owner=True)
    Revocations(path).add(token(2), 60, by_owner=True)
    again = Revocations(path)
    assert again.covers(token(1))
    assert again.covers(token(2))
    assert [one.name for one in path.parent.iterdir()] == [path.name], "nothing else is left"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_has_expired_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / revocations.FILE
    revoked = Revocations(path)
    revoked.add(token(1), 0.0, by_owner=True)
    revoked.add(token(2), 60, by_owner=True)
    assert token(1) not in path.read_text()
    assert revoked.covers(token(2))


def test_a_file_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    path = tmp_path / revocations.FILE
    for content in ("", "[]", "{", '{"a": "b"}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match="revoked in the last 24 hours"):
            Revocations(path)


def test_a_holder_cannot_use_up_the_room_of_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "_MOST", 6)
    monkeypatch.setattr(revocations, "_MOST_OF_ONE", 3)
    revoked = Revocations()
    for number in range(3):
        revoked.add(f"{token(1)}.{token(number)}", 60, by_owner=False)
    with pytest.raises(CapacityError):
        revoked.add(f"{token(1)}.{token(9)}", 60, by_owner=False)
    revoked.add(f"{token(2)}.{token(9)}", 60, by_owner=False)
    revoked.add(token(1), 60, by_owner=True)
    assert revoked._until.keys() == {f"{token(2)}.{token(9)}", token(1)}, "what it covers is not kept"
    for number in range(4):
        revoked.add(token(10 + number), 60, by_owner=True)
    with pytest.raises(CapacityError):
        revoked.add(token(99), 60, by_owner=True)


def test_a_token_that_has_used_up_its_share_does_not_keep_its_parent_from_revoking_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(revocations, "_MOST", 3)
    monkeypatch.setattr(revocations, "_MOST_OF_ONE", 3)
    revoked = Revocations()
    leaked = f"{token(1)}.{token(2)}"
    for number in range(3):
        revoked.add(f"{leaked}.{token(number)}", 60, by_owner=False)
    revoked.add(leaked, 60, by_owner=False)
    assert revoked._until.keys() == {leaked}


def test_what_cannot_be_written_is_not_revoked_and_the_next_try_says_so_too(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    revoked = Revocations(folder / revocations.FILE)
    folder.write_text("no folder")
    for _ in range(2):
        with pytest.raises(CapacityError) as refused:
            revoked.add(token(1), 60, by_owner=True)
        assert refused.value.code == "store_failed"
        assert not revoked.covers(token(1))
    folder.unlink()
    revoked.add(token(1), 60, by_owner=True)
    assert Revocations(folder / revocations.FILE).covers(token(1))


def test_its_name_is_on_the_disk_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    synced: list[tuple[Path, bool]] = []
    path = tmp_path / revocations.FILE
    monkeypatch.setattr(revocations, "sync_folder", lambda folder: synced.append((folder, path.exists())))
    Revocations(path).add(token(1), 60, by_owner=True)
    assert synced == [(tmp_path, True)]


def test_what_it_says_is_on_the_disk_before_it_takes_the_place_of_the_old(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / revocations.FILE
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.exists()))
    monkeypatch.setattr(revocations, "sync_folder", lambda _: None)
    Revocations(path).add(token(1), 60, by_owner=True)
    assert synced == [False]


def test_several_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / revocations.FILE
    revoked = Revocations(path)
    adding = [
        Thread(target=revoked.add, args=(token(number), 60), kwargs={"by_owner": True})
        for number in range(20)
    ]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert all(Revocations(path).covers(token(number)) for number in range(20))
