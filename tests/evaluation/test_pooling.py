"""Reports of several scenarios are pooled into one."""

from __future__ import annotations

from typing import Any

from streamsvc.evaluation.pooling import pooled


def test_several_scenarios_are_counted_as_one(report: dict[str, Any]) -> None:
    whole = report["all"]
    assert whole["answers"]["by_kind"]["never"]["asked"] == 2
    assert whole["answers"]["total"]["asked"] == 6
    assert list(whole["answers"]["halves"]) == ["held"]
    assert whole["speech"]["slices"]["noise: music"]["words"] == 9
    assert whole["speech"]["slices"]["channel: wide band"]["words"] == 18
    assert pooled([]) == {}
