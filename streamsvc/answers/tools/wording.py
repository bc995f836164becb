"""How the tools put what they found into a few plain words. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from streamsvc.answers.finding import Finding, timestamp
from streamsvc.core.types import Evidence

_BULLETS = "\u2022\u00b7\u2219\u25aa\u25e6\u25cf\u25cb * -"


def words_in(text: str) -> int:
    """The number of words in a text, as people count them: "1:15" and "by-law" are two."""
    return len(re.findall(r"[^\W_]+", re.sub(r"['\u2019]", "", text)))


def sentence(text: str) -> str:
    """A text with a capital letter and a full stop."""
    text = text.strip()
    ending = "" if text[-1:] in ".!?\u2026" or text[-2:] in ('."', '!"', '?"', '\u2026"') else "."
    return f"{text[:1].upper()}{text[1:]}{ending}"


def listed(parts: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def fitting(parts: Iterable[str], most: int, separator: str = ", ") -> tuple[str, int]:
    """As many leading parts as `most` words allow, the first always; and how many those are."""
    text, count = "", 0
    for part in parts:
        longer = f"{text}{separator}{part}" if count else part
        if count and words_in(longer) > most:
            break
        text, count = longer, count + 1
    return text, count


def contents(lines: Iterable[str], most: int) -> str:
    """Lines of a screen, as far as whole ones fit into `most` words; "" if the first does not."""
    plain = [line.lstrip(_BULLETS) for line in lines]
    text, _ = fitting(plain, most, " / ")
    return text if words_in(text) <= most else ""


def duration(seconds: float) -> str:
    """As in "1 second", "2 minutes 5 seconds", "1 hour 3 minutes"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    named = [(hours, "hour"), (minutes, "minute"), (rest, "second")]
    parts = [f"{value} {unit}{'' if value == 1 else 's'}" for value, unit in named if value]
    return " ".join(parts[:2]) or "0 seconds"


def times(count: int) -> str:
    """As in "once", "twice", "3 times"."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def moment(span: Evidence, addition: str = "") -> Finding:
    """A time as an answer: when the evidence begins."""
    return Finding(sentence(f"at {timestamp(span.start)}{addition}"), (span,), (timestamp(span.start),))


def lasted(span: Evidence, now: float) -> Finding:
    """How long something was shown or heard, or has been until now."""
    seconds = duration(span.end - span.start)
    if span.end >= now:
        text = f"{seconds} so far, since {timestamp(span.start)}"
    else:
        text = f"{seconds}, from {timestamp(span.start)} to {timestamp(span.end)}"
    return Finding(sentence(text), (span,), (seconds,))


def repeated(spans: Sequence[Evidence]) -> Finding:
    """How often something came, and when."""
    at, _ = fitting((timestamp(span.start) for span in spans), 24)
    return Finding(sentence(f"{times(len(spans))}, at {at}"), tuple(spans[:8]), (str(len(spans)),))


def nth(spans: Sequence[Evidence], ordinal: int | None) -> Evidence | None:
    """The n-th of some spans, the first by default; -1 is the last."""
    place = (ordinal or 1) - 1 if (ordinal or 1) > 0 else (ordinal or 1)
    return spans[place] if -len(spans) <= place < len(spans) else None
