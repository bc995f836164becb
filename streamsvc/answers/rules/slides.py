"""Which screen of text a question means, and how many there were. Pure."""

from __future__ import annotations

import difflib
import re

from streamsvc.answers.rules.finding import Finding, quote_of, refusal
from streamsvc.answers.rules.parse import Ask
from streamsvc.core.types import Evidence
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text import bag, stems, terms
from streamsvc.timeline.timeline import Timeline

MISREAD = 0.7  # likeness of a word that was misread to what it is
_MOVES = stems("begin end long come go word disappear stay about open")  # what a screen may do


def as_evidence(screen: Screen, timeline: Timeline) -> Evidence:
    """A screen as evidence, quoted by its title or first line."""
    return Evidence(
        screen.start, timeline.end_of(screen), "screen", screen.title or screen.lines[0], screen.frame
    )


def screen_for(ask: Ask, timeline: Timeline) -> Screen | None:
    """The screen of text that a question names: by quoted words, by number, or by the words of its title, else of its lines."""
    wanted = [t for t in (terms(ask.quoted) if ask.quoted else ask.about) if t not in _MOVES]
    if not wanted:
        return (
            numbered_screen(ask, timeline, timeline.latest)
            if re.search(r"\b(slide|page|screen)\b", ask.text) and (ask.ordinal or re.search(r"\d", ask.text))
            else None
        )
    hits = [screen for screen in timeline.screens if screen.title and set(wanted) <= bag(screen.title)]
    hits = hits or [
        screen for screen in timeline.screens if any(set(wanted) <= bag(line) for line in screen.lines)
    ]
    if ask.quoted and not hits:  # a word misread
        hits = [
            s
            for s in timeline.screens
            if s.title and len(set(wanted)) > 2 and len(odd := set(wanted) - bag(s.title)) <= 1
            if all(
                difflib.get_close_matches(word, bag(s.title), 1, MISREAD) for word in odd
            )  # "rich" is not "poor" misread
        ]
    return min(hits, key=lambda s: (abs(len(terms(s.title or "")) - len(wanted)), s.start)) if hits else None


def numbered_screen(ask: Ask, timeline: Timeline, now: float) -> Screen | None:
    """The n-th screen: by the number that it bears, else by order; without a number the one shown now."""
    number = re.search(r"\b(?:slide|page|screen)(?: number| no)? (\d+)\b", ask.text)
    order = int(number[1]) if number else ask.ordinal
    if re.search(r"\b(previous|before this)\b", ask.text):
        return timeline.screens[-2] if len(timeline.screens) > 1 else None
    if ask.times:
        return timeline.screen_at(ask.times[0])
    if order is None:
        return timeline.screen_at(now) or (
            timeline.screens[-1] if timeline.screens and timeline.screens[-1].end is None else None
        )
    if order > 0:
        for screen in timeline.screens:
            if any(re.search(rf"\b(?:slide|page|sheet) ?{order}\b", line.lower()) for line in screen.lines):
                return screen
    if order == -1:
        return timeline.screens[-1] if timeline.screens else None
    known = (
        0 < order <= len(timeline.screens) and not timeline.dropped["screens"]
    )  # else nobody knows which was the n-th
    return timeline.screens[order - 1] if known else None


def count_screens(ask: Ask, timeline: Timeline) -> Finding:
    """How many slides: of all, where the slides say "3 of 8"; else how many so far."""
    if not timeline.screens:
        return refusal()
    so_far = re.search(r"\b(so far|been|already|until now|were|was|shown|seen|yet)\b", ask.text)
    if not so_far:
        for screen in reversed(timeline.screens):
            for line in screen.lines:
                found = re.search(r"\b(\d{1,3})\s?(?:of|/)\s?(\d{1,3})\b", line)
                if found and 0 < int(found[1]) <= int(found[2]):
                    return Finding(
                        (f"{found[2]}: ", f'the screen says "{quote_of(line, 12)}".'),
                        (Evidence(screen.start, timeline.end_of(screen), "screen", line, screen.frame),),
                        values=(found[2],),
                    )
    count = len({screen.title or screen.text for screen in timeline.screens})
    return Finding(
        (f"{count} so far.",),
        (
            Evidence(
                timeline.screens[0].start,
                timeline.end_of(timeline.screens[-1]),
                "timeline",
                f"{count} screens of text",
            ),
        ),
        values=(str(count),),
    )
