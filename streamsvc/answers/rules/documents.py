"""A page of text as people read it: rows, labels with their values, tables, lists, terminals; from the places of its lines. Pure.

Everything that is found is quoted from the page. Where two places answer as well as each other, neither does.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamsvc.timeline.text import terms
from streamsvc.timeline.text_tracks import TextTrack

Row = tuple[TextTrack, ...]  # lines side by side, left to right
Terms = frozenset[str]

_NUMBER = r"\d[\d.,']*"
_MONEY = (
    rf"(?:[$€£¥₹]|\b(?:USD|EUR|GBP|CHF)) ?-?{_NUMBER}|{_NUMBER} ?(?:[$€£¥₹]|(?:USD|EUR|GBP|CHF|dollars|euros?|pounds)\b)|"
    r"\b\d[\d,]*\.\d\d\b"
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|"
    r"dec(?:ember)?)\b\.?"
)
_DATE = (
    rf"\b\d{{4}}-\d\d?-\d\d?\b|\b\d\d?[./-]\d\d?[./-]\d{{2,4}}\b|\b\d\d?(?:st|nd|rd|th)?\.? ?{_MONTH},? ?(?:\d{{4}}|'?\d\d)?\b|"
    rf"\b{_MONTH} ?\d\d?(?:st|nd|rd|th)?\b(?:, ?| )?(?:\d{{4}})?"
)
_PHONE = r"(?<![\w.,-])\(?\+?\d[\d ()/-]{5,}\d\b"
_SITE = r"(?<![@\w.])[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|org|net|io|dev|eu|de|uk|edu|gov|info|co)\b(?:/\S*)?"
_FILE = (
    r"(?<![\w@])(?:[\w.~-]*/)*[\w-][\w.-]*\.(?:md|txt|rst|pdf|docx?|xlsx?|pptx?|csv|json|ya?ml|toml|xml|html?|css|scss|js|jsx|ts|tsx|py|ipynb|rs|go|c|h|cc|"
    r"cpp|hpp|java|kt|swift|rb|php|sh|sql|lock|ini|cfg|conf|env|log|tex|svg|png|jpe?g|gif|webp|mp[34]|wav|mkv|zip|gz|tar|ron)\b(?!\.\w)"
)
KINDS = {  # of values, each with what it looks like
    "money": re.compile(_MONEY, re.IGNORECASE),
    "date": re.compile(_DATE, re.IGNORECASE),
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "url": re.compile(rf"\bhttps?://\S+|\bwww\.\S+|{_SITE}", re.IGNORECASE),
    "phone": re.compile(_PHONE),
    "percent": re.compile(rf"{_NUMBER} ?(?:%|per ?cent\b)", re.IGNORECASE),
    "count": re.compile(r"\b\d+\b"),
    "file": re.compile(_FILE, re.IGNORECASE),
}
_VALUE = re.compile(rf"(?:{_MONEY}|{_DATE}|{_PHONE}|{_NUMBER} ?%?)\s*$", re.IGNORECASE)

# What stands on pages for one another; the terms of each label (`label`).
_NAMES = (
    "total; grand total; total due; amount due; balance due; total amount; amount payable; total payable; total to pay; total price",
    "phone; phone number; telephone; telephone number; tel; mobile; cell; call",
    "email; email address; mail; contact email",
    "website; url; web; web address; link; site; homepage; web site",
    "tax; vat; sales tax; gst; tax amount",
    "price; cost; unit price",
    "quantity; qty; pcs; units; count",
    "date; invoice date; issue date; date issued; date of issue; dated",
    "due date; due; payment due; payment due date; pay by; date due",
    "date of birth; dob; birth date; birthday",
    "customer; client; bill to; billed to; customer name; client name; sold to",
    "subtotal; sub total; net; net amount",
    "address; postal address; street address",
)


@dataclass(frozen=True, slots=True)
class Value:
    """What a page says to a question: the value, and the lines that say so, label first."""

    text: str
    lines: Row

    @property
    def quote(self) -> str:
        """Label and value, as they stand there."""
        return " ".join(line.text for line in dict.fromkeys(self.lines))


def label(text: str) -> Terms:
    """The terms of a label: "No." and "#" are numbers; articles, case and punctuation count for nothing."""
    return frozenset(terms(re.sub(r"\b(?:no|nr|num)\b\.?(?=\s|:|$)|#|№", " number ", text.lower())))


_SAME = tuple(tuple(label(name) for name in group.split(";")) for group in _NAMES)


def called(wanted: Terms) -> list[Terms]:
    """The labels under which something stands on pages, the one asked for first."""
    others = (name for group in _SAME if wanted in group for name in group)
    return list(dict.fromkeys((wanted, *others)))


def rows(lines: Iterable[TextTrack]) -> list[Row]:
    """Lines side by side together, top to bottom: their middles lie within half a line's height."""
    found: list[list[TextTrack]] = []
    for line in sorted(lines, key=lambda line: line.middle):
        if found and abs(line.middle - found[-1][0].middle) < 0.5 * min(line.h, found[-1][0].h):
            found[-1].append(line)
        else:
            found.append([line])
    return [tuple(sorted(row, key=lambda line: line.x)) for row in found]


def text_of(row: Row) -> str:
    """A row as one line of text."""
    return " ".join(line.text for line in row)


def values(lines: Iterable[TextTrack], kind: str) -> list[Value]:
    """All values of a kind (of KINDS) on a page, each text once."""
    found = {match[0].strip(" .,;"): line for line in lines for match in KINDS[kind].finditer(line.text)}
    return [Value(text, (line,)) for text, line in found.items()]


def pairs(lines: Sequence[TextTrack]) -> Iterator[tuple[str, Value, bool]]:
    """Every label of a page with its value, and whether that stands in the same row (else below it)."""
    page = rows(lines)
    for n, row in enumerate(page):
        for place, line in enumerate(row):
            if (inside := _inside(line)) is not None:
                yield (*inside, True)
                if ":" in line.text or "=" in line.text:
                    continue
            beside = row[place + 1] if place + 1 < len(row) else None
            if beside is not None and (len(row) == 2 or line.text.rstrip().endswith((":", "="))):
                yield line.text, Value(beside.text, (line, beside)), True
                continue
            below = _below(line, page[n + 1 : n + 2])
            if below is not None and (
                len(row) == 1 or _below(below, page[n + 2 : n + 3]) is None
            ):  # one value, not a column of them
                yield line.text, Value(below.text, (line, below)), False


def _inside(line: TextTrack) -> tuple[str, Value] | None:
    """As in "Due date: 12 May", "Invoice no. 17", "Total $ 12.50"."""
    mark = re.search(r":(?!//|\d)|=", line.text)
    if mark is not None:
        name, value = line.text[: mark.start()].strip(), line.text[mark.end() :].strip()
    elif ending := _VALUE.search(line.text):
        name, value = line.text[: ending.start()].strip(" .#-"), ending[0].strip()
    else:
        return None
    return (name, Value(value, (line,))) if value and re.search(r"[^\W\d]{2}", name) else None


def _below(line: TextTrack, page: Sequence[Row]) -> TextTrack | None:
    """What stands right below a line, at one of its edges; `page`: the next row, if any."""
    for other in page[0] if page else ():
        near = other.y - (line.y + line.h) <= 1.5 * line.h
        if near and (abs(line.x - other.x) < 0.015 or abs(line.x + line.w - other.x - other.w) < 0.015):
            return other
    return None


def look_up(lines: Sequence[TextTrack], wanted: Terms, kind: str | None = None) -> Value | None:
    """The value that stands with a label, or where a row and a column meet.

    Args:
        lines: of one page.
        wanted: terms of the label, or of row and column together.
        kind: what the value must look like (of KINDS).
    """
    labelled = [
        (label(name), value, beside) for name, value, beside in pairs(lines) if fits(value.text, kind)
    ]
    for name in called(wanted):
        for same_row in (True, False):
            found = _only(value for told, value, beside in labelled if told == name and beside is same_row)
            if found is not None:
                return found
    found = cell(lines, wanted, kind)
    names = called(wanted)
    return found or _only(
        value
        for told, value, _ in labelled
        if any(name < told and len(told) == len(name) + 1 for name in names)
    )


def fits(text: str, kind: str | None) -> bool:
    """Whether a value looks like its kind; money may be a plain number."""
    plain = kind in ("money", "percent") and re.fullmatch(rf"-? ?{_NUMBER}", text.strip()) is not None
    return kind is None or plain or KINDS[kind].search(text) is not None


def cell(lines: Sequence[TextTrack], wanted: Terms, kind: str | None = None) -> Value | None:
    """Where a row and a column meet whose heads hold all the wanted terms between them, each at least one of its own."""
    page = rows(lines)
    found: list[tuple[int, Value]] = []
    for n, head in enumerate(page):
        for top in head if len(head) > 1 else ():
            columns = [name for name in _parts(wanted) if label(top.text) in called(name)]
            above = frozenset().union(*(label(text_of(row)) for row in page[:n]))  # what the table is about
            for row in page[n + 1 :] if columns else ():
                met = next((line for line in row if _overlap(top, line) > 0.5), None)
                for side in row:
                    named = label(side.text)
                    rest = [
                        wanted - column
                        for column in columns
                        if wanted - column <= named | above and (wanted - column) & named
                    ]
                    if rest and met is not None and met is not side and fits(met.text, kind):
                        found.append((len(named - rest[0]), Value(met.text, (top, side, met))))
    least = min((extra for extra, _ in found), default=0)
    return _only(value for extra, value in found if extra == least)


def extreme(lines: Sequence[TextTrack], wanted: Terms, largest: bool) -> Value | None:
    """The head of the row with the largest, or least, number of the column that is asked for; None where several have it."""
    page = rows(lines)
    found = []
    for n, head in enumerate(page):
        known = frozenset().union(*(label(text_of(row)) for row in page[: n + 1]))
        for top in head[1:]:  # the first column names the rows
            if any(
                label(top.text) in called(part) and wanted - part <= known
                for part in (*_parts(wanted), wanted)
            ):
                column = sorted(
                    _column(top, head[0], page[n + 1 :]), key=lambda entry: entry[0], reverse=largest
                )
                if len(column) > 1 and column[0][0] != column[1][0]:
                    found.append(Value(column[0][1].text, (top, column[0][1], column[0][2])))
    return _only(found)


def _column(
    top: TextTrack, first: TextTrack, page: Sequence[Row]
) -> Iterator[tuple[float, TextTrack, TextTrack]]:
    """The numbers below a head, each with the head of its row, until the table ends."""
    for row in page:
        met = next((line for line in row[1:] if _overlap(top, line) > 0.5), None)
        value = number(met.text) if met is not None else None
        if met is None or value is None or abs(row[0].x - first.x) > 0.05:
            return
        yield value, row[0], met


def number(text: str) -> float | None:
    """The number that a cell holds, with a unit of a few letters or without: "$1,299.00", "12 %", "1.299,5"."""
    found = re.fullmatch(rf"(?:[^\w-]{{0,2}}|[A-Z]{{3}} ?)(-?{_NUMBER})\s?\D{{0,4}}", text.strip())
    if found is None:
        return None
    digits = found[1].rstrip(".,'").replace("'", "")
    point = max(digits.rfind("."), digits.rfind(","))
    grouped = len(digits) - point == 4 and len(set(digits) & {".", ","}) == 1  # "1,299", not "1.299,000"
    whole = digits if point < 0 or grouped else digits[:point]
    return float(re.sub("[.,]", "", whole) + digits[len(whole) :].replace(",", "."))


def _parts(wanted: Terms) -> Iterator[Terms]:
    """Every part of the wanted terms that a column may be called by, short questions only."""
    several = sorted(wanted)[:6]
    for size in range(1, len(several)):
        yield from (frozenset(part) for part in itertools.combinations(several, size))


def _overlap(one: TextTrack, other: TextTrack) -> float:
    """Share of the narrower line's width that lies above or below the other."""
    return (min(one.x + one.w, other.x + other.w) - max(one.x, other.x)) / max(1e-6, min(one.w, other.w))


def _only(found: Iterable[Value]) -> Value | None:
    """The one value, where all say the same; None where they differ: a page with two totals tells no total."""
    several = list(found)
    return several[0] if several and len({value.text.casefold() for value in several}) == 1 else None


# --- lists, terminals and code ------------------------------------------------------------------------------------

_POINT = re.compile(
    r"^\s*(?:[•·∙▪◦‣●○■□➢✓✔*»]\s*(?=\S)|[-–—](?=\s|[^\W\d])\s*|\(?\d{1,2}[.)]\s*(?=[^\W\d])|\(?[a-h]\)\s*(?=\S))"
)
_PROMPT = re.compile(
    r"^(?:[\w.-]+@[\w.-]+\S*\s?[$#%]|[$%❯➜]|>>>|PS [A-Z]:[^>]*>|[A-Z]:\\[^>]*>)\s*(?=[A-Za-z./~_])(.*)$"
)
_CODE = re.compile(
    r"[{};]\s*$|^\s*(?:def|class|import|from|return|elif|else|while|const|let|var|function|public|private|package|func|fn|#include)\b|"
    r"[=!<>+-]=|\w\(.*\)|=>|->|^\s*(?:if|for)\b.*[:{]\s*$|^\s*(?://|/\*)"
)
_WRONG = re.compile(
    r"\b(?:error|exception|traceback|failed|failure|fatal|panic|denied|not found|cannot|undefined)\b|\w(?:Error|Exception)\b",
    re.IGNORECASE,
)


def points(lines: Sequence[TextTrack]) -> list[Row]:
    """The rows that begin with the mark of a list: a bullet, a dash, a number."""
    return [row for row in rows(lines) if _POINT.match(text_of(row)) and len(text_of(row)) > 2]


def commands(lines: Sequence[TextTrack]) -> list[tuple[str, Row, list[Row]]]:
    """What was typed at the prompts of a terminal: the command, its row, and the rows of its output."""
    found: list[tuple[str, Row, list[Row]]] = []
    for row in rows(lines):
        if prompt := _PROMPT.match(text_of(row)):
            found.append((prompt[1].strip(), row, []))
        elif found:
            found[-1][2].append(row)
    return found


def coded(lines: Sequence[TextTrack]) -> bool:
    """Whether a page looks like source code."""
    page = rows(lines)
    hits = sum(_CODE.search(text_of(row)) is not None for row in page)
    return hits >= 2 and 3 * hits >= len(page)


def wrongs(lines: Sequence[TextTrack]) -> list[Row]:
    """The rows that tell of an error; where some name one, those alone."""
    found = [row for row in rows(lines) if _WRONG.search(text_of(row))]
    return [row for row in found if re.search(r"error|exception", text_of(row), re.IGNORECASE)] or found
