"""Markdown tables have aligned columns."""

from __future__ import annotations

from streamsvc.evaluation.markdown import markdown_table


def test_the_columns_of_a_table_are_aligned() -> None:
    assert markdown_table(("a", "bb"), [("ccc", "d")]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"
