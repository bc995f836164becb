"""The record to read: whole, in order, and text alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from streamsvc.core.types import Answer, Evidence, Gap, Scene, Translation
from streamsvc.core.units import Reply
from streamsvc.service.export import Record, escaped, to_markdown
from streamsvc.timeline.screen_history import Screen
from tests.builders.units import cue

EMPTY = Record("0.a", datetime(2026, 11, 30, 4, 5, 6, tzinfo=UTC), 125.0, ended=True)


def gap(start: float, end: float, reason: str = "packet_loss") -> Gap:
    return Gap("s", "main", start, 0.0, start, end, reason)


def scene(at: float, text: str) -> Scene:
    return Scene("s", "main", at, 0.0, text, at, at, ())


def reply(text: str, answer: Answer) -> Reply:
    return Reply("q", 70.0, 0.0, answer, None, question=text)


def test_a_record_has_everything_in_order() -> None:
    evidence = (Evidence(12.0, 15.0, "speech", "It opens at nine.", None),)
    record = replace(
        EMPTY,
        cues=(
            cue("Good morning.", 1.0),
            cue("Welcome to the mill.", 2.0),
            cue("It opens at nine.", 12.0),
            cue("And closes late.", 20.0),
        ),
        gaps=(gap(16.0, 17.0, "overload"), gap(14.0, 18.0)),
        screens=(Screen(5.0, 30.0, "Opening hours", ("Opening hours", "9 to 5"), 5.0),),
        scenes=(scene(3.0, "A person and a dog."), replace(scene(9.0, "A mill."), by="model")),
        translations=(
            Translation("s", "main", 1.0, 0.0, "e.1", "Guten Morgen.", "de", 1.0, 2.0),
            Translation("s", "main", 2.0, 0.0, "e.2", "Willkommen.", "de", 2.0, 3.0),
        ),
        replies=(
            reply("When does it open?", Answer("q", "At nine.", True, evidence)),
            reply("Why?", Answer("q", "I found no answer.", False, evidence, outcome="closest")),
            reply(
                "Who?", Answer("q", "I have not heard that.", False, outcome="declined", reason="not_found")
            ),
        ),
    )
    assert to_markdown(record).splitlines() == [
        "# Opening hours",
        "",
        "- Session: `0.a`",
        "- Started: 2026-11-30 04:05:06 UTC",
        "- Length: 2:05",
        "- Spoken: en",
        "- Not captioned: 4.0 s of sound; the transcript tells where",
        "",
        "## Transcript",
        "",
        "**0:01** Good morning. Welcome to the mill.",
        "",
        "**0:12** It opens at nine.",
        "",
        "*0:14 to 0:18: not captioned, the sound was lost on the way.*",
        "",
        "**0:20** And closes late.",
        "",
        "## Translation (de)",
        "",
        "**0:01** Guten Morgen.",
        "",
        "**0:02** Willkommen.",
        "",
        "## Slides and screens",
        "",
        "### 0:05 to 0:30 Opening hours",
        "",
        "> Opening hours  ",
        "> 9 to 5  ",
        "",
        "## Scenes",
        "",
        "- **0:03** A person and a dog.",
        "- **0:09** A mill. (a model's own words, unchecked)",
        "",
        "## Questions and answers",
        "",
        "### 1:10 When does it open?",
        "",
        "At nine.",
        "",
        "- 0:12, heard: It opens at nine.",
        "",
        "### 1:10 Why?",
        "",
        "Nearest passages, no answer: I found no answer.",
        "",
        "- 0:12, heard: It opens at nine.",
        "",
        "### 1:10 Who?",
        "",
        "Not answered: I have not heard that.",
    ]


def test_an_empty_live_session_is_a_record_too() -> None:
    text = to_markdown(replace(EMPTY, ended=False, failure="the source broke"))
    assert text.startswith("# Session 0.a\n")
    assert "- Length: 2:05 so far; it is still live\n" in text
    assert "- Ended by an error: the source broke\n" in text
    assert text.endswith("## Transcript\n\nNothing was said that could be captioned.\n")


def test_long_speech_has_paragraphs_that_end_with_sentences_and_notes() -> None:
    cues = tuple(cue(f"Number {n} of the talk is here.", n * 4.0) for n in range(60))
    sentences = tuple(Evidence(one.start, one.end, "speech", one.text) for one in cues)
    text = to_markdown(replace(EMPTY, seconds=240.0, cues=cues, sentences=sentences))
    transcript = text.split("## Transcript\n\n")[1].split("\n\n")
    assert 4 <= len(transcript) <= 60
    assert all(block.rstrip().endswith(".") for block in transcript)
    notes = text.split("## Notes\n\n")[1].split("\n\n")[0].splitlines()
    assert len(notes) == 4
    assert all(note.startswith("- **") for note in notes)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a *b* _c_ `d` [e](f)", r"a \*b\* \_c\_ \`d\` \[e\](f)"),
        ("<script>alert(1)</script> &amp;", r"\<script\>alert(1)\</script\> \&amp;"),
        ("# no heading\n- no list", r"\# no heading - no list"),
        ("- item", r"\- item"),
        ("12. item", r"12\. item"),
        ("===", r"\==="),
        ("2026 was long", "2026 was long"),
        ("plain, text: 5 + 3 = 8!", "plain, text: 5 + 3 = 8!"),
        ("a\x00b\u2028c", "a b c"),
        ("", ""),
    ],
)
def test_markup_is_shown_and_never_read(text: str, written: str) -> None:
    assert escaped(text) == written


def test_no_text_of_a_stream_begins_a_block_or_an_element() -> None:
    evil = "# x <img src=a onerror=b> [y](javascript:z)"
    record = replace(
        EMPTY,
        cues=(cue(evil, 1.0),),
        screens=(Screen(1.0, None, evil, (evil, "> quoted", "* listed"), 1.0),),
        scenes=(scene(1.0, evil),),
        replies=(reply(evil, Answer("q", evil, True, (Evidence(1.0, 1.0, evil, evil),))),),
        gaps=(gap(50.0, 60.0, "<b>"),),
        failure=evil,
    )
    for line in to_markdown(record).splitlines():
        assert "<" not in line.replace(r"\<", "")
        assert "[" not in line.replace(r"\[", "")
