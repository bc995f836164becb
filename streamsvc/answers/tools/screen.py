"""The text on the screen: slides and their titles, what stands there, labelled values. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools import layout
from streamsvc.answers.tools.layout import Row, text_of
from streamsvc.answers.tools.matching import is_complete, written
from streamsvc.answers.tools.sights import sights
from streamsvc.answers.tools.wording import contents, fitting, lasted, moment, sentence, words_in
from streamsvc.core.types import Evidence
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text import terms
from streamsvc.timeline.text_tracks import TextTrack, normalized
from streamsvc.timeline.timeline import Timeline

QUOTED = 32  # words of a screen in one answer
TITLE = 12  # words of a title among others
NUMBER_WORDS = 4  # of a line that tells the number of a slide, as in "Slide 3 of 9"
LONGEST = 38  # words of an answer about one slide
LETTERS = 3  # of the name of a slide at least: less is a letter on some thing in a picture
PAGES = 60  # screens, the newest, in which a labelled value is looked for
_PAGE_OF = re.compile(r"\b(\d{1,3})\s?(?:of|/)\s?(\d{1,3})\b")  # "3 of 9", "3 / 9"
_PAGE = re.compile(r"^\W*(?:[^\W\d]+ )?(\d{1,3})\W*$")  # a line with a number alone: "Slide 3", "- 3 -"


def name_of(screen: Screen) -> str:
    """The title of a screen, else its first line."""
    return screen.title or screen.lines[0]


def as_evidence(screen: Screen, timeline: Timeline, quote: str = "") -> Evidence:
    """A screen as evidence, quoted by its name."""
    return Evidence(screen.start, timeline.end_of(screen), "screen", quote or name_of(screen), screen.frame)


# --- slides ---


def slides(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The titles of all slides in order; or one of them: by place, number or words, or the one of a time."""
    known = slides_of(timeline, now)
    if not known:
        return None
    if arguments.form == "how often":
        return _how_many(known, timeline)
    one, is_asked = _chosen(known, timeline, arguments)
    if is_asked:
        return _slide(one, known, timeline, arguments, now) if one is not None else None
    current = timeline.screen_at(now)
    if arguments.form == "open" and current is not None:
        return _slide(current, known, timeline, arguments, now)
    return _titles(known, timeline)


def slides_of(timeline: Timeline, now: float = float("inf")) -> list[Screen]:
    """The screens with a title, each once where it was read anew; without any title all screens."""
    found: list[Screen] = []
    for screen in timeline.screens:
        if screen.start <= now and (not found or name_of(found[-1]) != name_of(screen)):
            found.append(screen)
    titled = [screen for screen in found if screen.title]
    return [screen for screen in titled or found if len(normalized(name_of(screen))) >= LETTERS]


def number_of(screen: Screen) -> tuple[int, int | None] | None:
    """The number that a slide bears, and of how many; None: none."""
    for line in reversed(screen.lines):
        if (found := _PAGE_OF.search(line)) and 0 < int(found[1]) <= int(found[2]):
            return int(found[1]), int(found[2])
    for line in screen.lines[-2:]:
        if found := _PAGE.match(line):
            return int(found[1]), None
    return None


def _bears_number(line: str) -> bool:
    """Whether a line tells the number of its slide and little else."""
    return bool(_PAGE.match(line) or (_PAGE_OF.search(line) and words_in(line) <= NUMBER_WORDS))


def slide_with(timeline: Timeline, text: str, now: float = float("inf")) -> Screen | None:
    """The first slide whose title holds the content words of a text, else whose lines do."""
    wanted = frozenset(terms(text))
    known = slides_of(timeline, now) if wanted else []
    titled = [screen for screen in known if wanted <= frozenset(terms(name_of(screen)))]
    if titled:
        return min(titled, key=lambda screen: (len(terms(name_of(screen))), screen.start))
    lines = written(timeline, text)
    return timeline.screen_at(lines[0].start) if lines and lines[0].start <= now else None


def _chosen(known: Sequence[Screen], timeline: Timeline, arguments: Arguments) -> tuple[Screen | None, bool]:
    """The slide that the arguments name, and whether they name one: a place, else a time, else words."""
    place = arguments.ordinal
    if place is None and arguments.number is not None and arguments.number == int(arguments.number):
        place = int(arguments.number)
    if place is not None:
        numbered = [one for one in known if (number := number_of(one)) and number[0] == place]
        if numbered:
            return numbered[0], True
        is_known = -len(known) <= place <= len(known) and place != 0
        complete = place < 0 or not timeline.dropped["screens"]  # else nobody knows which was the n-th
        return (known[place - (place > 0)] if is_known and complete else None), True
    if arguments.span is not None:
        return timeline.screen_at(arguments.span[0]), True
    if arguments.text and arguments.form != "list":
        return slide_with(timeline, arguments.text), True
    return None, False


def _slide(
    screen: Screen, known: Sequence[Screen], timeline: Timeline, arguments: Arguments, now: float
) -> Finding:
    span = as_evidence(screen, timeline)
    if arguments.form == "when":
        return moment(span)
    if arguments.form == "how long":
        return lasted(span, now)
    number = number_of(screen)
    place = f", slide {number[0]}" if number else ""
    answer = f'"{quoted(name_of(screen), 24)}"{place}, from {timestamp(screen.start)} on'
    if arguments.form == "yes/no":
        answer = f"Yes, {answer}"
    elif arguments.form == "open":
        if len(known) > 1 and screen.end is None:
            answer += f", {len(known)} slides so far"
        rest = [line for line in screen.lines if line != name_of(screen) and not _bears_number(line)]
        if shown := contents(rest, LONGEST - words_in(answer)):
            answer += f': "{shown}"'
    return Finding(sentence(answer), (span,), (name_of(screen),))


def _how_many(known: Sequence[Screen], timeline: Timeline) -> Finding:
    """Of all, where the slides say "3 of 8"; else so far."""
    for screen in reversed(known):
        number = number_of(screen)
        if number is not None and number[1] is not None:
            line = next(line for line in reversed(screen.lines) if _PAGE_OF.search(line))
            text = f'{number[1]}; the screen says "{quoted(line, 8)}"; {len(known)} were shown so far.'
            return Finding(text, (as_evidence(screen, timeline, line),), (str(number[1]),))
    spans = tuple(as_evidence(screen, timeline) for screen in known[:8])
    return Finding(f"{len(known)} so far.", spans, (str(len(known)),))


def _titles(known: Sequence[Screen], timeline: Timeline) -> Finding:
    names = list(dict.fromkeys(name_of(screen) for screen in known))
    text, count = fitting((f'"{quoted(name, TITLE)}"' for name in names), 36)
    more = f" and {len(names) - count} more" if count < len(names) else ""
    spans = tuple(as_evidence(screen, timeline) for screen in known[:12])
    return Finding(f"{text}{more}.", spans, tuple(names))


# --- what stands on the screen ---


def screen_text(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """What stands on the screen: all, the n-th point or line, or whether and where some words stand there."""
    if arguments.text and arguments.form != "how often" and arguments.ordinal is None:
        return _lines_with(timeline, arguments, now)
    when = arguments.span[0] if arguments.span else now
    screen = timeline.screen_at(when)
    if screen is None:
        seen = sights(timeline, arguments, now)
        return seen if arguments.form in ("open", "list") else None
    page = page_of(timeline, screen, when)
    listed = _listed(page, screen)
    if arguments.form == "how often":
        quote = " / ".join(text_of(row) for row in listed)
        text = f'{len(listed)}: "{quoted(quote, QUOTED)}"'
        return Finding(text, (_span(listed, timeline),), (str(len(listed)),)) if listed else None
    if arguments.ordinal is not None:
        return _nth_line(listed, timeline, arguments.ordinal)
    values = tuple(text_of(row) for row in listed)
    if arguments.form != "list":
        listed = layout.rows(page)
    quote = " / ".join(text_of(row) for row in listed)
    return Finding(f'"{quoted(quote, QUOTED)}"', (_span(listed, timeline),), values) if listed else None


def page_of(timeline: Timeline, screen: Screen, when: float | None = None) -> tuple[TextTrack, ...]:
    """The lines of a screen at a time, else as it stood last, in reading order."""
    last = timeline.end_of(screen) - (0.0 if screen.end is None else 1e-3)
    return timeline.text_tracks.at(max(screen.start, min(last, last if when is None else when)))


def _listed(page: Sequence[TextTrack], screen: Screen) -> list[Row]:
    """The points of a page, else its rows but for its title and its number; one mark alone makes no list."""
    points = layout.points(page)
    if len(points) > 1:
        return points
    title = frozenset(terms(screen.title or ""))
    rows = [row for row in layout.rows(page) if not (title and frozenset(terms(text_of(row))) == title)]
    return [row for row in rows if not (_PAGE.match(text_of(row)) or _PAGE_OF.search(text_of(row)))]


def _nth_line(listed: Sequence[Row], timeline: Timeline, ordinal: int) -> Finding | None:
    if not listed or not 0 < abs(ordinal) <= len(listed):
        return None
    row = listed[ordinal if ordinal < 0 else ordinal - 1]
    return Finding(f'"{quoted(text_of(row), QUOTED)}"', (_span([row], timeline),), (text_of(row),))


def _lines_with(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The lines that hold some words, in the span if there is one."""
    start, end = arguments.span or (0.0, now)
    lines = [line for line in written(timeline, arguments.text) if line.start <= end and line.end >= start]
    if not lines:
        known = arguments.form == "yes/no" and is_complete(timeline) and timeline.screens
        if not known:
            return None
        quote = f'"{quoted(arguments.text, 8)}" not on the screen'
        text = f'No, I have not seen "{quoted(arguments.text, 8)}" on the screen.'
        return Finding(text, (Evidence(start, end, "timeline", quote),))
    first = lines[0]
    if arguments.form == "when":
        return moment(first, f': "{quoted(first.quote, QUOTED - 4)}"')
    told = f'at {timestamp(first.start)}: "{quoted(first.quote, QUOTED - 4)}"'
    return Finding(f"Yes, {told}" if arguments.form == "yes/no" else sentence(told), tuple(lines[:3]))


def _span(rows: Sequence[Row], timeline: Timeline) -> Evidence:
    """Rows as evidence: from when all of them were there, while any of them is not gone."""
    spans = [line.evidence(timeline.latest) for row in rows for line in row]
    start = max(span.start for span in spans)
    quote = " / ".join(text_of(row) for row in rows)
    return Evidence(start, max(start, min(span.end for span in spans)), "screen", quote, spans[0].frame)


# --- labelled values ---


def table(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The value that the text names on a page: by row and column, by its label, or a whole row."""
    wanted = layout.label(arguments.text)
    if not wanted or arguments.form == "yes/no":
        return None
    if arguments.span is not None:
        screens = [one for one in (timeline.screen_at(arguments.span[0]),) if one is not None]
    else:
        screens = [one for one in timeline.screens if one.start <= now][-PAGES:][::-1]
    for screen in screens:
        value = layout.look_up(page_of(timeline, screen), wanted)
        if value is not None:
            spans = tuple(line.evidence(timeline.latest) for line in dict.fromkeys(value.lines))
            start = max(span.start for span in spans)
            named = f'"{quoted(value.name, 10)}", on the screen at {timestamp(start)}'
            return Finding(f"{quoted(value.text, 20)} ({named}).", spans, (value.text,))
    return None
