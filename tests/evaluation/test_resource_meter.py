"""The cost of a run is measured."""

from __future__ import annotations

from streamsvc.evaluation.resource_meter import ResourceMeter


async def test_memory_and_cpu_of_this_process_and_its_children_are_measured() -> None:
    meter = ResourceMeter()
    sum(number * number for number in range(300_000))
    outcome = meter.figures(seconds=1.0)
    assert outcome["pss_max_mb"] > 10
    assert 0.0 <= outcome["cpu_s_per_stream_s"] < 60
