"""A timeline that tools are asked about in tests: a talk with slides, and pictures before them."""

from __future__ import annotations

from streamsvc.timeline.timeline import Timeline
from tests.builders.units import cue, screen, sight


def ferries() -> Timeline:
    """Words of a cue are 0.4 s apart; a slide is shown until the next one, the last one at the end."""
    found = Timeline()
    for unit in (
        sight(0.0, "cat"),
        cue("Welcome, my dear colleagues.", 2.0),
        cue("In March the harbour company bought three boats from a shipyard in Norway.", 5.0),
        sight(12.0, "car"),
        cue("Their captain refused the oldest one because its engine leaked oil.", 14.0),
        screen(20.0, "The night ferry", "Slide 1 of 3", "Leaves at nine"),
        cue("The mayor promised a new pier.", 24.0),
        cue("Nobody has paid for the lighthouse so far.", 28.0),
        screen(34.0, "Prices and tickets", "Slide 2 of 3", "Children travel free"),
        cue("The inspector looked into the boiler. There was a hole in it. So he rejected the boiler.", 36.0),
        screen(44.0, "Questions", "Slide 3 of 3"),
        cue("Thank you for your patience.", 46.0),
    ):
        found.add(unit)
    return found
