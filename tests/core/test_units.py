"""Units are frozen: what was handed on cannot be changed afterwards."""

from __future__ import annotations

import dataclasses
import typing

from streamsvc.core.units import Unit


def test_every_unit_is_a_frozen_dataclass_with_slots() -> None:
    for kind in typing.get_args(Unit):
        assert dataclasses.is_dataclass(kind), kind
        assert vars(kind)["__dataclass_params__"].frozen, kind
        assert hasattr(kind, "__slots__"), kind
