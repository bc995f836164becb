"""Labels find their values, rows their columns; what is ambiguous finds nothing."""

from __future__ import annotations

import pytest

from streamsvc.answers.rules import documents
from streamsvc.answers.rules.documents import (
    KINDS,
    cell,
    commands,
    extreme,
    label,
    look_up,
    number,
    pairs,
    points,
    rows,
    text_of,
    values,
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
    "name, kind, value",
    [
        ("total", "money", "$67.83"),
        ("total due", None, "$67.83"),
        ("subtotal", "money", "57.00"),
        ("due date", "date", "11 April 2026"),
        ("date", "date", "12 March 2026"),
        ("invoice number", None, "10248"),
        ("bill to", None, "Alice Mutton"),
        ("customer", None, "Alice Mutton"),
        ("tax", "money", "10.83"),
        ("telephone", None, "+44 20 7946 0958"),
        ("price of the chai latte", None, "18.00"),
        ("quantity brown sugar", "count", "10"),
        ("amount green tea", None, "13.50"),
    ],
)
def test_a_label_finds_its_value_beside_it_below_it_or_where_row_and_column_meet(
    name: str, kind: str | None, value: str
) -> None:
    found = look_up(INVOICE, label(name), kind)
    assert found is not None and found.text == value
    assert all(line in INVOICE for line in found.lines)


@pytest.mark.parametrize(
    "name", ["shipping cost", "discount", "price of the oolong tea", "iban", "price", "amount of the coffee"]
)
def test_what_is_not_on_the_page_or_there_more_than_once_finds_nothing(name: str) -> None:
    assert look_up(INVOICE, label(name)) is None


def test_a_value_of_another_kind_is_no_answer() -> None:
    assert look_up(INVOICE, label("bill to"), "money") is None


def test_row_and_column_may_be_asked_for_with_what_the_table_is_about() -> None:
    found = cell(TABLE, label("revenue Q3 2025"))
    assert found is not None and (found.text, found.quote) == ("162", "2025 Q3 162")
    assert cell(TABLE, label("profit Q3 2025")) is None
    assert cell(TABLE, label("Q4 2025")) is None


def test_the_largest_of_a_column_is_named_by_its_row_and_a_tie_is_not() -> None:
    found = extreme(INVOICE, label("amount"), largest=True)
    assert found is not None and (found.text, found.lines[-1].text) == ("Chai latte", "36.00"), (
        "the totals below are no rows of the table"
    )
    tie = [piece if piece[0] != "131" else ("125", *piece[1:]) for piece in pages.TABLE]
    assert extreme(page(tie), label("revenue 2024"), largest=True) is None
    assert extreme(INVOICE, label("weight"), largest=True) is None


@pytest.mark.parametrize(
    "text, value",
    [
        ("$1,299.00", 1299.0),
        ("12 %", 12.0),
        ("1.299,5", 1299.5),
        ("1,299", 1299.0),
        ("4.5", 4.5),
        ("-3", -3.0),
        ("1'200 km", 1200.0),
        ("Q3", None),
        ("", None),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, value: float | None) -> None:
    assert number(text) == value


def test_two_totals_that_differ_tell_no_total() -> None:
    assert (
        look_up(page([("Total: 12.00", 80, 50, 26), ("Total: 15.00", 80, 150, 26)]), label("total")) is None
    )


def test_a_time_or_an_address_holds_no_label() -> None:
    told = [
        name
        for name, _, _ in pairs(
            page([("Starts 10:30 in room B", 80, 50, 26), ("see https://example.org", 80, 300, 26)])
        )
    ]
    assert told == []


def test_values_tell_what_they_are_by_their_look() -> None:
    assert [value.text for value in values(INVOICE, "email")] == ["billing@northwind.example"]
    assert [value.text for value in values(INVOICE, "url")] == ["www.northwind.example"]
    assert [value.text for value in values(INVOICE, "date")] == ["12 March 2026", "11 April 2026"]


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        ("money", ["$5", "12.50", "EUR 3", "€ 1.299,00", "20 dollars"], ["12", "1.5", "version 2"]),
        (
            "date",
            ["2026-03-12", "12.03.26", "March 12, 2026", "12 Mar", "3rd May 2026"],
            ["12", "may be", "10.5"],
        ),
        ("phone", ["+44 20 7946 0958", "(030) 123 456", "030-1234567"], ["12 345", "v1234567"]),
        ("url", ["https://a.b/c", "www.example.org", "example.com/x"], ["a@example.com", "e.g."]),
        ("percent", ["19 %", "3.5%", "5 percent"], ["19"]),
    ],
)
def test_kinds_are_told_apart(kind: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not KINDS[kind].search(text)] == []
    assert [text for text in bad if KINDS[kind].search(text)] == []


def test_points_are_rows_with_a_mark_and_a_negative_number_is_none() -> None:
    assert [text_of(row) for row in points(page(pages.BULLETS))] == [
        "- Hire two engineers",
        "- Open the office in Lisbon",
        "- Ship version 2.5",
    ]
    assert (
        points(page([("-12 degrees", 80, 50, 26), ("2.5 km", 80, 150, 26), ("Plain words", 80, 250, 26)]))
        == []
    )
    assert len(points(page([("1. Wash", 80, 50, 26), ("2) Dry", 80, 150, 26), ("• Iron", 80, 250, 26)]))) == 3


def test_commands_have_their_output() -> None:
    told = [
        (command, [text_of(row) for row in output]) for command, _, output in commands(page(pages.TERMINAL))
    ]
    assert told[1] == ("git status", ["On branch main", "nothing to commit, working tree clean"])
    assert told[0][0] == "pytest tests/test_api.py"
    assert commands(page([("Total $ 45", 80, 50, 26), ("$ 45", 80, 150, 26)])) == []


def test_errors_are_named_and_code_is_known() -> None:
    assert [text_of(row) for row in documents.wrongs(page(pages.TERMINAL))] == [
        "E AssertionError: expected 200, got 401"
    ]
    code = [("def add(a, b):", 80, 50, 26), ("return a + b", 120, 100, 26), ("print(add(2, 3))", 80, 150, 26)]
    assert (
        documents.coded(page(code))
        and not documents.coded(INVOICE)
        and not documents.coded(page(pages.BULLETS))
    )
