"""Short tokens say what JWTs say, and nobody else can write one."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.service.auth import PERMISSIONS
from streamsvc.service.short_token import Claims, pack, unpack

KEY = b"a key of this test"
STEP = st.binary(min_size=9, max_size=9).map(lambda data: base64.urlsafe_b64encode(data).decode())
CLAIMS = st.builds(
    Claims,
    id=st.lists(STEP, min_size=1, max_size=4).map(".".join),
    session=st.text(max_size=61).filter(lambda text: text.isprintable()),
    may=st.frozensets(st.sampled_from(PERMISSIONS)),
    expires=st.integers(0, 2**32 - 1),
)


@given(CLAIMS)
def test_what_is_packed_is_read_again_and_has_no_dot(claims: Claims) -> None:
    token = pack(claims, PERMISSIONS, KEY)
    assert "." not in token
    assert unpack(token, PERMISSIONS, KEY) == claims


def test_it_is_short() -> None:
    claims = Claims("abcdefghijkl", "n" * 40, frozenset({"publish"}), 2_000_000_000)
    assert len(pack(claims, PERMISSIONS, KEY)) <= 100


def test_whatever_is_changed_makes_it_invalid() -> None:
    token = pack(Claims("abcdefghijkl", "studio", frozenset({"publish"}), 2_000_000_000), PERMISSIONS, KEY)
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(ValueError):
            unpack(token[:place] + other + token[place + 1 :], PERMISSIONS, KEY)
    for wrong in ("", "a", token[:-1], token + "A", token + "=", f" {token}", "\u00e4" * 8, "A" * 32):
        with pytest.raises(ValueError):
            unpack(wrong, PERMISSIONS, KEY)
    with pytest.raises(ValueError, match="not signed"):
        unpack(token, PERMISSIONS, b"another key")
