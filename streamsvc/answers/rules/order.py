"""What came first, what came before or after something: pictures, slides and words, by their times. Pure."""

from __future__ import annotations

import re

from streamsvc.answers.rules import sights
from streamsvc.answers.rules.finding import Finding, refusal, timestamp
from streamsvc.answers.rules.parse import Ask, parse
from streamsvc.answers.rules.passages import locate
from streamsvc.answers.rules.slides import as_evidence, screen_for
from streamsvc.core.types import Evidence
from streamsvc.timeline.timeline import Timeline

_PAIRS = (
    re.compile(
        r"^(?:which|what|who)\b.*?\b(?P<order>first|earlier|before|later|last|second)\b.*?[,:] ?(?P<one>.+?) or (?P<two>.+)"
    ),
    re.compile(r"^(?:which|what)\b.*?\b(?P<order>first|earlier|later|last)\b (?P<one>.+?) or (?P<two>.+)"),
    re.compile(
        r"^(?:(?:did|do|does|was|is)\b.*?\b(?:mention|say|talk about|show|see|hear)|(?:was|is) it) (?P<one>.+?) or (?P<two>.+?),? "
        r"(?:(?:that|which|who) (?:\w+ ){0,3}?)?(?P<order>first|earlier|later|last)$"
    ),
    re.compile(
        r"^(?:did|do|does|was|were|is|has) (?P<one>.+?) (?:been )?(?:shown|seen|appear|come|mentioned|said)? ?before or after (?P<two>.+)"
    ),
)
_BOTH = re.compile(
    r"(?:was|were|did|is|has|does) (.+?) (?:been )?(?:shown|seen|appear\w*|come|came|mentioned|said|displayed|on screen|visible)? ?"
    r"(before|after|earlier than|later than) (.+)"
)
_BESIDE = re.compile(
    r"(?:what|which) (?:\w+ )?(?:(?:was|is|came|comes|appeared|has been|did you see|could be seen)\b.*?\b)?"
    r"(after|before|following|preceding|next to follow|followed|follows|preceded|precedes) (.+)"
)
_SAYS = re.compile(r"^(?:\w+ ){0,3}?(?:mention|say|talk about|speak of|show) ")


def came(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Which came first; was one before the other; what came after something."""
    asked = next((found for pattern in _PAIRS if (found := pattern.search(ask.text))), None)
    if asked:
        one, two = (_named(asked[name], timeline, ask) for name in ("one", "two"))
        if one is None or two is None or abs(one[1].start - two[1].start) < 0.3:
            return refusal()
        early, late = sorted((one, two), key=lambda item: item[1].start)
        if asked.groupdict().get("order") in ("later", "last", "second"):
            early, late = late, early
        return Finding(
            (
                f"The {early[0]}, at {timestamp(early[1].start)}; ",
                f"the {late[0]} came at {timestamp(late[1].start)}.",
            ),
            (early[1], late[1]),
        )
    both = _BOTH.match(ask.text)
    if both:
        one = _named(_SAYS.sub("", both[1]), timeline, ask)
        two = _named(re.sub(r"\b(was|were|did|appear\w*|shown|is|came)\b", "", both[3]), timeline, ask)
        if one is None or two is None or abs(one[1].start - two[1].start) < 0.3:
            return refusal()
        right = (one[1].start < two[1].start) == (both[2] in ("before", "earlier than"))
        return Finding(
            (
                f"{'Yes' if right else 'No'}, ",
                f"the {one[0]} came at {timestamp(one[1].start)}, the {two[0]} at {timestamp(two[1].start)}.",
            ),
            (one[1], two[1]),
        )
    next_to = _BESIDE.match(ask.text)
    if next_to and not ask.spoken:
        anchor = _named(
            re.sub(r"\b(was|were|is|shown|appeared|came|disappeared)\b", "", next_to[2]), timeline, ask
        )
        if anchor is None:
            return refusal()
        later = next_to[1] in ("after", "following", "followed", "follows")
        shown = sights.beside(timeline, anchor[1], later=later)
        return (
            refusal()
            if shown is None
            else Finding(
                (f"{shown.text.rstrip('.')}, ", f"from {timestamp(shown.evidence[0].start)}."), shown.evidence
            )
        )
    return None


def _named(phrase: str, timeline: Timeline, of: Ask) -> tuple[str, Evidence] | None:
    """When a thing was first shown, a slide first seen, or words first said; words only, where the question is about what was said."""
    phrase = re.sub(
        r"^[ ,]*(?:the|a|an)\b|\b(?:picture|photo|image|clip|shown|first|slide|appear\w*)\b", " ", phrase
    )
    quoted = '"' in phrase
    phrase = phrase.strip(' ,"')
    ask = parse(f'"{phrase}"' if quoted and '"' not in phrase else phrase)
    found, told = ask.thing, of.spoken and not of.seen and not of.on_screen
    if found is not None and not found[1] and not told:
        spans = sights.appearances(timeline, found[0])
        if spans:
            return found[0], spans[0]
    screen = None if told else screen_for(ask, timeline)
    if screen is not None:
        return f'slide "{screen.title or screen.lines[0]}"', as_evidence(screen, timeline)
    place = locate(ask, timeline)
    return (f'word "{phrase}"', place) if place is not None and len(phrase.split()) <= 6 else None
