"""What the time line itself tells about a question: text found, things counted, times named. Pure; no model is asked.

`find` tries one rule after the other. A rule gives a `Finding`, or None where the question is not its business. What no
rule can answer from evidence is refused: a wrong answer costs more than none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from streamsvc import looks, notes, pages, passages, places
from streamsvc.context import Screen, Timeline
from streamsvc.passages import Finding, clock, counted_words, quote_of, refusal
from streamsvc.questions import META, NOW, Ask, parse, thing_in
from streamsvc.types import Evidence
from streamsvc.words import stem, terms

SOUND = re.compile(
    r"\b(music|song|songs|melod\w+|tune|instruments?|applause|clapping|noises?|noisy|loud|background sounds?|accent|barking|sirens?|ringing)\b|\b(?:what|which|any) sounds?\b|\bsounds? like\b|"
    r"\b(?:tone|pitch|gender) of\b|\b(?:voice|speaker|reader|narrator)\b.*\b(?:male|female|young|old|deep|calm|man|woman|sad|happy|angry|friendly|nervous|excited)\b|"
    r"\b(?:man|woman|male|female|child|girl|boy)\b.*\b(?:speaking|talking|reading)\b"
)
IDENTITY = re.compile(
    r"^(?:who|whom|whose) (?:is|was|are|were|do|did|can|has) ?(?:(?:the|this|that|these|those|we|you|i) ?)?(?:\w+ ){0,2}?(?:speaking|talking|reading|shown|visible|seen|see|speaker|reader|narrator|person|man|woman|voice|"
    r"persons|people|in the (?:picture|image|video|photo|scene)|on (?:the )?(?:screen|camera)|presenter|lecturer|it|this|that|singing|he|she)\b|^who (?:speaks|talks|reads|says|said this|sings)\b|whose voice"
)
LOOK = re.compile(
    r"\b(colou?rs?|colou?red|wear\w*|wore|dress(?:ed)?|cloth\w+|outfit|costume|hair\w*|beard|tall|heavy|weather|brand|logo|(?<!most )(?<!least )expensive|beautiful|pretty|ugly|bright\w*|blurry|resolution)\b"
)
FEELING = re.compile(
    r"\b(mood|emotions?|expression|smil\w+|laugh\w*|frown\w*|cry(?:ing)?|angry|sad|happy|bored|tired|nervous|excited|feel\w*|look like|how old|age)\b"
)
_COLOURS = frozenset(
    stem(w)
    for w in [
        "red",
        "blue",
        "green",
        "yellow",
        "orange",
        "purple",
        "pink",
        "brown",
        "grey",
        "gray",
        "golden",
        "silver",
        "white",
        "black",
        "crimson",
        "scarlet",
        "violet",
    ]
)
_GONE = re.compile(r"\b(end|ended|stop|stopped|disappear\w*|vanish\w*|go away|went away|removed|gone)(?: from (?:the )?screen)?$")
_SEEN_PERSON = re.compile(r"\b(person|face|picture|image|speaker|reader|narrator|presenter|people|somebody|audience)\b")


def find(text: str, timeline: Timeline, now: float) -> Finding:
    """The best supported answer to a question, or a refusal.

    Args:
        text: the question.
        timeline: what is known.
        now: session seconds at which it is asked.
    """
    ask = parse(text)
    if timeline.empty:
        return Finding(("I have not seen or heard anything yet.",), (), supported=False)
    if not terms(ask.text) and not ask.words:
        return refusal()
    for rule in RULES:
        found = rule(ask, timeline, now)
        if found is not None:
            return found
    return refusal()


def _unseeable(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Colours, clothes, music, feelings, who somebody is: no model here sees or hears them; only a text may tell."""
    quoted_talk = bool(
        re.search(r"\b(mention\w*|said|say|says|talk(?:ed)? about|spoke of|speak of|according to|describe[sd]?|named?)\b", ask.text)
    )
    if IDENTITY.search(ask.text):
        return refusal()
    if SOUND.search(ask.text):
        return None if quoted_talk else refusal()
    if LOOK.search(ask.text):
        if quoted_talk:
            return None
        found = passages.extract(ask, timeline, now, need=_COLOURS if re.search("colou?r", ask.text) else None, strict=True)
        return found if found is not None and not ask.seen and ask.form == "open" else refusal()
    if FEELING.search(ask.text) and _SEEN_PERSON.search(ask.text) and not quoted_talk:
        return refusal()
    return None


def _activity(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Did anybody speak, in a stretch of time or now; was it silent."""
    if (
        ask.form != "yes/no"
        or ask.quoted
        or not re.search(r"\b(spoke|speak\w*|spoken|talk\w*|said|say|speech|silen\w+|quiet|heard|words?)\b", ask.text)
    ):
        return None
    if [t for t in ask.about if t not in ("silent", "silenc", "quiet", "com", "during", "complet", "whol", "tim", "talk", "hear")]:
        return None
    quiet = bool(re.search(r"\b(silen\w+|quiet|nobody|no ?one)\b", ask.text))
    start, end = _stretch(ask, now)
    words = timeline.words_between(start, end)
    yes, no = ("No, ", "Yes, ") if quiet else ("Yes, ", "No, ")
    if words:
        first = Evidence(
            words[0].start, words[-1].end if len(words) < 30 else words[29].end, "speech", " ".join(w.text for w in words[:20])
        )
        return Finding((f"{yes}at {clock(words[0].start)}: ", f'"{quote_of(first.quote, 20)}"'), (first,))
    lost = start < timeline.thin or any(gap.start < end and gap.end > start for gap in timeline.gaps)
    if lost or end > max(now, timeline.latest) + 1.0 or _active(timeline, start, end) > 1.0:
        return refusal()
    said = "nobody speaks now." if ask.now else f"nobody spoke between {clock(start)} and {clock(end)}."
    return Finding((no + said,), (Evidence(start, end, "timeline", f"no speech from {clock(start)} to {clock(end)}"),))


def _active(timeline: Timeline, start: float, end: float) -> float:
    """Seconds between two times in which somebody spoke by voice activity."""
    total, since = 0.0, None
    for speech in timeline.speeches:
        if speech.active:
            since = speech.at
        elif since is not None:
            total += max(0.0, min(end, speech.at) - max(start, since))
            since = None
    return total + (max(0.0, end - max(start, since)) if since is not None else 0.0)


def _stretch(ask: Ask, now: float) -> tuple[float, float]:
    if len(ask.times) >= 2:
        return min(ask.times[:2]), max(ask.times[:2])
    if len(ask.times) == 1:
        when = ask.times[0]
        if re.search(r"\b(before|until|by)\b", ask.text):
            return 0.0, when
        return (when, now) if re.search(r"\b(after|since)\b", ask.text) else (max(0.0, when - 1.0), when + 1.0)
    if ask.last is not None:
        return max(0.0, now - ask.last), now
    if ask.ago is not None:
        return max(0.0, now - ask.ago - 1.0), max(0.0, now - ask.ago + 1.0)
    return (max(0.0, now - 2.5), now) if ask.now or re.match(r"(?:is|are) ", ask.text) else (0.0, now)


def _while(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What was shown while something was said, and the other way round."""
    cut = re.match(r"(what|which \w+|what \w+)\b(.*?)\b(?:while|when|as|during|at the (?:time|moment))\b(.*)", ask.text)
    if cut is None or not re.search(
        r"\b(shown|visible|seen|see|on screen|on the screen|displayed|picture|slide|shows?|said|say|talk\w*|spok\w*|speak\w*)\b",
        cut[2] + cut[1],
    ):
        return None
    first, second = cut[1] + cut[2], cut[3]
    if re.search(r"\b(shown|visible|seen|see|screen|displayed|picture|slide|shows?)\b", first):
        if not re.search(r"\b(sa(?:y|id|ys|ying)|sp[eo]\w+|talk\w*|mention\w*|words?|read\w*|phrase|tell\w*|told)\b", second):
            return None
        place = passages.locate(parse(second), timeline)
        if place is None:
            return refusal()
        shown = looks.at(timeline, (place.start + place.end) / 2)
        if shown is None:
            return refusal()
        return Finding(shown.clauses, (*shown.evidence[:1], place))
    span = _span_of(second, timeline, now)
    return _said_between(timeline, *span) if span is not None else None


def _span_of(phrase: str, timeline: Timeline, now: float) -> tuple[float, float] | None:
    """When a thing, or a slide, was shown."""
    ask = parse(phrase)
    screen = passages.screen_for(ask, timeline) if ask.on_screen else None
    if screen is not None:
        return screen.start, timeline.end_of(screen)
    found = ask.thing
    if found is not None and not found[1]:
        spans = looks.appearances(timeline, found[0])
        if spans:
            return spans[0].start, spans[0].end
    return None


def _order(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Which came first; was one before the other; what came after something."""
    pair = re.search(r"\b(first|earlier|before|later|last|second)\b.*?[,:] ?(.+?) or (.+)", ask.text) or re.search(
        r"^(?:which|what) .*?\b(first|earlier|later|last)\b (.+?) or (.+)", ask.text
    )
    if pair and re.match(r"(?:which|what|who)\b", ask.text):
        one, two = _named(pair[2], timeline), _named(pair[3], timeline)
        if one is None or two is None or abs(one[1].start - two[1].start) < 0.3:
            return refusal()
        early, late = sorted((one, two), key=lambda item: item[1].start)
        if pair[1] in ("later", "last", "second"):
            early, late = late, early
        return Finding(
            (f"The {early[0]}, at {clock(early[1].start)}; ", f"the {late[0]} came at {clock(late[1].start)}."), (early[1], late[1])
        )
    both = re.match(
        r"(?:was|were|did|is|has|does) (.+?) (?:been )?(?:shown|seen|appear\w*|come|came|mentioned|said|displayed|on screen|visible)? ?(before|after|earlier than|later than) (.+)",
        ask.text,
    )
    if both:
        one, two = _named(both[1], timeline), _named(re.sub(r"\b(was|were|did|appear\w*|shown|is|came)\b", "", both[3]), timeline)
        if one is None or two is None or abs(one[1].start - two[1].start) < 0.3:
            return refusal()
        right = (one[1].start < two[1].start) == (both[2] in ("before", "earlier than"))
        return Finding(
            (f"{'Yes' if right else 'No'}, ", f"the {one[0]} came at {clock(one[1].start)}, the {two[0]} at {clock(two[1].start)}."),
            (one[1], two[1]),
        )
    next_to = re.match(
        r"what (?:\w+ )?(?:was|is|came|comes|appeared|has been|did you see|could be seen)\b.*?\b(after|before|following|preceding|next to follow) (.+)",
        ask.text,
    )
    if next_to and not ask.spoken:
        anchor = _named(re.sub(r"\b(was|were|is|shown|appeared|came|disappeared)\b", "", next_to[2]), timeline)
        if anchor is None:
            return refusal()
        later = next_to[1] in ("after", "following")
        shown = looks.beside(timeline, anchor[1], later=later)
        return (
            refusal()
            if shown is None
            else Finding((f"{shown.text.rstrip('.')}, ", f"from {clock(shown.evidence[0].start)}."), shown.evidence)
        )
    return None


def _named(phrase: str, timeline: Timeline) -> tuple[str, Evidence] | None:
    """When a thing was first shown, a slide first seen, or words first said."""
    phrase = re.sub(r"^[ ,]*(?:the|a|an)\b|\b(?:picture|photo|image|clip|shown|first|slide|appear\w*)\b", " ", phrase).strip(' ,"')
    ask = parse(phrase)
    found = ask.thing
    if found is not None and not found[1]:
        spans = looks.appearances(timeline, found[0])
        if spans:
            return found[0], spans[0]
    screen = passages.screen_for(ask, timeline)
    if screen is not None:
        return f'slide "{screen.title or screen.lines[0]}"', passages.as_evidence(screen, timeline)
    place = passages.locate(ask, timeline)
    return (f'word "{phrase}"', place) if place is not None and len(phrase.split()) <= 6 else None


def _when(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """At what time something was shown or said, began or ended; how long it lasted."""
    if ask.form not in ("when", "how long"):
        return None
    long = ask.form == "how long"
    span: Evidence | None = None
    ends = bool(
        re.search(r"\b(end|ended|stop\w*|finish\w*|disappear\w*|vanish\w*|conclude\w*|go away|went away|removed|leave|left)\b", ask.text)
    )
    talk = re.search(r"\b(speech|talk|talking|speaker|reader|reading|speaking|narrator|somebody|someone|anybody|anyone|person)\b", ask.text)
    if (
        talk
        and re.search(r"\b(begin|began|begun|start\w*|end|ended|stop\w*|finish\w*|first (?:speak|talk|say)|last)\b", ask.text)
        and not [t for t in ask.about if t not in ("begin", "end", "talk", "person")]
    ):
        chosen = _talk(ask, timeline)
        if chosen is None:
            return refusal()
        span = Evidence(chosen[0].start, chosen[-1].end, "speech", quote_of(chosen[0].text, 12))
    elif not ask.spoken and (ask.on_screen or ask.quoted):
        span = pages.locate(ask, timeline)
    elif ask.spoken:
        span = passages.locate(ask, timeline, nth=ask.ordinal or 1)
        if long:
            return refusal()
    elif re.search(r"\b(black|blank|empty|dark)\b", ask.text) and (ask.seen or "go" in ask.about or "screen" in ask.text):
        span = looks.pick(looks.blanks(timeline), ask.ordinal)
    elif ask.thing is not None and not [
        w
        for w in ask.thing[1]
        if w
        not in (
            "come",
            "came",
            "disappear",
            "disappeared",
            "go",
            "long",
            "stay",
            "enter",
            "vanish",
            "leave",
            "time",
            "stop",
            "start",
            "end",
            "arrive",
        )
    ]:
        span = looks.pick(looks.appearances(timeline, ask.thing[0]), ask.ordinal)
        if span is None and not ask.seen:
            span = passages.locate(ask, timeline)
    elif ask.seen and ask.thing is None:
        span = pages.locate(ask, timeline)
        if span is None and not long and not re.search(r"\b(shown|picture|image|camera)\b", ask.text):
            span = passages.locate(ask, timeline)
    elif ask.thing is None or not ask.seen:
        span = None if long else passages.locate(ask, timeline)
    if span is None:
        return refusal()
    if long:
        return Finding((f"{span.end - span.start:.0f} s, ", f"from {clock(span.start)} to {clock(span.end)}."), (span,))
    if span.kind == "screen":  # a title may hold such words
        ends = ends and _GONE.search(ask.text) is not None
    if ends and span.end >= timeline.latest and (timeline.text.shown if span.kind == "screen" else span.kind == "sight"):
        return refusal()  # it is still shown
    when = span.end if ends else span.start
    if ends:
        span = Evidence(when, when, span.kind, span.quote, span.frame)
    return Finding((f"At {clock(when)} ({when:.1f} s).",), (span,))


def _talk(ask: Ask, timeline: Timeline):  # type: ignore[no-untyped-def]
    talks = timeline.talks
    number = ask.ordinal or 1
    if not talks or number > len(talks):
        return None
    return talks[number if number < 0 else number - 1]


def _how_many(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Slides, times, things in the picture, stretches of talk; a number that was said."""
    if ask.form != "how many":
        return None
    if re.search(r"\b(slides|pages|screens)\b", ask.text):
        return passages.count_screens(ask, timeline)
    if re.search(r"\b(times|often)\b", ask.text):
        if ask.spoken:
            hits = passages.mentions(ask, timeline)
            return _times(hits)
        if ask.thing is None or ask.thing[1]:
            return refusal()
        spans = looks.appearances(timeline, ask.thing[0])
        return _times(spans)
    if re.search(r"\b(speeches|talks|stretches of (?:talk|speech))\b", ask.text):
        talks = timeline.talks
        return (
            Finding((f"{len(talks)} so far.",), tuple(Evidence(t[0].start, t[-1].end, "speech", quote_of(t[0].text, 8)) for t in talks[:6]))
            if talks
            else refusal()
        )
    if ask.thing is not None and (not ask.thing[1] or ask.seen):
        return (
            refusal()
            if ask.thing[1]
            else looks.count(timeline, ask.thing[0], now, ask.now or not re.search(r"\b(was|were|have|has|had)\b", ask.text)) or refusal()
        )
    return refusal() if ask.seen else passages.extract(ask, timeline, now, numbers=True, strict=True) or refusal()


def _times(spans: Sequence[Evidence]) -> Finding:
    if not spans:
        return refusal()
    told = f"{counted_words(len(spans))}, ", f"first at {clock(spans[0].start)}."
    return Finding(told, tuple(spans[:3]), values=(str(len(spans)),))


def _mentioned(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Was something said, or written on a slide."""
    if ask.form != "yes/no" or not re.search(
        r"\b(mention\w*|said|say|says|named|talk\w* (?:about|of)|sp(?:oke|eak|oken) (?:about|of)|refer\w* to|discuss\w*|come up|came up|contain|heard the words?|use the words?|in the (?:story|speech|text|talk|lecture|tale))\b",
        ask.text,
    ):
        return None
    if not ask.quoted and re.search(
        r"\b(say|says|said|mention\w*|talk\w* about|discuss\w*) (?:that|how|why|whether|what|where) ", ask.text
    ):
        return None  # "did he say that ...": a claim, not a word
    wanted = [
        t
        for t in (terms(ask.quoted) if ask.quoted else ask.about)
        if t not in ("far", "com", "use", "contain", "refer", "discus", "story", "tal", "word", "ever", "at", "point")
    ]
    if not wanted:
        return None
    hits = passages.mentions(ask, timeline, wanted)
    if hits:
        return Finding((f"Yes, at {clock(hits[0].start)}: ", f'"{quote_of(hits[0].quote, 28)}"'), (hits[0],))
    if not timeline.said and not timeline.screens:
        return refusal()
    if any(gap.end - gap.start > 1.0 for gap in timeline.gaps) or timeline.dropped["sentences"]:
        return refusal()
    name = ask.quoted or " ".join(w for w in ask.words if stem(w) in wanted)
    return Finding((f"No, nothing said or written so far mentions {name}.",), (Evidence(0.0, now, "timeline", f"no mention of {name}"),))


def _shown_or_not(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Has something been shown; is it there now."""
    there = re.match(r"(?:is|are|was|were|has|have) there\b", ask.text)
    if ask.form != "yes/no" or not (ask.seen or there or re.search(r"\b(black|blank|empty)\b", ask.text)) or ask.quoted:
        return None
    if re.search(r"\b(slide|title|headline|text|written)\b", ask.text):
        return looks.text_shown(ask, timeline, now)
    present = bool(re.match(r"(?:is|are|can|do|does) ", ask.text)) or ask.now
    if re.search(r"\b(anything|something|nothing)\b", ask.text) and not ask.about:
        return looks.anything(timeline, now)
    if re.search(r"\b(black|blank|empty|dark)\b", ask.text) and ask.thing is None:
        return looks.is_blank(ask, timeline, now, present)
    if ask.thing is None:
        return refusal() if ask.seen and not _human_sees(ask) else None
    phrase, others = ask.thing
    if _human_sees(ask):
        return None
    if others:
        return refusal() if ask.seen else None
    if present:
        spoken_times = _stretch(ask, now) if ask.times or ask.ago is not None else None
        return looks.there_now(timeline, phrase, now) if spoken_times is None else looks.there_between(timeline, phrase, *spoken_times)
    spoken_times = _stretch(ask, now) if ask.times or ask.ago is not None or ask.last is not None else None
    return looks.there_between(timeline, phrase, *(spoken_times or (0.0, now)))


def _human_sees(ask: Ask) -> bool:
    """As in "Had the king ever seen the spirit": somebody in the story sees, not we."""
    return bool(
        re.match(
            r"(?:did|had|has|have|does|could|can|do) (?!you\b|we\b|i\b|one\b|there\b|it\b|viewers?\b)(?:(?:the|a|an|his|her|their) )?[\w'-]+ (?:\w+ )?(?:see|seen|saw|shown?|look\w*)\b",
            ask.text,
        )
    ) and not re.search(r"\bbeen (?:\w+ )?(?:shown|seen|visible|displayed)", ask.text)


def _shown(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What is shown, now or at a time; what animal, drink, vehicle was shown."""
    if ask.form != "open" or not (ask.seen or ask.now) or (ask.spoken and ask.about):
        return None
    if not re.match(r"(?:what|which|describe|who|list)\b", ask.text) or re.match(
        r"(?:what|which).*\b(?:he|she|they)\b.*\b(?:see|saw|seen|shown)\b", ask.text
    ):
        return None
    asked_kind = re.match(
        r"(?:what|which) (?:kind of |sort of |type of )?([a-z]+) (?:is|are|was|were|has|have|can|could|do|did|appear\w*)\b", ask.text
    )
    place = re.search(r"\b(?:on|in|at|along|under|above) (?:the|a) ([a-z]+)(?: now)?$", ask.text)
    rest = [
        t
        for t in ask.about
        if t not in ("describ", "list", "far", "exact", "els", "happen", "go", "right", "present", "current", "moment", "far")
    ]
    if place is not None and stem(place[1]) in rest:
        return looks.at_place(timeline, place[1], now) if len(rest) == 1 else refusal()
    if asked_kind is not None and stem(asked_kind[1]) not in META:
        others = [t for t in rest if t != stem(asked_kind[1])]
        return (
            refusal()
            if others
            else looks.of_kind(timeline, asked_kind[1], now, present=bool(re.search(r"\b(is|are)\b", ask.text)) or ask.now, nth=ask.ordinal)
        )
    if rest:
        return None if ask.thing is None and not re.search(r"\b(picture|image|video|photo|camera)\b", ask.text) else refusal()
    if ask.times or ask.ago is not None:
        start, end = _stretch(ask, now)
        return looks.at(timeline, (start + end) / 2) or refusal()
    if ask.ordinal is not None:
        return looks.nth(timeline, ask.ordinal) or refusal()
    if re.search(r"\b(so far|has been|have been|until now|have you seen|all|everything)\b", ask.text):
        return looks.so_far(timeline, now) or refusal()
    return looks.at(timeline, now, now=True) or refusal()


def _talked(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """How a speech begins or ends; the first and last words; what was just said, or said at a time."""
    if ask.form != "open" or not timeline.said:
        return None
    words = re.search(
        r"\b(begin|begins|beginning|began|start\w*|open\w*|end|ends|ended|ending|finish\w*|close\w*|conclu\w*|first|last|final)\b", ask.text
    )
    talk = re.search(
        r"\b(speech|talk|speaker|reader|reading|lecture|narrator|story|text|said|say|spoken|words?|sentence|line|tale|recording|somebody|anybody|person|man|woman|he|she)\b",
        ask.text,
    )
    rest = [
        t
        for t in ask.about
        if t
        not in (
            "begin",
            "end",
            "open",
            "clos",
            "conclud",
            "first",
            "last",
            "final",
            "final",
            "story",
            "tal",
            "just",
            "right",
            "person",
            "man",
            "woman",
            "talk",
            "hear",
            "exact",
        )
    ]
    if rest or not talk:
        return None
    if (ask.times or ask.ago is not None or ask.last is not None) and ask.spoken:
        return _said_between(timeline, *_stretch(ask, now))
    if re.search(
        r"\bjust (?:now |been )?(?:said|say|saying|heard|spoken|talked|mentioned)|(?:said|say|saying|heard) (?:just|right) now|being said|said (?:now|last)|last (?:thing|sentence|words?)(?: (?:that was|which was|to be|you))? ?(?:said|spoken|heard)?",
        ask.text,
    ):
        last = timeline.said[-1]
        return Finding((f"At {clock(last.start)}: ", f'"{quote_of(last.text, 30, tail=True)}"'), (last.evidence(),))
    if words is None:
        return None
    ends = bool(re.search(r"\b(end|ends|ended|ending|finish\w*|close\w*|conclu\w*|final|last (?:words?|sentence|line))\b", ask.text))
    number = re.search(
        r"\b(first|second|third|fourth|fifth|sixth|last|latest|1st|2nd|3rd)\s+(?:\w+\s+)?(?:speech|talk|speaker|reader|reading|lecture|text|person|recording|stretch)",
        ask.text,
    )
    chosen = _talk(parse(number[1]), timeline) if number else timeline.talks[0] if not ends else timeline.talks[-1]
    if chosen is None:
        return refusal()
    spoken = [w for sentence in chosen for w in sentence.words]
    part = spoken[-16:] if ends else spoken[:16]
    text = ("… " if ends and len(spoken) > 16 else "") + " ".join(w.text for w in part) + (" …" if not ends and len(spoken) > 16 else "")
    return Finding((f"At {clock(part[0].start)}: ", f'"{text}"'), (Evidence(part[0].start, part[-1].end, "speech", text),))


def _said_between(timeline: Timeline, start: float, end: float) -> Finding:
    words = timeline.words_between(start, end)
    if not words:
        return refusal()
    part = words[:30]
    text = " ".join(w.text for w in part) + (" …" if len(words) > 30 else "")
    return Finding((f"At {clock(part[0].start)}: ", f'"{text}"'), (Evidence(part[0].start, part[-1].end, "speech", text),))


def _summary(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What it is all about: the slides' titles, else how the talk begins, and what is shown."""
    if not re.match(
        r"(?:summar\w+|give .*summary|what (?:is|was|are|were|s) (?:this|it|the (?:talk|video|lecture|story|stream|speech|topic|subject|presentation|main \w+)|that)\b.*|what(?:'s| has| is| did) .*happen\w*.*|tl ?dr|what have i missed|what did i miss).*",
        ask.text,
    ):
        return None
    if [
        t
        for t in ask.about
        if t
        not in (
            "summariz",
            "summary",
            "topic",
            "subject",
            "main",
            "point",
            "idea",
            "gist",
            "story",
            "far",
            "happen",
            "giv",
            "short",
            "miss",
            "hav",
            "talk",
            "everyth",
            "go",
            "going",
            "all",
            "brief",
            "begin",
        )
    ]:
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
            tuple(passages.as_evidence(s, timeline) for s in told),
            values=tuple(s.title or "" for s in told),
        )
    if timeline.said:
        first = timeline.said[0]
        return Finding((f"It begins at {clock(first.start)}: ", f'"{quote_of(first.text, 28)}"'), (first.evidence(),))
    return looks.so_far(timeline, now)


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
    _unseeable,
    pages.read,
    passages.beside,
    places.placed,
    _activity,
    _while,
    _order,
    _when,
    _how_many,
    _mentioned,
    pages.written,
    _shown_or_not,
    notes.recap,
    _talked,
    _summary,
    _shown,
    _yes_no,
    _open,
)
__all__ = ["Finding", "Screen", "find"]
