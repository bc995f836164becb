"""Questions about text on the screen: which slide, which line, since when, what a document, a table or a terminal says. Pure.

Each rule gives a `Finding`, or None where the question is not its business; answers quote the screen. `router.find` calls `read`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from streamsvc.answers.rules import documents
from streamsvc.answers.rules.documents import Row, Terms, Value, text_of
from streamsvc.answers.rules.finding import Finding, quote_of, refusal, timestamp
from streamsvc.answers.rules.parse import Ask
from streamsvc.answers.rules.passages import mentions
from streamsvc.answers.rules.slides import as_evidence, numbered_screen, screen_for
from streamsvc.core.types import Evidence
from streamsvc.timeline.screen_history import Screen
from streamsvc.timeline.text import QUESTION_WORDS, bag, stem, stems, terms
from streamsvc.timeline.text_tracks import TextTrack
from streamsvc.timeline.timeline import Timeline

NEWEST = 60  # screens that a document is looked for in
WORDS = 32  # of a quote


_KINDS = tuple(
    stems(names)
    for names in (
        *("invoice bill", "receipt", "ticket", "menu", "letter", "contract agreement"),
        *("quotation quote", "certificate", "passport", "timetable schedule"),
    )
)
DOCUMENT = (  # what a question calls a page of text
    r"(?:invoice|bill|receipt|ticket|menu|letter|contract|agreement|quotation|quote|certificate|passport|timetable|schedule|form|order|"
    r"statement|report|business card|card|label|sign|poster|flyer|memo|document|table|spreadsheet|sheet|list|chart|email|paper)"
)
SURFACE = r"(?:slide|screen|page|picture|image|photo|terminal|dialog|window)"
_WHERE = re.compile(
    rf"\b(?:on|in|at|of|from|by|for) (?:the|this|that|my|our|your|an?) (?:[a-z-]+ )??({DOCUMENT}|{SURFACE})s?\b(?: now)?"
)
_ASKING = stems(
    "give read tell say show shows list written stand printed mentioned listed displayed visible see please current exact much many come "
    "find look there according must value"
)
_CHANGED = stems(
    "change changed new different edited added removed updated just lately recently document terminal table sheet"
)
_EXTREMES = stems(
    "highest largest most biggest maximum greatest lowest smallest least minimum cheapest expensive"
)
_TYPED = stems(
    "terminal console shell command output prompt code script program editor error exception traceback warning message last print run ran "
    "enter type do appear execute us wrong stack"
)
_MOVES = stems("begin end come go leave stay long word appear disappear vanish change remove")
_FILLERS = stems("current previous next whole right please give white topic big top")
_NTH = "first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|final|bottom|top"
_UNIT = r"(?:lines?|rows?|bullets?(?: points?)?|points?|items?|entry|entries)"
_ORDER = {word: n for n, word in enumerate(_NTH.split("|")[:10], 1)} | {
    "last": -1,
    "final": -1,
    "bottom": -1,
    "top": 1,
}


def read(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """The first rule's answer to a question about text on the screen."""
    if not timeline.screens:
        return None
    for rule in (_quoted, _changed, _before, _which, _line, _list, _file, _typed, _labelled):
        found = rule(ask, timeline, now)
        if found is not None:
            return found
    return None


def _quoted(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Whether quoted words were on the screen."""
    if (
        ask.form != "yes/no"
        or ask.quoted is None
        or not re.search(rf"\b(?:on|in) (?:the|a|any|this) (?:\w+ )?(?:{SURFACE}|title)s?\b", ask.text)
    ):
        return None
    hits = [item for item in mentions(ask, timeline) if item.kind == "screen"]
    return (
        Finding(("Yes, ", f'at {timestamp(hits[0].start)}: "{quote_of(hits[0].quote, 20)}"'), (hits[0],))
        if hits
        else refusal()
    )


def locate(ask: Ask, timeline: Timeline) -> Evidence | None:
    """When a text was shown: a slide, where one is named or its title is quoted; else the line that holds all the words."""
    screen = screen_for(ask, timeline)
    wanted = set(terms(ask.quoted)) if ask.quoted else set(ask.about) - _MOVES
    if screen is not None and (
        not wanted
        or re.search(r"\b(slide|page)\b", ask.text)
        or (screen.title and wanted <= bag(screen.title))
    ):
        return as_evidence(screen, timeline)
    lines = [line for line in timeline.text_tracks.all() if wanted and wanted <= bag(line.text)]
    number = ask.ordinal or 1
    if lines and number <= len(lines):
        return lines[number if number < 0 else number - 1].evidence(timeline.latest)
    return as_evidence(screen, timeline) if screen is not None and not lines else None


# --- what is on a page --------------------------------------------------------------------------------------------


def page(timeline: Timeline, screen: Screen) -> tuple[TextTrack, ...]:
    """The lines of a screen as it stood last, in reading order."""
    return timeline.text_tracks.at(
        max(screen.start, timeline.end_of(screen) - (0.0 if screen.end is None else 1e-3))
    )


def _asked(ask: Ask, timeline: Timeline, now: float) -> Screen | None:
    """The screen that a question is about: by number or title, else the one shown now, or shown last."""
    on = re.search(
        r"\b(?:on|of|in) (?:the )?((?:[\w-]+ )?(?:slide|page|screen)(?: (?:number )?\d+)?)\b", ask.text
    )
    named = re.search(rf"\b({_NTH}) (?:slide|page|screen)\b", on[1]) if on else None
    if named:
        number = _ORDER[named[1]]
        return (
            timeline.screens[number if number < 0 else number - 1]
            if number <= len(timeline.screens)
            else None
        )
    if (on and re.search(r"\d", on[1])) or ask.times:
        return numbered_screen(ask, timeline, now)
    if ask.quoted and (screen := screen_for(ask, timeline)) is not None:
        return screen
    return timeline.screens[-1]


def _quote(rows: Sequence[Row], most: int = WORDS) -> str:
    return quote_of(" / ".join(text_of(row) for row in rows), most)


def _span(rows: Sequence[Row], timeline: Timeline) -> Evidence:
    """Rows as evidence: from when all of them were there, while any of them is not gone."""
    lines = [line for row in rows for line in row]
    spans = [line.evidence(timeline.latest) for line in lines]
    start = max(span.start for span in spans)
    return Evidence(
        start, max(start, min(span.end for span in spans)), "screen", _quote(rows, 60), spans[0].frame
    )


def _told(rows: Sequence[Row], timeline: Timeline) -> Finding:
    span = _span(rows, timeline)
    return Finding((f"On the screen at {timestamp(span.start)}: ", f'"{_quote(rows)}"'), (span,))


# --- rules --------------------------------------------------------------------------------------------------------


def written(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Titles of slides, and what is written on them."""
    if ask.form != "open" or (not ask.on_screen and not re.search(r"\b(title|headline|heading)\b", ask.text)):
        return None
    rest = set(ask.about) - _FILLERS
    wants_title = re.search(
        r"\b(titles?|titled|heading|headline|called|name of|at the top)\b|\babout$", ask.text
    )
    wants_text = re.search(
        r"\b(say|says|said|read|reads|written|text|words|content\w*|stand|on it|show|shows|shown|display\w*|is on|was on|visible)\b",
        ask.text,
    )
    if (
        rest
        or not timeline.screens
        or not (
            wants_title
            or wants_text
            or re.match(r"(?:which|what) (?:slide|page|screen)\b|what is on\b", ask.text)
        )
    ):
        return None
    screen = numbered_screen(ask, timeline, now)
    if screen is None:
        return refusal()
    span = as_evidence(screen, timeline)
    if wants_title or not wants_text or re.match(r"(?:which|what) (?:slide|page|screen) ", ask.text):
        title = screen.title or (screen.lines[0] if len(screen.lines) == 1 else None)
        return (
            refusal() if title is None else Finding((f'"{quote_of(title, 30)}".',), (span,), values=(title,))
        )
    return Finding((f'It says: "{quote_of(" / ".join(screen.lines), 34)}".',), (span,))


def _changed(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What changed on the screen: lately, or since a time."""
    if not re.match(
        r"what(?:'s| is| are| was| has| have| did)?\b.*\b(?:chang\w+|new|different|edited|added|removed|updated)\b",
        ask.text,
    ):
        return None
    if not re.search(r"\b(screen|slide|page|text|document|terminal|table|sheet)\b", ask.text) or ask.spoken:
        return None
    if set(ask.about) - _CHANGED:
        return None
    lines = timeline.text_tracks.all()
    since = ask.times[0] if ask.times else now - (ask.last or ask.ago or 0.0) if ask.last or ask.ago else None
    first = min((line.start for line in lines), default=0.0)
    moments = {
        when for line in lines for when in (line.start, line.end) if when is not None and first < when <= now
    }
    moments = (
        {max(moments)}
        if moments and since is None
        else {when for when in moments if since is not None and when >= since}
    )
    came = [line for line in lines if line.start in moments]
    went = [line for line in lines if line.end in moments and line.start not in moments]
    if not came and not went:
        return refusal()
    parts = [f"{name}: {quote}" for name, quote in (("new", _names(came)), ("gone", _names(went))) if quote]
    spans = [line.evidence(timeline.latest) for line in came[:3]] + [
        Evidence(line.end, line.end, "screen", line.text, line.frame)
        for line in went[:3]
        if line.end is not None
    ]
    return Finding((f"At {timestamp(max(moments))}, ", "; ".join(parts) + "."), tuple(spans))


def _names(lines: Sequence[TextTrack]) -> str:
    return ", ".join(f'"{quote_of(line.text, 7)}"' for line in lines[:2]) + (
        f" and {len(lines) - 2} more" if len(lines) > 2 else ""
    )


def _before(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """The last line on the screen before something happened there."""
    cut = re.match(
        r"what (?:is|was|were|did)\b.*\b(?:last|final) (?:line|text|message|command|row|entry|words?)\b.*?\b(?:before|until) (.+)",
        ask.text,
    )
    if cut is None or ask.spoken:
        return None
    if (
        re.search(r"\b(chang\w+|black|blank|dark|disappear\w*|vanish\w*|cleared|gone|end\w*)\b", cut[1])
        and not ask.quoted
    ):
        ends = [screen.end for screen in timeline.screens if screen.end is not None]
        when = ends[-1] if ends else None
    else:
        wanted = set(
            terms(ask.quoted) if ask.quoted else [t for t in terms(cut[1]) if t not in QUESTION_WORDS]
        )
        hits = [line.start for line in timeline.text_tracks.all() if wanted and wanted <= bag(line.text)]
        when = hits[0] if hits else None
    rows = documents.rows(timeline.text_tracks.at(when - 1e-3)) if when is not None else []
    return _told(rows[-1:], timeline) if rows else refusal()


def _which(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Which slide showed, said or is about something."""
    if not re.match(
        r"(?:on |in )?(?:which|what) (?:slides?|pages?|screens?)\b(?!.*\b(?:before|after|while|follow\w*|preced\w*)\b)",
        ask.text,
    ):
        return None
    wanted = (
        set(terms(ask.quoted) if ask.quoted else ask.about)
        - stems("about number contain have cover list")
        - _FILLERS
    )
    if not wanted:
        return None
    whole = [screen for screen in timeline.screens if any(wanted <= bag(line) for line in screen.lines)]
    hits = whole or [screen for screen in timeline.screens if wanted <= bag(screen.text)]
    if not hits:
        return refusal()
    told = "; ".join(
        f'"{quote_of(screen.title or screen.lines[0], 9)}", from {timestamp(screen.start)}'
        for screen in hits[:3]
    )
    spans = tuple(as_evidence(screen, timeline) for screen in hits[:3])
    return Finding((told + ".",), spans, values=tuple(span.quote for span in spans))


def _line(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """The n-th line or point of a page."""
    asked = re.search(
        rf"\b(?:({_NTH})|(\d{{1,2}})(?:st|nd|rd|th)) ({_UNIT})\b|\b({_UNIT}) (?:number )?(\d{{1,2}})\b",
        ask.text,
    )
    if (
        asked is None
        or ask.form != "open"
        or not re.match(r"(?:what|which|read|show|give|tell|quote)\b", ask.text)
    ):
        return None
    unit = asked[3] or asked[4]
    meta = QUESTION_WORDS | _FILLERS | stems("line row bullet point item entry")
    if set(ask.about) - meta - set(terms(ask.quoted or "")) or (ask.spoken and not ask.on_screen):
        return None
    screen = _asked(ask, timeline, now)
    lines = page(timeline, screen) if screen is not None else ()
    rows = documents.rows(lines) if re.match("line|row", unit) else documents.points(lines)
    number = _ORDER[asked[1]] if asked[1] else int(asked[2] or asked[5])
    if not 0 < abs(number) <= len(rows):
        return refusal()
    return _told([rows[number if number < 0 else number - 1]], timeline)


def _list(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """How many lines or points a page has."""
    asked = re.match(r"how many (bullets?(?: points?)?|points|items|lines(?: of text)?|rows)\b(.*)", ask.text)
    if asked is None or not (
        asked[1].startswith("bullet") or re.search(r"\b(slide|screen|page|list|text)\b", ask.text)
    ):
        return None
    if [
        t
        for t in terms(asked[2])
        if t not in QUESTION_WORDS
        and t not in ("list", "current", "text")
        and t not in _ORDER
        and not t.isdigit()
    ]:
        return None
    screen = _asked(ask, timeline, now)
    lines = page(timeline, screen) if screen is not None else ()
    rows = documents.rows(lines) if re.match("lines|rows", asked[1]) else documents.points(lines)
    if not rows:
        return refusal()
    span = _span(rows, timeline)
    return Finding((f"{len(rows)}: ", f'"{_quote(rows, 28)}"'), (span,), values=(str(len(rows)),))


def _file(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Which files are named on the screen, in reading order."""
    if ask.form != "open" or ask.spoken or not re.search(r"\b(?:files?|filenames?)\b", ask.text):
        return None
    if not re.match(r"(?:which|what|name|list)\b", ask.text) or set(ask.about) - stems(
        "file filename open edit list name path select show be"
    ):
        return None
    screen = _asked(ask, timeline, now)
    found = documents.values(page(timeline, screen), "file")[:4] if screen is not None else []
    if not found:
        return refusal()
    spans = tuple(value.lines[0].evidence(timeline.latest) for value in found[:3])
    names = tuple(value.text for value in found)
    return Finding(
        (f"On the screen at {timestamp(spans[0].start)}: ", ", ".join(names) + "."), spans, values=names
    )


def _typed(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What a terminal or some code shows: its end, a command, a command's output, an error."""
    if ask.form != "open" or not re.search(
        r"\b(terminal|console|shell|command|output|prompt|code|script|program|editor|error|exception|traceback|warning)\b",
        ask.text,
    ):
        return None
    if not re.match(r"(?:what|which|read|show|quote)\b", ask.text) or (
        ask.spoken and not re.search(r"\b(says?|reads?)\b", ask.text)
    ):
        return None
    lines = page(timeline, _asked(ask, timeline, now) or timeline.screens[-1])
    rows, typed = documents.rows(lines), documents.commands(lines)
    wanted = set(ask.about) - _TYPED
    if re.search(r"\b(error|exception|traceback|warning)\b", ask.text):
        hits = [row for row in documents.wrongs(lines) if not wanted or wanted <= bag(text_of(row))]
        return _told(hits[-1:], timeline) if hits else refusal() if typed or documents.coded(lines) else None
    if re.search(r"\b(output|print\w*)\b", ask.text) and typed:
        outputs = [output for command, _, output in typed if output and wanted <= bag(command)]
        return _told(outputs[-1], timeline) if outputs else refusal()
    if re.search(r"\bcommand\b", ask.text) and typed:
        chosen = (
            typed[(ask.ordinal or -1) - (1 if (ask.ordinal or -1) > 0 else 0)]
            if abs(ask.ordinal or 1) <= len(typed)
            else None
        )
        return _told([chosen[1]], timeline) if chosen and not wanted else refusal()
    if wanted or not (typed or documents.coded(lines)):
        return None
    return _told(rows[-5:] if typed and not documents.coded(lines) else rows, timeline)


def _labelled(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What a document or table says: the total, the due date, a price, an address; by label, by row and column, or by its look."""
    where = _WHERE.search(ask.text)
    if (
        ask.form in ("yes/no", "how long")
        or (ask.spoken and where is None)
        or ask.quoted is not None
        or ask.times
    ):
        return None
    if not re.match(
        r"(?:what|which|how much|how many|when|who|where|at what|to whom|read|give|tell)\b", ask.text
    ):
        return None
    if ask.form == "how many" and where is None:
        return None
    body = re.sub(
        r"^(?:what|which|how much|how many|when|who|where)(?:'s|'re)?\b", " ", _WHERE.sub(" ", ask.text)
    )
    wanted: Terms = frozenset(t for t in documents.label(body) if t not in _ASKING)
    kind = _kind(ask.text, wanted)
    if ask.form == "how many":
        wanted |= {"quantity"}
    if not wanted or (where is None and ask.form != "open" and kind != "date"):
        return None
    if most := re.search(
        r"\b(?:(highest|largest|most|biggest|maximum|greatest)|lowest|smallest|least|minimum|cheapest)\b",
        ask.text,
    ):
        wanted = frozenset(
            wanted - _EXTREMES | (stems("price") if re.search("cheap|expensive", ask.text) else set())
        )
    tried = [wanted]
    if (own := re.search(rf"\b{DOCUMENT}\b", body)) and wanted - {stem(own[0])}:
        tried.append(wanted - {stem(own[0])})  # "when is the invoice due"
    if kind == "money":
        tried.append(wanted - stems("cost costs") | stems("price"))  # "how much is the soup"
    for lines in _pages(timeline, where[1] if where else "", only_newest=where is None):
        found = next(
            (value for terms_ in tried if (value := documents.look_up(lines, terms_, kind)) is not None), None
        )
        if most is not None:
            found = documents.extreme(lines, wanted, largest=bool(most[1]))
        elif found is None:
            several = _looking(lines, kind, wanted)
            if len(several) > 1:
                spans = tuple(value.lines[0].evidence(timeline.latest) for value in several[:3])
                told = tuple(value.text for value in several[:3])
                return Finding(("On the screen: ", ", ".join(told) + "."), spans, values=told)
            found = several[0] if several else None
        if found is not None:
            spans = tuple(line.evidence(timeline.latest) for line in dict.fromkeys(found.lines))
            said = f'on the screen at {timestamp(max(span.start for span in spans))}: "{quote_of(found.quote, 20)}"'
            return Finding((f"{quote_of(found.text, 16)}, ", said), spans, values=(found.text,))
    return None


def _kind(text: str, wanted: Terms) -> str | None:
    """What the value must look like."""
    for kind, pattern in (
        ("email", r"\be-?mail\b(?! (?:about|says))"),
        ("url", r"\b(?:url|website|web ?site|web address|homepage)\b"),
        ("phone", r"\b(?:phone|telephone|mobile|fax)\b"),
        ("percent", r"\bper ?cent(?:age)?\b"),
        ("date", r"\bdate\b(?! of (?!birth|issue))|^when\b"),
        ("money", r"^how much|\b(?:price|cost|costs|fee|subtotal)\b"),
        ("count", r"^how many\b"),
    ):
        if re.search(pattern, text):
            return kind
    return "money" if wanted in documents.called(frozenset({"total"})) else None


def _looking(lines: Sequence[TextTrack], kind: str | None, wanted: Terms) -> list[Value]:
    """Values that tell what they are by their look, of whom or what the question names, if it does: in the same row, or right above."""
    if kind not in ("email", "url", "phone", "date"):
        return []
    own = frozenset().union(*documents.called(documents.label(kind)), {"number", "address", "dat"})
    rest = wanted - own
    found = documents.values(lines, kind)
    if kind == "phone":
        found = [value for value in found if not documents.KINDS["date"].search(value.text)]
    if kind == "date":
        return found if len(found) == 1 and not rest else []
    rows = documents.rows(lines)

    def beside(value: Value) -> Terms:
        n = next(n for n, row in enumerate(rows) if value.lines[0] in row)
        return documents.label(" ".join(text_of(row) for row in rows[max(0, n - 1) : n + 1]))

    return [value for value in found if rest <= beside(value)]


def _pages(timeline: Timeline, document: str, only_newest: bool) -> Iterator[tuple[TextTrack, ...]]:
    """Pages to look at, the newest first: where one calls itself a document as the question does, that kind only."""
    screens = timeline.screens[-1:] if only_newest else timeline.screens[-NEWEST:][::-1]
    asked = stem(document) if document else ""
    for own in _KINDS:
        if asked in own:
            others = frozenset().union(*_KINDS) - own
            named = [screen for screen in screens if own & bag(screen.text)]
            screens = named or [screen for screen in screens if not others & bag(screen.text)]
    yield from (page(timeline, screen) for screen in screens)
