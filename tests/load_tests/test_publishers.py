"""A small load test end to end: real WebRTC, engines without models, and a report of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests import publish_figures, publish_report
from load_tests.publish_scenario import Scenario
from load_tests.publishers import measure

SMALL = {
    "name": "<small>",
    "profile": "ingest",
    "ramp": [2],
    "seconds": 6,
    "subscribers": 5,
    "offers": 3,
    "link": "jitter",
    "budget": 60,
    "media": {"width": 160, "height": 96, "fps": 10, "kbps": 200},
}


@pytest.mark.load
@pytest.mark.xdist_group("real time")
async def test_two_publishers_are_captioned_whole_and_the_report_says_so(tmp_path: Path) -> None:
    scenario = Scenario.model_validate(SMALL)
    (step,) = await measure(scenario, tmp_path, tmp_path / "media")
    assert (step.publishers, step.subscribers, step.refused) == (2, 6, 0)
    assert len(step.refusals) == 3
    assert step.coverage == 1.0 and step.wer == 0.0
    assert step.stable[1] is not None and step.stable[1] > 0.0
    assert step.packets > 250
    assert step.delivery[0] is not None and step.delivery[0] > 0.0
    assert {"event loop", "worker hear"} <= set(step.machine.cpu) and step.machine.memory["serve"] > 0
    assert publish_figures.capacity([step], scenario.budget, scenario.coverage) == 2
    page = publish_report.html(scenario, [step])
    assert page.count("<svg") == 6 and "&lt;small&gt;" in page and "<small>" not in page
    assert (
        "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "Capacity: 2 publishers" in page
    )
    assert publish_report.text(scenario, [step]).count("\n") == 4
