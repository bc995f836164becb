"""Notes quote what stands best for lines that have left, and only that."""

from __future__ import annotations

import pytest

from streamsvc.core.types import Evidence
from streamsvc.timeline.lines import Line
from streamsvc.timeline.notes import QUOTED_WORDS, central, centrality, distinct, merged, notes_of, quoted

FERRY = [
    "The ferry crosses to the island each morning.",
    "The island needs the ferry, for the ferry brings bread.",
    "Thank you very much.",
    "Without the ferry the island would have no bread each morning.",
]


def spoken(*texts: str, start: float = 0.0) -> list[Evidence]:
    return [Evidence(start + n, start + n + 0.9, "speech", text) for n, text in enumerate(texts)]


def lines(*pairs: tuple[str, str]) -> list[Line]:
    return [
        Line(n, 10.0 * n, 10.0 * n + 5, kind, text)  # type: ignore[arg-type]
        for n, (kind, text) in enumerate(pairs, 1)
    ]


def test_central_is_what_shares_its_words_with_the_rest() -> None:
    scores = centrality(FERRY)
    assert scores.argmin() == 2
    assert scores[2] == pytest.approx(0)
    (one,) = central(spoken(*FERRY), 1)
    assert "ferry" in one.quote
    assert centrality(["", "a b"]).tolist() == [0, 0]


def test_the_chosen_are_spread_over_time_and_in_order() -> None:
    parts = spoken(*[text for _ in range(5) for text in FERRY])
    chosen = central(parts, 4)
    assert [int(part.start // 5) for part in chosen] == [0, 1, 2, 3]
    assert central(parts[:3], 4) == parts[:3]


def test_a_quote_is_short_and_a_repeated_one_stands_once_at_its_first_time() -> None:
    (long,) = spoken(" ".join(["word"] * 60))
    assert len(quoted(long).quote.split()) == QUOTED_WORDS + 1
    parts = spoken("Plan", "plan", "Budget", "End")
    assert [(part.start, part.quote) for part in distinct(parts, 2)] == [(2.0, "Budget"), (3.0, "End")]
    assert [part.start for part in distinct(parts, 9)] == [0.0, 2.0, 3.0]


def test_what_leaves_is_told_as_sentences_titles_and_labels_each_with_its_evidence() -> None:
    leaving = lines(
        ("speech", FERRY[0]),
        ("screen", "Timetable / Monday 7:00"),
        ("sight", "2 person, boat"),
        ("picture", "boat, dog"),
        ("picture", "a picture"),
        ("speech", FERRY[2]),
        ("speech", FERRY[1]),
    )
    said, screens, seen = notes_of(leaving, 100)
    assert said.text in FERRY
    assert screens.text == "Timetable"
    assert seen.text == "2 person / boat / dog"
    assert {note.covers for note in (said, screens, seen)} == {(1, 7)}
    assert (said.start, said.end) == (10.0, 75.0)
    assert [(part.start, part.kind, part.quote) for part in seen.quotes] == [
        (30.0, "sight", "2 person"),
        (30.0, "sight", "boat"),
        (40.0, "sight", "dog"),
    ]
    assert [note.text for note in notes_of(lines(("sight", "nothing that is known")), 9)] == []


def test_too_many_notes_become_fewer_from_the_oldest_on_and_keep_what_they_cover() -> None:
    notes = [
        note
        for n in range(6)
        for note in notes_of(
            [
                Line(10 * n + m, 60.0 * n + m, 60.0 * n + m, "speech", f"The {n} ferry has bread number {m}.")
                for m in range(1, 9)
            ],
            800,
        )
    ]
    standing = [Line(n, *_rest(note)) for n, note in enumerate(notes, 100)]
    fewer = merged(list(standing), len, sum(len(note.rendered) for note in standing) - 1)
    assert len(fewer) == 5
    assert fewer[1:] == standing[2:], "the newest stay as they are"
    assert (fewer[0].number, fewer[0].covers) == (0, (1, 18))
    assert set(fewer[0].parts) < {*standing[0].parts, *standing[1].parts}
    assert len(fewer[0].parts) == 4
    (last,) = merged(list(standing), len, 1)
    assert last.covers == (1, 58)


def _rest(note: Line) -> tuple:  # type: ignore[type-arg]
    return note.start, note.end, note.kind, note.text, note.frame, "", note.covers, note.parts
