"""Ids of traces and spans fit their bits, and are never the one that means none."""

from __future__ import annotations

import secrets

import pytest

from streamsvc.core.spans import random_id


@pytest.mark.parametrize("size", [8, 16])
def test_an_id_is_never_zero_and_fits_its_bytes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda below: 0)
    assert random_id(size) == 1
    monkeypatch.setattr(secrets, "randbelow", lambda below: below - 1)
    assert random_id(size) == (1 << 8 * size) - 1


def test_ids_differ() -> None:
    assert len({random_id(8) for _ in range(1000)}) == 1000
