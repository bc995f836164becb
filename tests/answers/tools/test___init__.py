"""Whatever a tool is asked, it tells little, and what its evidence holds; or it finds nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.answers.finding import MAX_WORDS
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools import TOOLS, call
from streamsvc.answers.tools.wording import words_in
from streamsvc.timeline.timeline import Timeline
from tests.builders import pages
from tests.builders.timelines import ferries

TIMELINES = [Timeline(), ferries(), pages.shown(pages.INVOICE, pages.TABLE, pages.TERMINAL, pages.BULLETS)]
ARGUMENTS = st.builds(
    Arguments,
    span=st.none() | st.tuples(st.floats(0, 30), st.floats(30, 60)),
    label=st.sampled_from(["", "cat", "people", "galaxy", "black"]),
    other=st.sampled_from(["", "car", "ferry"]),
    text=st.sampled_from(["", "ferry", "Prices and tickets", "total due", "princess", "left"]),
    ordinal=st.none() | st.integers(-3, 5),
    number=st.none() | st.floats(-1, 4),
    form=st.sampled_from(["open", "yes/no", "when", "how often", "how long", "list"]),
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(TOOLS)), st.sampled_from(TIMELINES), ARGUMENTS, st.floats(0, 60))
def test_an_answer_is_short_and_has_evidence(
    name: str, timeline: Timeline, arguments: Arguments, now: float
) -> None:
    found = call(name, timeline, arguments, now)
    if found is not None:
        assert 0 < words_in(found.text) <= MAX_WORDS, found.text
        assert found.evidence
        assert all(span.start <= span.end for span in found.evidence)
        assert "\n" not in found.text


@pytest.mark.parametrize("name", ["sights", "seen", "count", "occurrences", "speaker"])
def test_yes_or_no_comes_first(name: str) -> None:
    for label, text in (("cat", ""), ("dog", ""), ("", "ferry"), ("", "princess")):
        found = call(name, ferries(), Arguments(label=label, text=text, form="yes/no"), 50.0)
        assert found is None or found.text.startswith(("Yes, ", "No, "))


def test_an_unknown_tool_is_an_error() -> None:
    with pytest.raises(KeyError):
        call("hammer", Timeline(), Arguments(), 0.0)
