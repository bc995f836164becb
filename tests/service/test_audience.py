"""A private answer belongs to its holder, whatever names others give."""

from __future__ import annotations

import pytest

from streamsvc.core.types import Grants
from streamsvc.service.audience import audience_of

SECRET = "a-name-that-nobody-guesses"


def held_by(holder: str) -> Grants:
    return Grants("owner", "*", frozenset({"ask"}), None, holder)


def test_a_tokens_client_is_the_same_by_its_name_and_no_other_holders() -> None:
    mine, yours = held_by("a" * 12), held_by("b" * 12)
    assert audience_of(mine, "page") == audience_of(mine, "page")
    keys = [
        audience_of(grants, name)
        for grants in (mine, yours, held_by("owner"))
        for name in ("page", "other", SECRET)
    ]
    assert len(set(keys)) == len(keys)
    assert not any(part in key for key in keys for part in ("page", SECRET)), "stored: no secret in clear"


@pytest.mark.parametrize("holder", ["owner", "local"])
def test_where_many_share_a_key_only_a_secret_names_anybody(holder: str) -> None:
    shared = held_by(holder)
    assert audience_of(shared, SECRET) == audience_of(shared, SECRET)
    for name in ("", "page", "x" * 15):
        assert audience_of(shared, name) != audience_of(shared, name)


def test_without_a_name_an_answer_is_for_the_connection_alone() -> None:
    assert audience_of(held_by("a" * 12), "") != audience_of(held_by("a" * 12), "")
