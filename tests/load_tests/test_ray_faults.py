"""What is wrong after kills of replicas; the run itself needs minutes: `python -m load_tests.ray_faults`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from load_tests.ray_faults import verdict
from load_tests.worker_faults import Fault

KILL = Fault("hear", "kill", 0.5, 0.6, 9.0, 8.0, True)
NONE = Fault("none", "kill", None, None, 0.7, None, True)


@pytest.mark.parametrize(
    ("faults", "wrong"),
    [
        ([KILL, NONE], []),
        ([NONE], ["no replica was killed"]),
        ([replace(KILL, alive=False), NONE], ["the session has ended"]),
        ([replace(KILL, told=None)], ["a kill was not told"]),
        ([replace(KILL, captions=None)], ["no captions came again"]),
    ],
)
def test_what_was_missed_is_told(faults: list[Fault], wrong: list[str]) -> None:
    assert verdict(faults) == wrong
