"""A report becomes a table and the panels of a plot."""

from __future__ import annotations

import copy
from typing import Any

from engines.plot import Panel, svg
from streamsvc.evaluation.pooling import pooled
from streamsvc.evaluation.report import panels, table


def test_the_table_has_a_line_for_each_and_says_what_was_not_run(report: dict[str, Any]) -> None:
    result = table(report)
    assert len([line for line in result.splitlines() if line.startswith(("| one", "| two"))]) == 4
    assert "| noise: music" in result
    assert "kind (held)" in result
    assert "vqav2: not run here" in result
    assert "ages mean nothing" in result


def test_in_real_time_the_table_has_ages_and_the_budget(report: dict[str, Any]) -> None:
    live = copy.deepcopy(report) | {"speed": "1"}
    for number, of in enumerate(live["scenarios"].values()):
        of["kept"] = {"final": number == 0}
    live["all"] = pooled(list(live["scenarios"].values()))
    result = table(live)
    assert "| kept" in result and "| not final" in result
    assert live["all"]["kept"] == {"final": False}
    assert panels(live)[-1].title == "age, s"


def test_the_plot_can_be_drawn(report: dict[str, Any]) -> None:
    drawn = svg([Panel(panel.title, panel.ticks, panel.lines) for panel in panels(report)])
    assert drawn.startswith("<svg") and "hallucinated" in drawn
    assert panels({"speed": "max", "all": {}}) == []
