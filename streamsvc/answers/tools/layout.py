"""A page of text as people read it: rows, points of a list, labels with their values, tables. Pure.

All from the places of its lines. Where two places answer as well as each other, neither does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamsvc.timeline.text import terms
from streamsvc.timeline.text_tracks import TextTrack

Row = tuple[TextTrack, ...]  # lines side by side, left to right
Terms = frozenset[str]

# Shares of a line's height or of the picture.
SAME_ROW = 0.5  # of the lower line's height, between the middles of lines side by side
BELOW = 1.5  # of a line's height, between a label and the value below it
SAME_EDGE = 0.015  # of the picture's width
HEADING = 1.3  # times as high as the line below it: a heading, and no label of that
OVERLAP = 0.5  # of the narrower line, that lies under the head of a column

_CURRENCY = "$\u20ac\u00a3\u00a5\u20b9"
_VALUE = re.compile(  # at the end of a line: a number with its currency, unit or groups of digits
    rf"(?:[{_CURRENCY}] ?|\b[A-Z]{{3}} )?[+-]?\d[\d.,'/-]*(?: \d[\d.,]*)*"
    rf"(?: ?(?:[%{_CURRENCY}]|[A-Z]{{3}}\b))?\s*$"
)
_POINT = re.compile(
    r"^\s*(?:[\u2022\u00b7\u2219\u25aa\u25e6\u2023\u25cf\u25cb\u25a0\u25a1\u27a2\u2713\u2714*\u00bb]\s*(?=\S)|"
    r"[-\u2013\u2014](?=\s|[^\W\d])\s*|\(?\d{1,2}[.)]\s*(?=[^\W\d])|\(?[a-h]\)\s*(?=\S))"
)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of a page: its text, the words that name it, and its lines."""

    text: str
    name: str
    lines: Row


def label(text: str) -> Terms:
    """The terms of a label; "No." and "#" are numbers."""
    return frozenset(terms(re.sub(r"\b(?:no|nr|num)\b\.?(?=\s|:|$)|#|\u2116", " number ", text.lower())))


def rows(lines: Iterable[TextTrack]) -> list[Row]:
    """Lines side by side together, top to bottom."""
    found: list[list[TextTrack]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        if found and abs(line.middle - found[-1][0].middle) < SAME_ROW * min(line.h, found[-1][0].h):
            found[-1].append(line)
        else:
            found.append([line])
    return [tuple(sorted(row, key=lambda line: line.x)) for row in found]


def text_of(row: Row) -> str:
    """A row as one line of text."""
    return " ".join(line.text for line in row)


def points(lines: Iterable[TextTrack]) -> list[Row]:
    """The rows that begin with the mark of a list: a bullet, a dash, a number."""
    return [row for row in rows(lines) if _POINT.match(text_of(row)) and len(text_of(row)) > 2]


# --- labels and values ---


def pairs(lines: Sequence[TextTrack]) -> Iterator[tuple[str, Value, bool]]:
    """Every label of a page with its value, and whether that stands in the same row (else below it)."""
    page = rows(lines)
    for number, row in enumerate(page):
        for place, line in enumerate(row):
            if (inside := _inside(line)) is not None:
                yield inside.name, inside, True
                if ":" in line.text or "=" in line.text:
                    continue
            beside = row[place + 1] if place + 1 < len(row) else None
            if beside is not None and (len(row) == 2 or line.text.rstrip().endswith((":", "="))):
                yield line.text, Value(beside.text, line.text.rstrip(" :="), (line, beside)), True
                continue
            below = _below(line, page[number + 1 : number + 2])
            one_value = below is not None and (
                len(row) == 1 or _below(below, page[number + 2 : number + 3]) is None
            )
            if below is not None and one_value:  # not a column of them
                yield line.text, Value(below.text, line.text.rstrip(" :="), (line, below)), False


def _inside(line: TextTrack) -> Value | None:
    """As in "Due date: 12 May", "Invoice no. 17", "Total $ 12.50"."""
    mark = re.search(r":(?!//|\d)|=", line.text)
    if mark is not None:
        name, value = line.text[: mark.start()].strip(), line.text[mark.end() :].strip()
    elif ending := _VALUE.search(line.text):
        name, value = line.text[: ending.start()].strip(" .#-"), ending[0].strip()
    else:
        return None
    return Value(value, name, (line,)) if value and re.search(r"[^\W\d]{2}", name) else None


def _below(line: TextTrack, page: Sequence[Row]) -> TextTrack | None:
    """What stands right below a line, at one of its edges; `page`: the next row, if any."""
    for other in page[0] if page else ():
        is_near = other.y - (line.y + line.h) <= BELOW * line.h
        edges = min(abs(line.x - other.x), abs(line.x + line.w - other.x - other.w))
        is_heading = line.h > HEADING * other.h or _POINT.match(other.text) is not None
        if is_near and edges < SAME_EDGE and not is_heading:
            return other
    return None


def look_up(lines: Sequence[TextTrack], wanted: Terms) -> Value | None:
    """The value that the words of a question name: where row and column meet, beside or below a label, a row.

    Args:
        lines: of one page.
        wanted: terms of the question; every term of a label must be among them.
    """
    return cell(lines, wanted) or labelled(lines, wanted) or whole_row(lines, wanted)


def labelled(lines: Sequence[TextTrack], wanted: Terms) -> Value | None:
    """The value beside or below the label that holds most of the wanted terms, or all of them."""
    named = [(label(name), value, beside) for name, value, beside in pairs(lines)]
    inner = [entry for entry in named if entry[0] and entry[0] <= wanted]
    longest = max((len(name) for name, _, _ in inner), default=0)
    for beside in (True, False):
        found = _only(value for name, value, same in inner if len(name) == longest and same is beside)
        if found is not None:
            return found
    outer = [value for name, value, _ in named if wanted and wanted < name and len(name) == len(wanted) + 1]
    return None if inner else _only(outer)


def cell(lines: Sequence[TextTrack], wanted: Terms) -> Value | None:
    """Where a row and a column meet whose heads the wanted terms name; a column may be named in part."""
    page = rows(lines)
    found: list[tuple[int, Value]] = []
    for number, head in enumerate(page):
        for top in head if len(head) > 1 else ():
            column = label(top.text) & wanted
            for row in page[number + 1 :] if column else ():
                met = _under(top, row)
                for side in row if met is not None else ():
                    named = label(side.text)
                    if side is not met and met is not None and named and named <= wanted - column:
                        value = Value(met.text, f"{side.text}, {top.text}", (top, side, met))
                        found.append((len(column) + len(named), value))
    most = max((size for size, _ in found), default=0)
    return _only(value for size, value in found if size == most)


def whole_row(lines: Sequence[TextTrack], wanted: Terms) -> Value | None:
    """A row of a table by its head: each cell with the head of its column, where it has one."""
    page = rows(lines)
    found: list[tuple[int, Value]] = []
    for number, row in enumerate(page):
        named = label(row[0].text)
        if len(row) < 2 or not named or not named <= wanted:
            continue
        told = []
        for one in row[1:]:
            top = next((top for head in page[:number] if len(head) > 1 if (top := _under(one, head))), None)
            told.append(f"{top.text} {one.text}" if top is not None else one.text)
        found.append((len(named), Value(", ".join(told), row[0].text, row)))
    most = max((size for size, _ in found), default=0)
    return _only(value for size, value in found if size == most)


def _under(top: TextTrack, row: Row) -> TextTrack | None:
    """The line of a row that lies under, or over, another line."""
    return next((line for line in row if line is not top and _overlap(top, line) > OVERLAP), None)


def _overlap(one: TextTrack, other: TextTrack) -> float:
    """Share of the narrower line's width that lies above or below the other."""
    return (min(one.x + one.w, other.x + other.w) - max(one.x, other.x)) / max(1e-6, min(one.w, other.w))


def _only(found: Iterable[Value]) -> Value | None:
    """The one value, where all say the same; None where they differ: two totals tell no total."""
    several = list(found)
    return several[0] if several and len({value.text.casefold() for value in several}) == 1 else None
