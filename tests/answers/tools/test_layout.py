"""Labels find their values, rows their columns; what is ambiguous finds nothing."""

from __future__ import annotations

import pytest

from streamsvc.answers.tools.layout import (
    cell,
    label,
    labelled,
    look_up,
    pairs,
    points,
    rows,
    text_of,
    whole_row,
)
from streamsvc.timeline.text_tracks import TextTrack, follow
from tests.builders import pages


def page(pieces: list[pages.Piece]) -> list[TextTrack]:
    return follow([], pages.lines(pieces), 1.0)[0]


INVOICE, TABLE = page(pages.INVOICE), page(pages.TABLE)


def test_lines_side_by_side_are_one_row() -> None:
    assert [text_of(row) for row in rows(TABLE)] == [
        "Revenue by quarter",
        "Quarter 2024 2025",
        "Q1 120 140",
        "Q2 125 155",
        "Q3 131 162",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("total", "$67.83"),
        ("total due", "$67.83"),
        ("subtotal", "57.00"),
        ("due date", "11 April 2026"),
        ("date", "12 March 2026"),
        ("invoice number", "10248"),
        ("bill to", "Alice Mutton"),
        ("phone", "+44 20 7946 0958"),
        ("price of the chai latte", "18.00"),
        ("unit price chai latte", "18.00"),
        ("qty brown sugar", "10"),
        ("amount green tea", "13.50"),
    ],
)
def test_a_label_finds_its_value_beside_it_below_it_or_where_row_and_column_meet(
    name: str, value: str
) -> None:
    found = look_up(INVOICE, label(name))
    assert found is not None
    assert found.text == value
    assert all(line in INVOICE for line in found.lines)


@pytest.mark.parametrize(
    "name", ["shipping cost", "discount", "price of the oolong tea", "iban", "", "price"]
)
def test_what_is_not_on_the_page_or_there_more_than_once_finds_nothing(name: str) -> None:
    assert look_up(INVOICE, label(name)) is None


def test_row_and_column_meet_also_where_the_question_says_what_the_table_is_about() -> None:
    found = cell(TABLE, label("revenue Q3 2025"))
    assert found is not None
    assert (found.text, found.name) == ("162", "Q3, 2025")
    assert cell(TABLE, label("Q4 2025")) is None


def test_a_row_without_a_column_is_told_whole_with_the_heads_of_its_columns() -> None:
    found = whole_row(TABLE, label("Q2"))
    assert found is not None
    assert (found.name, found.text) == ("Q2", "2024 125, 2025 155")


def test_two_totals_that_differ_tell_no_total() -> None:
    two = page([("Total: 12.00", 80, 50, 26), ("Total: 15.00", 80, 150, 26)])
    assert labelled(two, label("total")) is None


def test_a_time_or_an_address_holds_no_label() -> None:
    lines = page([("Starts 10:30 in room B", 80, 50, 26), ("see https://example.org", 80, 300, 26)])
    assert [name for name, _, _ in pairs(lines)] == []


def test_a_heading_is_no_label_of_what_stands_below_it() -> None:
    headed = [("Ferries", 80, 50, 44), ("since 1890", 80, 110, 26)]
    listed = [("Ferries", 80, 50, 26), ("- since 1890", 80, 84, 26)]
    plain = [("Ferries", 80, 50, 26), ("since 1890", 80, 84, 26)]
    found = [look_up(page(lines), label("ferries")) for lines in (headed, listed, plain)]
    assert [value and value.text for value in found] == [None, None, "since 1890"]


def test_points_are_rows_with_a_mark_and_a_negative_number_is_none() -> None:
    assert [text_of(row) for row in points(page(pages.BULLETS))] == [
        "- Hire two engineers",
        "- Open the office in Lisbon",
        "- Ship version 2.5",
    ]
    plain = page([("-12 degrees", 80, 50, 26), ("2.5 km", 80, 150, 26), ("Plain words", 80, 250, 26)])
    assert points(plain) == []
    marked = page([("1. Wash", 80, 50, 26), ("2) Dry", 80, 150, 26), ("\u2022 Iron", 80, 250, 26)])
    assert len(points(marked)) == 3
