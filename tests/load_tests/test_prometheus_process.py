"""Durations of rules are divided and nothing else of them is changed."""

from __future__ import annotations

import re

import pytest
import yaml

from load_tests.prometheus_process import RULES, SPEED, durations, scaled


@pytest.mark.parametrize(
    ("text", "shorter"),
    [
        ("for: 5m", "for: 20000ms"),
        ("for: 30s", "for: 2000ms"),
        ("rate(a_seconds_total[5m]) > 0.1", "rate(a_seconds_total[20000ms]) > 0.1"),
        ("changes(a[1h]) > 2", "changes(a[240000ms]) > 2"),
        ("increase(a[1ms])", "increase(a[1ms])"),  # never nothing
        ("a > 10 or b < 2e9", "a > 10 or b < 2e9"),
        ('summary: "lost for 5m"', 'summary: "lost for 5m"'),
        ('a{le="5m"}', 'a{le="5m"}'),
    ],
)
def test_ranges_and_waits_are_divided(text: str, shorter: str) -> None:
    assert scaled(text, 15.0) == shorter


def test_the_rules_with_shorter_durations_are_the_same_rules() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    shorter = yaml.safe_load(scaled(RULES.read_text(), SPEED))["groups"]
    assert [[set(rule) for rule in group["rules"]] for group in groups] == [
        [set(rule) for rule in group["rules"]] for group in shorter
    ]
    for rule, other in zip(_rules(groups), _rules(shorter), strict=True):
        assert _without_ranges(rule["expr"]) == _without_ranges(other["expr"])
        if "for" in rule:
            (seconds,) = durations(f"for: {rule['for']}")
            assert other["for"] == f"{round(1000 * seconds / SPEED)}ms"


def test_every_duration_of_the_rules_is_one_that_is_divided() -> None:
    text = "\n".join(line for line in RULES.read_text().splitlines() if "summary" not in line)
    written = re.findall(r"(?<![\w.\"])\d+(?:ms|s|m|h|d|w|y)\b", text)
    assert len(written) == len(durations(text)) > 40
    assert "offset" not in text


def test_durations_are_seconds() -> None:
    assert durations("rate(a[5m]) > 0\n for: 30s\n b[1h]") == [300.0, 30.0, 3600.0]


def _rules(groups: list[dict[str, list[dict[str, str]]]]) -> list[dict[str, str]]:
    return [rule for group in groups for rule in group["rules"]]


def _without_ranges(text: str) -> str:
    return re.sub(r"\[\w+\]", "[]", text)
