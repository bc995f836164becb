"""How often, when, and whether something was said, written or shown; and how long things lasted. Pure."""

from __future__ import annotations

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.matching import holds_any, is_complete, mentions
from streamsvc.answers.tools.screen import as_evidence, name_of, slide_with
from streamsvc.answers.tools.sights import appearances, seen_between, surely_absent
from streamsvc.answers.tools.speech import is_speaking, nth_talk
from streamsvc.answers.tools.wording import duration, lasted, nth, repeated, sentence
from streamsvc.core.types import Evidence
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels

QUOTED = 26  # words of a line that holds what is asked for


def occurrences(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """When, how often, or whether a label was shown or a text was said or written; `form` says which."""
    spans = found_spans(timeline, arguments, now)
    if not spans:
        return _never(timeline, arguments, now)
    if arguments.form in ("how often", "list"):
        return repeated(spans)
    if arguments.form == "how long":
        chosen = nth(spans, arguments.ordinal or -1)
        return lasted(chosen, now) if chosen is not None else None
    chosen = nth(spans, arguments.ordinal)
    if chosen is None:
        return None
    verdict = "Yes, " if arguments.form == "yes/no" else ""
    if arguments.label and chosen.kind == "speech":
        verdict += "mentioned "  # it has not been seen
    return Finding(sentence(f"{verdict}{_told(chosen, timeline)}"), (chosen,), (timestamp(chosen.start),))


def found_spans(timeline: Timeline, arguments: Arguments, now: float) -> list[Evidence]:
    """When a label was shown, else when a text was said or written, by time; only those in the span."""
    spans = appearances(timeline, arguments.label) if arguments.label else []
    if not spans and arguments.text:
        spans = _titled(timeline, arguments.text) or mentions(timeline, arguments.text)
    start, end = arguments.span if arguments.span and arguments.span[0] < arguments.span[1] else (0.0, now)
    return [span for span in spans if span.start <= end and span.end >= start]


def _titled(timeline: Timeline, text: str) -> list[Evidence]:
    """The slides whose title is the text itself."""
    return [
        as_evidence(screen, timeline)
        for screen in timeline.screens
        if screen.title and screen.title.casefold().strip() == text.casefold().strip()
    ]


def _told(span: Evidence, timeline: Timeline) -> str:
    """As in "at 1:15: "...""; of a picture until when too."""
    if span.kind == "sight":
        if span.end >= timeline.latest:
            return f"at {timestamp(span.start)}, and it is still shown"
        return f"at {timestamp(span.start)}, until {timestamp(span.end)}"
    return f'at {timestamp(span.start)}: "{quoted(span.quote, QUOTED)}"'


def _never(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """That something never came: only where all is known, and nothing like it was met."""
    if arguments.form not in ("yes/no", "how often"):
        return None
    verdict = "No, " if arguments.form == "yes/no" else "0: "
    start, end = arguments.span or (0.0, now)
    if arguments.label:
        items = seen_between(timeline, (start, end) if end > start else (0.0, end))
        if timeline.dropped["shown"] or not surely_absent(items, arguments.label):
            return None
        text = f"I have seen no {labels.singular(arguments.label)}"
    else:
        text = f'I have not heard or read "{quoted(arguments.text, 8)}"'
        is_known = bool(timeline.sentences or timeline.screens) and is_complete(timeline)
        if not arguments.text or not is_known or holds_any(timeline, arguments.text):
            return None
    return Finding(sentence(verdict + text), (Evidence(start, end, "timeline", text),), ("0",))


# --- durations ---


def clock(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """How long something was shown, or has been; unnamed: the stream, its slide or picture, and talk."""
    if arguments.label or arguments.text:
        screen = slide_with(timeline, arguments.text, now) if arguments.text else None
        if screen is not None and not arguments.label:
            return lasted(as_evidence(screen, timeline), now)
        spans = [span for span in found_spans(timeline, arguments, now) if span.kind != "speech"]
        chosen = nth(spans, arguments.ordinal or -1)
        if chosen is not None:
            return lasted(chosen, now)
        if arguments.label or holds_any(timeline, arguments.text):
            return None
    if arguments.ordinal is not None:
        talk = nth_talk(timeline, arguments.ordinal)
        span = Evidence(talk[0].start, talk[-1].end, "speech", quoted(talk[0].text, 12)) if talk else None
        return lasted(span, now) if span is not None else None
    return _running(timeline, now)


def _running(timeline: Timeline, now: float) -> Finding:
    """How long the stream has run, what is shown and somebody speaks, each named."""
    told = [f"the stream has run for {duration(now)}"]
    spans = [Evidence(0.0, now, "timeline", f"the session began {duration(now)} ago")]
    screen, item = timeline.screen_at(now), timeline.at(now)
    if screen is not None:
        shown = duration(now - screen.start)
        told.append(f'"{quoted(name_of(screen), 8)}" has been on the screen for {shown}')
        spans.append(as_evidence(screen, timeline))
    elif item is not None and item.sight is not None:
        told.append(f"this picture has been shown for {duration(now - item.start)}")
        spans.append(Evidence(item.start, now, "sight", "the picture shown now", item.start))
    if timeline.talks and is_speaking(timeline, now):
        talk = timeline.talks[-1]
        told.append(f"somebody has been speaking for {duration(now - talk[0].start)}")
        spans.append(Evidence(talk[0].start, talk[-1].end, "speech", quoted(talk[0].text, 12)))
    return Finding(sentence("; ".join(told)), tuple(spans), (duration(now),))
