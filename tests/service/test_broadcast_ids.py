"""Each broadcast has an id of its own, which tells its name and no other one."""

from __future__ import annotations

import re

import pytest

from streamsvc.core.errors import InvalidRequest
from streamsvc.service.broadcast_ids import NAME_LENGTH, check_name, door_of, name_of, new_id


def test_ids_of_a_name_differ_tell_it_and_are_no_names() -> None:
    names = ["lecture", "talk.20261130", "a.b-c_d", "x" * NAME_LENGTH, "0.Yx3"]
    for name in names:
        check_name(name)
        one, other = new_id(name), new_id(name)
        assert one != other
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", one)
        assert name_of(one) == door_of(one) == name
        assert name_of(name) is None
        assert door_of(name) == name
        with pytest.raises(InvalidRequest):
            check_name(one)


def test_an_id_without_a_name_cannot_be_guessed_and_has_none() -> None:
    one, other = new_id(None), new_id(None)
    assert one != other
    assert len(one) >= 2 + 16
    assert name_of(one) is None
    assert door_of(one) == one
    with pytest.raises(InvalidRequest):
        check_name(one)
    check_name(one[:-1])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * (NAME_LENGTH + 1), "a\n", "٣"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_name(name)
    assert caught.value.code == "bad_session_id"
