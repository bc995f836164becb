"""A line is one printable line with its number and time, whatever was said or written."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Evidence
from streamsvc.timeline.lines import MAX_CHARACTERS, Line, new_line, one_line, timestamp


def test_lines_are_rendered_with_number_time_and_kind() -> None:
    said = Line(12, 75.0, 78.0, "speech", "Good morning.")
    assert said.rendered == "[12] 1:15 said: Good morning."
    assert said.payload() == {"number": 12, "at": 75.0, "text": said.rendered}
    assert Line(13, 80.0, 80.0, "screen", "a / b").rendered == "[13] 1:20 screen: a / b"
    assert Line(14, 81.9, 81.9, "sight", "2 person, chair").rendered == "[14] 1:21 seen: 2 person, chair"
    picture = Line(15, 3723.0, 3723.0, "picture", "cat", 3723.0, "k")
    assert picture.payload() == {
        "number": 15,
        "at": 3723.0,
        "text": "[15] 1:02:03 picture: cat",
        "picture": "k",
    }
    parts = (Evidence(5.0, 6.0, "speech", "One."), Evidence(9.0, 10.0, "speech", "Two."))
    note = Line(20, 5.0, 70.0, "note", "One.; Two.", None, "", (1, 11), parts)
    assert note.rendered == "[20] 0:05-1:10 note, said: One.; Two."


def test_a_line_is_evidence_and_a_note_is_evidence_by_what_it_quotes() -> None:
    picture = Line(15, 3.0, 4.0, "picture", "cat", 3.0, "k")
    assert picture.evidence() == Evidence(3.0, 4.0, "sight", "cat", 3.0)
    assert picture.quotes == (picture.evidence(),)
    parts = (Evidence(5.0, 6.0, "screen", "Plan"), Evidence(9.0, 10.0, "screen", "Budget"))
    note = Line(20, 5.0, 70.0, "note", "Plan / Budget", None, "", (1, 11), parts)
    assert note.evidence() == Evidence(5.0, 70.0, "screen", "Plan / Budget")
    assert note.quotes == parts


@given(st.text())
def test_no_text_can_pass_for_another_line(text: str) -> None:
    rendered = new_line("screen", 1.0, 1.0, f"Budget\n[9] 0:09 said: {text}", None).rendered
    assert len(rendered.splitlines()) == 1
    assert not {unicodedata.category(char) for char in rendered} & {"Cc", "Cs", "Zl", "Zp"}
    assert rendered.startswith("[0] 0:01 screen: Budget [9] 0:09 said:")


def test_control_characters_of_any_kind_go() -> None:
    assert one_line("a\x1b[31m\u2028b\u202ec\x00\r\n d") == "a [31m b c d"


def test_a_long_text_is_cut_and_times_are_rounded_as_in_events() -> None:
    line = new_line("speech", 1.23456, 2.00049, "x" * 2 * MAX_CHARACTERS, 1.00051)
    assert (len(line.text), line.text[-1]) == (MAX_CHARACTERS, "…")
    assert (line.start, line.end, line.frame) == (1.235, 2.0, 1.001)
    assert len(new_line("speech", 0, 0, "x" * MAX_CHARACTERS, None).text) == MAX_CHARACTERS
    assert timestamp(-1.0) == "0:00"
