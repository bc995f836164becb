"""What the timeline itself tells about a question: text found, things counted, times named. Pure; no model is asked.

`find` tries one rule after the other. A rule gives a `Finding`, or None where the question is not its business. What no
rule can answer from evidence is refused: a wrong answer costs more than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from streamsvc.answers.rules import order, passages, positions, screen_text, sights, slides, speech, summary
from streamsvc.answers.rules.finding import Finding, counted_words, quote_of, refusal, timestamp
from streamsvc.answers.rules.parse import NOW, Ask, parse, thing_in
from streamsvc.answers.rules.visual_questions import FEELING, IDENTITY, LOOK, SOUND
from streamsvc.core.types import Evidence
from streamsvc.timeline.text import QUESTION_WORDS, stem, stems, terms
from streamsvc.timeline.timeline import Timeline

_COLOURS = stems(
    "red blue green yellow orange purple pink brown grey gray golden silver white black crimson scarlet violet"
)
_MOVES = stems(
    "come disappear go long stay enter vanish leave time stop start end arrive"
)  # what a thing of a picture may do, beside being seen
_COMING = stems("come enter arrive")
_SUMMING = stems(
    "summarize summary topic subject main point idea gist story far happen give short miss have talk everything go all brief begin"
)
_MOVING = re.compile(
    r"(?:who(?: or what)?|what)(?: (?:is|was|are|were))? (walk|pass|cross|mov|go|com|driv|fl)\w* (?:through|across|over|by|past|in|into|around)(?: to)? (?:the |this )?"
    r"(?:picture|image|frame|video|screen|scene|view|shot)\b"
)
_MENTION = re.compile(
    r"\b(mention\w*|said|say|says|named|talk\w* (?:about|of)|sp(?:oke|eak|oken) (?:about|of)|refer\w* to|discuss\w*|come up|came up|contain|"
    r"hear(?:d)? (?:the )?(?:words?|term|name|phrase)|use the (?:words?|term|phrase)|(?:words?|term|phrase)\b.* (?:used|heard|uttered|occur\w*)|"
    r"in the (?:story|speech|text|talk|lecture|tale))\b"
)
_MENTIONING = stems("far come use contain refer discuss story tale word term ever at point hear utter occur")
_GONE = re.compile(
    r"\b(end|ended|stop|stopped|disappear\w*|vanish\w*|go away|went away|removed|gone)(?: from (?:the )?screen)?$"
)
_SEEN_PERSON = re.compile(
    r"\b(person|face|picture|image|speaker|reader|narrator|presenter|people|somebody|audience)\b"
)


def find(ask: Ask, timeline: Timeline, now: float) -> Finding:
    """The best supported answer to a question, or a refusal.

    Args:
        ask: the parsed question.
        timeline: what is known.
        now: session seconds at which it is asked.
    """
    if timeline.empty:
        return Finding(("I have not seen or heard anything yet.",), (), supported=False)
    if not terms(ask.text) and not ask.words:
        return refusal()
    if (
        ask.times
        and min(ask.times) > now + 1.0
        and not ask.quoted
        and (ask.seen or ask.spoken or ask.on_screen)
    ):
        return refusal()  # nobody knows what will be
    for rule in RULES:
        found = rule(ask, timeline, now)
        if found is not None:
            return found
    return refusal()


def _unseeable(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Colours, clothes, music, feelings, who somebody is: no model here sees or hears them; only a text may tell."""
    quoted_talk = bool(
        re.search(
            r"\b(mention\w*|said|say|says|talk(?:ed)? about|spoke of|speak of|according to|describe[sd]?|named?)\b",
            ask.text,
        )
    )
    if IDENTITY.search(ask.text):
        return refusal()
    if SOUND.search(ask.text):
        return None if quoted_talk else refusal()
    if LOOK.search(ask.text):
        if quoted_talk:
            return None
        found = passages.extract(
            ask, timeline, now, need=_COLOURS if re.search("colou?r", ask.text) else None, strict=True
        )
        return found if found is not None and not ask.seen and ask.form == "open" else refusal()
    if FEELING.search(ask.text) and _SEEN_PERSON.search(ask.text) and not quoted_talk:
        return refusal()
    return None


def _while(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What was shown while something was said, and the other way round."""
    cut = re.match(
        r"(what|which \w+|what \w+)\b(.*?)\b(?:while|when|as|during|at the (?:time|moment))\b(.*)", ask.text
    )
    if cut is None or not re.search(
        r"\b(shown|visible|seen|see|on screen|on the screen|displayed|picture|slide|shows?|said|say|talk\w*|spok\w*|speak\w*)\b",
        cut[2] + cut[1],
    ):
        return None
    first, second = cut[1] + cut[2], cut[3]
    if re.search(r"\b(shown|visible|seen|see|screen|displayed|picture|slide|shows?)\b", first):
        if not re.search(
            r"\b(sa(?:y|id|ys|ying)|sp[eo]\w+|talk\w*|mention\w*|words?|read\w*|phrase|tell\w*|told)\b",
            second,
        ):
            return None
        place = passages.locate(parse(second), timeline)
        if place is None:
            return refusal()
        shown = sights.at(timeline, (place.start + place.end) / 2)
        if shown is None:
            return refusal()
        return Finding(shown.clauses, (*shown.evidence[:1], place))
    span = _span_of(second, timeline, now)
    return speech.said_between(timeline, *span) if span is not None else None


def _span_of(phrase: str, timeline: Timeline, now: float) -> tuple[float, float] | None:
    """When a thing, or a slide, was shown."""
    ask = parse(phrase)
    screen = slides.screen_for(ask, timeline) if ask.on_screen else None
    if screen is not None:
        return screen.start, timeline.end_of(screen)
    found = ask.thing
    if found is not None and not found[1]:
        spans = sights.appearances(timeline, found[0])
        if spans:
            return spans[0].start, spans[0].end
    return None


def _when(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """At what time something was shown or said, began or ended; how long it lasted."""
    if ask.form not in ("when", "how long"):
        return None
    long = ask.form == "how long"
    span: Evidence | None = None
    ends = bool(
        re.search(
            r"\b(end|ended|stop\w*|finish\w*|disappear\w*|vanish\w*|conclude\w*|go away|went away|removed|leave|left)\b",
            ask.text,
        )
    )
    talk = re.search(
        r"\b(speech|talk|talking|speaker|reader|reading|speaking|narrator|somebody|someone|anybody|anyone|person)\b",
        ask.text,
    )
    if (
        talk
        and re.search(
            r"\b(begin|began|begun|start\w*|end|ended|stop\w*|finish\w*|first (?:speak|talk|say)|last)\b",
            ask.text,
        )
        and not [t for t in ask.about if t not in ("begin", "end", "talk", "person")]
    ):
        chosen = speech.nth(ask, timeline)
        if chosen is None:
            return refusal()
        span = Evidence(chosen[0].start, chosen[-1].end, "speech", quote_of(chosen[0].text, 12))
    elif not ask.spoken and (ask.on_screen or ask.quoted):
        span = screen_text.locate(ask, timeline)
        if span is None and not (ask.on_screen or ask.seen or long):
            span = passages.locate(ask, timeline)
    elif ask.spoken:
        span = passages.locate(ask, timeline, nth=ask.ordinal or 1)
        if span is None and re.search(r"\bmention", ask.text):
            span = screen_text.locate(ask, timeline)
        if long:
            return refusal()
    elif re.search(r"\b(black|blank|empty|dark)\b", ask.text) and (
        ask.seen or "go" in ask.about or "screen" in ask.text
    ):
        span = sights.pick(sights.blanks(timeline), ask.ordinal)
    elif ask.thing is not None and set(map(stem, ask.thing[1])) <= _MOVES:
        span = sights.pick(sights.appearances(timeline, ask.thing[0]), ask.ordinal)
        if span is None and not ask.seen:
            span = passages.locate(ask, timeline)
    elif ask.seen and ask.thing is None:
        span = screen_text.locate(ask, timeline)
        if span is None and not long and not re.search(r"\b(shown|picture|image|camera)\b", ask.text):
            span = passages.locate(ask, timeline)
    elif ask.thing is None or not ask.seen:
        span = None if long else passages.locate(ask, timeline)
    if span is None:
        return refusal()
    if long:
        return Finding(
            (f"{span.end - span.start:.0f} s, ", f"from {timestamp(span.start)} to {timestamp(span.end)}."),
            (span,),
        )
    if span.kind == "screen":  # a title may hold such words
        ends = ends and _GONE.search(ask.text) is not None
    if (
        ends
        and span.end >= timeline.latest
        and (timeline.text_tracks.shown if span.kind == "screen" else span.kind == "sight")
    ):
        return refusal()  # it is still shown
    when = span.end if ends else span.start
    if ends:
        span = Evidence(when, when, span.kind, span.quote, span.frame)
    return Finding((f"At {timestamp(when)} ({when:.1f} s).",), (span,))


def _how_many(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Slides, times, things in the picture, stretches of talk; a number that was said."""
    if ask.form != "how many":
        return None
    if re.search(r"\b(slides|pages|screens)\b", ask.text):
        return slides.count_screens(ask, timeline)
    if re.search(r"\b(times|often)\b", ask.text):
        if ask.spoken:
            hits = passages.mentions(ask, timeline)
            return _times(hits)
        if ask.thing is None or ask.thing[1]:
            return refusal()
        spans = sights.appearances(timeline, ask.thing[0])
        return _times(spans)
    if re.search(r"\b(speeches|talks|stretches of (?:talk|speech))\b", ask.text):
        heard = timeline.talks
        told = tuple(Evidence(of[0].start, of[-1].end, "speech", quote_of(of[0].text, 8)) for of in heard[:6])
        return Finding((f"{len(heard)} so far.",), told) if heard else refusal()
    if ask.thing is not None and (not ask.thing[1] or ask.seen):
        return (
            refusal()
            if ask.thing[1]
            else sights.count(
                timeline,
                ask.thing[0],
                now,
                ask.now or not re.search(r"\b(was|were|have|has|had)\b", ask.text),
            )
            or refusal()
        )
    return (
        refusal()
        if ask.seen
        else passages.extract(ask, timeline, now, numbers=True, strict=True) or refusal()
    )


def _times(spans: Sequence[Evidence]) -> Finding:
    if not spans:
        return refusal()
    told = f"{counted_words(len(spans))}, ", f"first at {timestamp(spans[0].start)}."
    return Finding(told, tuple(spans[:3]), values=(str(len(spans)),))


def _mentioned(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Was something said, or written on a slide."""
    if ask.form != "yes/no" or not _MENTION.search(ask.text):
        return None
    if not ask.quoted and re.search(
        r"\b(say|says|said|mention\w*|talk\w* about|discuss\w*) (?:that|how|why|whether|what|where) ",
        ask.text,
    ):
        return None  # "did he say that ...": a claim, not a word
    wanted = [
        t for t in (terms(ask.quoted) if ask.quoted else ask.about) if ask.quoted or t not in _MENTIONING
    ]
    if not wanted:
        return None
    hits = passages.mentions(ask, timeline, wanted)
    if hits:
        return Finding(
            (f"Yes, at {timestamp(hits[0].start)}: ", f'"{quote_of(hits[0].quote, 28)}"'), (hits[0],)
        )
    if not timeline.sentences and not timeline.screens:
        return refusal()
    if any(gap.end - gap.start > 1.0 for gap in timeline.gaps) or timeline.dropped["sentences"]:
        return refusal()
    if not ask.quoted and passages.mentions(ask, timeline, wanted[-1:]):
        return refusal()  # the thing itself is told of, in other words than these
    name = ask.quoted or " ".join(w for w in ask.words if stem(w) in wanted)
    return Finding(
        (f"No, nothing said or written so far mentions {name}.",),
        (Evidence(0.0, now, "timeline", f"no mention of {name}"),),
    )


def _shown_or_not(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Has something been shown; is it there now."""
    there = re.match(r"(?:is|are|was|were|has|have) there\b", ask.text)
    if (
        ask.form != "yes/no"
        or not (ask.seen or there or re.search(r"\b(black|blank|empty)\b", ask.text))
        or ask.quoted
    ):
        return None
    if re.search(r"\b(slide|title|headline|text|written)\b", ask.text):
        return sights.text_shown(ask, timeline, now)
    present = bool(re.match(r"(?:is|are|can|do|does) ", ask.text)) or ask.now
    if re.search(r"\b(anything|something|nothing)\b", ask.text) and not ask.about:
        return sights.anything(timeline, now)
    if re.search(r"\b(black|blank|empty|dark)\b", ask.text) and ask.thing is None:
        return sights.is_blank(ask, timeline, now, present)
    if ask.thing is None and re.search(r"\bon (?:the )?screen\b", ask.text) and not ask.spoken:
        return sights.text_shown(ask, timeline, now)
    if ask.thing is None:
        return refusal() if ask.seen and not _human_sees(ask) else None
    phrase, others = ask.thing
    if _human_sees(ask):
        return None
    if set(map(stem, others)) - _COMING:
        return refusal() if ask.seen else None
    if present:
        spoken_times = speech.stretch(ask, now) if ask.times or ask.ago is not None else None
        return (
            sights.there_now(timeline, phrase, now)
            if spoken_times is None
            else sights.there_between(timeline, phrase, *spoken_times)
        )
    spoken_times = (
        speech.stretch(ask, now) if ask.times or ask.ago is not None or ask.last is not None else None
    )
    return sights.there_between(timeline, phrase, *(spoken_times or (0.0, now)))


def _human_sees(ask: Ask) -> bool:
    """As in "Had the king ever seen the spirit": somebody in the story sees, not we."""
    return bool(
        re.match(
            r"(?:did|had|has|have|does|could|can|do) (?!you\b|we\b|i\b|one\b|there\b|it\b|viewers?\b)(?:(?:the|a|an|his|her|their) )?[\w'-]+ (?:\w+ )?(?:see|seen|saw|shown?|look\w*)\b",
            ask.text,
        )
    ) and not re.search(
        r"\bbe(?:en)? (?:\w+ )?(?:shown|seen|visible|displayed)|\bshow(?:ed|n|s)? up\b", ask.text
    )


def _shown(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What is shown, now or at a time; what animal, drink, vehicle was shown."""
    if ask.form != "open" or not (ask.seen or ask.now) or (ask.spoken and ask.about):
        return None
    if not re.match(r"(?:what|which|describe|who|list)\b", ask.text) or re.match(
        r"(?:what|which).*\b(?:he|she|they)\b.*\b(?:see|saw|seen|shown)\b", ask.text
    ):
        return None
    asked_kind = re.match(
        r"(?:what|which) (?:kind of |sort of |type of )?([a-z]+) (?:is|are|was|were|has|have|can|could|do|did|appear\w*)\b",
        ask.text,
    )
    place = re.search(r"\b(?:on|in|at|along|under|above) (?:the|a) ([a-z]+)(?: now)?$", ask.text)
    rest = [
        t
        for t in ask.about
        if t
        not in (
            "describ",
            "list",
            "far",
            "exact",
            "els",
            "happen",
            "go",
            "right",
            "present",
            "current",
            "moment",
            "far",
        )
    ]
    if (moving := _MOVING.match(ask.text)) is not None:
        return sights.movers(timeline, stem(moving[1]))
    if place is not None and stem(place[1]) in rest:
        return sights.at_place(timeline, place[1], now) if len(rest) == 1 else refusal()
    if asked_kind is not None and stem(asked_kind[1]) not in QUESTION_WORDS:
        others = [t for t in rest if t != stem(asked_kind[1])]
        return (
            refusal()
            if others
            else sights.of_kind(
                timeline,
                asked_kind[1],
                now,
                present=bool(re.search(r"\b(is|are)\b", ask.text)) or ask.now,
                nth=ask.ordinal,
            )
        )
    if rest:
        return (
            None
            if ask.thing is None and not re.search(r"\b(picture|image|video|photo|camera)\b", ask.text)
            else refusal()
        )
    if ask.times or ask.ago is not None:
        start, end = speech.stretch(ask, now)
        return sights.at(timeline, (start + end) / 2) or refusal()
    if ask.ordinal is not None:
        return sights.nth(timeline, ask.ordinal) or refusal()
    if re.search(r"\b(so far|has been|have been|until now|have you seen|all|everything)\b", ask.text):
        return sights.so_far(timeline, now) or refusal()
    return sights.at(timeline, now, now=True) or refusal()


def _summary(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What it is all about: the slides' titles, else how the talk begins, and what is shown."""
    if not re.match(
        r"(?:summar\w+|give .*summary|what (?:is|was|are|were|s) (?:this|it|the (?:talk|video|lecture|story|stream|speech|topic|subject|presentation|main \w+)|that)\b.*|what(?:'s| has| is| did) .*happen\w*.*|tl ?dr|what have i missed|what did i miss).*",
        ask.text,
    ):
        return None
    if set(ask.about) - _SUMMING:
        return None
    titles = [
        screen
        for index, screen in enumerate(timeline.screens)
        if screen.title and screen.title not in [s.title for s in timeline.screens[:index]]
    ]
    if titles:
        told, used = [], 4
        for screen in titles:
            if used + len((screen.title or "").split()) > 36:
                break
            used += len((screen.title or "").split())
            told.append(screen)
        return Finding(
            ("The slides so far: ", "; ".join(f'"{s.title}"' for s in told) + "."),
            tuple(slides.as_evidence(s, timeline) for s in told),
            values=tuple(s.title or "" for s in told),
        )
    if timeline.sentences:
        first = timeline.sentences[0]
        return Finding(
            (f"It begins at {timestamp(first.start)}: ", f'"{quote_of(first.text, 28)}"'), (first.evidence(),)
        )
    return sights.so_far(timeline, now)


def _yes_no(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """A claim about what was told: only where one line holds all of it, near together."""
    return (passages.claim(ask, timeline) or refusal()) if ask.form == "yes/no" else None


def _open(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Anything else: the line that holds the question's words."""
    if NOW.search(ask.text) and not ask.about:
        return None
    if thing_in(ask.text) is not None and re.search(r"\b(picture|image|photo|camera)\b", ask.text):
        return None
    return passages.extract(ask, timeline, now)


RULES: Sequence[Callable[[Ask, Timeline, float], Finding | None]] = (
    speech.addressed,
    _unseeable,
    screen_text.read,
    speech.beside,
    positions.placed,
    speech.activity,
    _while,
    order.came,
    _when,
    _how_many,
    _mentioned,
    screen_text.written,
    _shown_or_not,
    summary.recap,
    speech.talked,
    _summary,
    _shown,
    _yes_no,
    _open,
)
__all__ = ["Finding", "find"]
