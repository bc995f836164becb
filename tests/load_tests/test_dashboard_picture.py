"""Panels are drawn with their data; those without data are named."""

from __future__ import annotations

import json
import math

import pytest

from load_tests.dashboard_picture import DASHBOARD, Line, Panel, empty, name_of, page, query_of, told
from load_tests.prometheus_process import Sample

ALL = json.loads(DASHBOARD.read_text())["panels"]
POINTS = ((100.0, 1.0), (101.0, 2.0), (110.0, 3.0))


def test_queries_are_for_all_instances_and_in_the_time_of_the_load_test() -> None:
    query = 'rate(streamsvc_x_total{instance=~"$instance"}[5m])'
    assert query_of(query, 15.0) == 'rate(streamsvc_x_total{instance=~".*"}[20000ms])'


def test_a_legend_is_filled_in_with_labels() -> None:
    sample = Sample({"stage": "asr", "action": "late"}, ())
    assert name_of("{{stage}} {{action}} {{other}}", sample) == "asr late "


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.0, "bool_yes_no", "Yes"),
        (0.0, "bool_yes_no", "No"),
        (0.25, "percentunit", "25 %"),
        (1.5, "s", "1.5 s"),
        (2.5e9, "bytes", "2.5 GB"),
        (1200.0, "short", "1.2 k"),
    ],
)
def test_values_are_told_in_the_unit_of_the_panel(value: float, unit: str, text: str) -> None:
    assert told(value, unit) == text


def test_every_panel_of_the_dashboard_is_drawn_with_its_title_and_lines() -> None:
    drawn, (width, height) = page([Panel(panel, [Line("a&b", POINTS)]) for panel in ALL], "Now")
    assert 0 < width < 2000 and 0 < height < 3000
    charts = [panel for panel in ALL if panel["type"] == "timeseries"]
    assert drawn.count("<polyline") == 2 * len(charts)  # a hole of nine seconds parts a line
    assert drawn.count("a&amp;b") == len([panel for panel in ALL if panel["type"] != "row"])
    assert "no data" not in drawn
    for panel in ALL:
        assert f">{panel['title']}<" in drawn


def test_panels_without_a_number_are_empty_and_say_so() -> None:
    charts = [panel for panel in ALL if panel["type"] == "timeseries"]
    found = [
        Panel(charts[0], [Line("a", POINTS)]),
        Panel(charts[1], []),
        Panel(charts[2], [Line("a", ((100.0, math.nan),)), Line("budget", POINTS)]),
        Panel(next(panel for panel in ALL if panel["type"] == "row"), []),
    ]
    assert empty(found) == [charts[1]["title"], charts[2]["title"]]
    assert page(found, "")[0].count("no data") == 1
