"""How often, when and whether something came, and how long it stayed, is told from its times."""

from __future__ import annotations

import pytest

from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.occurrences import clock, found_spans, occurrences
from streamsvc.core.types import Gap
from streamsvc.timeline.timeline import Timeline
from tests.builders.timelines import ferries
from tests.builders.units import cue, sight

NOW = 50.0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (Arguments(text="boiler", form="how often"), "Twice, at 0:38, 0:42."),
        (Arguments(text="shipyard", form="how often"), "Once, at 0:09."),
        (
            Arguments(text="shipyard", form="when"),
            'At 0:09: "In March the harbour company bought three boats from a shipyard in Norway."',
        ),
        (Arguments(text="boiler", form="when", ordinal=-1), 'At 0:42: "So he rejected the boiler."'),
        (Arguments(text="boiler", form="when", ordinal=3), None),
        (Arguments(text="The night ferry", form="when"), 'At 0:20: "The night ferry".'),
        (
            Arguments(text="lighthouse", form="yes/no"),
            'Yes, at 0:30: "Nobody has paid for the lighthouse so far."',
        ),
        (Arguments(text="princess", form="yes/no"), 'No, I have not heard or read "princess".'),
        (Arguments(text="princess", form="how often"), '0: I have not heard or read "princess".'),
        (Arguments(text="princess", form="when"), None),
        (Arguments(text="golden shipyard", form="yes/no"), None),  # perhaps in other words
        (Arguments(label="cat", form="when"), "At 0:00, until 0:12."),
        (Arguments(label="car", form="yes/no"), "Yes, at 0:12, and it is still shown."),
        (Arguments(label="cat", form="how often"), "Once, at 0:00."),
        (Arguments(label="cat", form="how long"), "12 seconds, from 0:00 to 0:12."),
        (
            Arguments(label="boat", text="boats", form="yes/no"),
            'Yes, mentioned at 0:07: "In March the harbour company bought three boats from a shipyard '
            'in Norway."',
        ),
        (Arguments(label="dog", form="yes/no"), "No, I have seen no dog."),
        (Arguments(label="dog", form="how often"), "0: I have seen no dog."),
        (Arguments(label="dog", form="when"), None),
        (Arguments(text="boiler", form="how often", span=(40.0, 45.0)), "Once, at 0:42."),
        (Arguments(form="yes/no"), None),
    ],
)
def test_form_says_what_is_told_of_the_times(arguments: Arguments, text: str | None) -> None:
    found = occurrences(ferries(), arguments, NOW)
    assert (found and found.text.replace('"."', '".')) == (text and text.replace('"."', '".'))
    assert found is None or found.evidence


def test_the_first_piece_of_evidence_begins_when_it_came() -> None:
    found = occurrences(ferries(), Arguments(text="shipyard", form="when"), NOW)
    assert found is not None
    assert found.evidence[0].start == pytest.approx(9.0)


def test_what_was_lost_is_not_denied() -> None:
    timeline = ferries()
    timeline.add(Gap("s", "main", 48.0, 0.0, 48.0, 49.5, "overload"))
    assert occurrences(timeline, Arguments(text="princess", form="yes/no"), NOW) is None
    assert occurrences(Timeline(), Arguments(text="princess", form="yes/no"), NOW) is None
    assert occurrences(Timeline(), Arguments(label="dog", form="yes/no"), NOW) is None


def test_a_label_that_was_never_seen_may_have_been_spoken_of() -> None:
    spans = found_spans(ferries(), Arguments(label="boat", text="boats"), NOW)
    assert [span.kind for span in spans] == ["speech"]


@pytest.mark.parametrize(
    ("arguments", "now", "begins"),
    [
        (Arguments(label="cat"), NOW, "12 seconds, from 0:00 to 0:12."),
        (Arguments(text="Prices and tickets"), NOW, "10 seconds, from 0:34 to 0:44."),
        (Arguments(text="Questions"), 47.6, "4 seconds so far, since 0:44."),
        (Arguments(ordinal=1), NOW, "16 seconds, from 0:02 to 0:18."),
        (
            Arguments(),
            NOW,
            'The stream has run for 50 seconds; "Questions" has been on the screen for 6 seconds; ',
        ),
        (
            Arguments(text="elapsed"),
            10.0,
            "The stream has run for 10 seconds; this picture has been shown for 10 seconds",
        ),
    ],
)
def test_how_long_things_lasted(arguments: Arguments, now: float, begins: str) -> None:
    found = clock(ferries(), arguments, now)
    assert found is not None
    assert found.text.startswith(begins)


def test_the_clock_runs_without_anything_seen_or_heard() -> None:
    found = clock(Timeline(), Arguments(), 65.0)
    assert found is not None
    assert found.text == "The stream has run for 1 minute 5 seconds."
    assert clock(Timeline(), Arguments(label="cat"), 65.0) is None
    assert clock(Timeline(), Arguments(ordinal=2), 65.0) is None


def test_a_picture_that_is_still_shown_has_no_end() -> None:
    timeline = Timeline()
    timeline.add(sight(1.0, "cat"))
    timeline.add(cue("A cat.", 4.0))
    found = clock(timeline, Arguments(label="cat"), 4.5)
    assert found is not None
    assert found.text == "4 seconds so far, since 0:01."
