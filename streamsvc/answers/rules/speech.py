"""What was said when: whether anybody spoke, how a talk begins and ends, what was said at a time or beside quoted words. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from streamsvc.answers.rules.finding import Finding, quote_of, refusal, timestamp
from streamsvc.answers.rules.parse import Ask, parse
from streamsvc.core.types import Evidence, Word
from streamsvc.timeline.text import stems, tokens
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.transcript import Sentence

_OWN = stems(
    "begin end open close conclude first last final story tale just right person man woman talk hear exact"
)  # what is asked of any talk
_SPEAKING = stems(
    "silent silence quiet come complete whole time talk hear"
)  # what is asked of speech and silence themselves
_LATELY = re.compile(
    r"\bjust (?:now |been )?(?:said|say|saying|heard|spoken|talked|mentioned)|(?:said|say|saying|heard) (?:just|right) now|being said|"
    r"said (?:now|last)|last (?:thing|sentence|words?)(?: (?:that was|which was|to be|you))? ?(?:said|spoken|heard)?"
)
_ENDS = re.compile(
    r"\b(end|ends|ended|ending|finish\w*|clos(?:e|es|ed|ing)|conclu\w*|final|last (?:words?|sentence|line|thing)|"
    r"(?:say|said|says|spoken) last)\b"
)
_ADDRESSED = re.compile(
    r"(?:to )?whom? (?:is|was|does|did) (?:the )?(?:speaker|narrator|presenter|lecturer|reader|he|she) (?:be |being )?"
    r"(?:address\w*|greet\w*|(?:speak|talk)\w* to|(?:speak|talk)(?:ing)?$)|whom? (?:is|was|were) (?:being )?(?:addressed|greeted)\b"
)
_BESIDE = re.compile(
    r"\b(after|before|follow(?:s|ed|ing)?|preced(?:es|ed|ing)|leads? up|led up|next|go(?:es)? on|continues?|finish|complete|the rest of)\b"
)
_CALLED = re.compile(
    r"\b(?:my (?:fellow|dear(?:est)?) [a-z]+|(?:fellow|dear) [a-z]+s|ladies and gentlemen|my friends|boys and girls)\b"
)
QUOTE_ALIKE, BESIDE, BESIDE_LEAST = (
    0.7,
    10,
    3,
)  # share of a quote's words that must be heard the same; words told beside it, and the fewest


def activity(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Did anybody speak, in a stretch of time or now; was it silent."""
    if (
        ask.form != "yes/no"
        or ask.quoted
        or not re.search(
            r"\b(spoke|speak\w*|spoken|talk\w*|said|say|speech|silen\w+|quiet|heard|words?)\b", ask.text
        )
    ):
        return None
    if set(ask.about) - _SPEAKING:
        return None
    quiet = bool(re.search(r"\b(silen\w+|quiet|nobody|no ?one)\b", ask.text))
    start, end = stretch(ask, now)
    words = timeline.words_between(start, end)
    yes, no = ("No, ", "Yes, ") if quiet else ("Yes, ", "No, ")
    if words:
        first = Evidence(
            words[0].start,
            words[-1].end if len(words) < 30 else words[29].end,
            "speech",
            " ".join(w.text for w in words[:20]),
        )
        return Finding((f"{yes}at {timestamp(words[0].start)}: ", f'"{quote_of(first.quote, 20)}"'), (first,))
    lost = start < timeline.folded_until or any(gap.start < end and gap.end > start for gap in timeline.gaps)
    if lost or end > max(now, timeline.latest) + 1.0 or _active(timeline, start, end) > 1.0:
        return refusal()
    said = (
        "nobody speaks now." if ask.now else f"nobody spoke between {timestamp(start)} and {timestamp(end)}."
    )
    return Finding(
        (no + said,),
        (Evidence(start, end, "timeline", f"no speech from {timestamp(start)} to {timestamp(end)}"),),
    )


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


def stretch(ask: Ask, now: float) -> tuple[float, float]:
    """The session seconds that a question is about; all so far, where it names none."""
    if len(ask.times) >= 2:
        return min(ask.times[:2]), max(ask.times[:2])
    if len(ask.times) == 1:
        when = ask.times[0]
        if re.search(r"\b(before|until|by)\b", ask.text):
            return 0.0, when
        return (
            (when, now) if re.search(r"\b(after|since)\b", ask.text) else (max(0.0, when - 1.0), when + 1.0)
        )
    if ask.last is not None:
        return max(0.0, now - ask.last), now
    if ask.ago is not None:
        return max(0.0, now - ask.ago - 1.0), max(0.0, now - ask.ago + 1.0)
    return (max(0.0, now - 2.5), now) if ask.now or re.match(r"(?:is|are) ", ask.text) else (0.0, now)


def nth(ask: Ask, timeline: Timeline) -> list[Sentence] | None:
    """The stretch of talk that a question names by number, the first by default."""
    talks = timeline.talks
    number = ask.ordinal or 1
    if not talks or number > len(talks):
        return None
    return talks[number if number < 0 else number - 1]


def talked(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """How a speech begins or ends; the first and last words; what was just said, or said at a time."""
    if ask.form != "open" or not timeline.sentences:
        return None
    words = re.search(
        r"\b(begin|begins|beginning|began|start\w*|open\w*|end|ends|ended|ending|finish\w*|clos(?:e|es|ed|ing)|conclu\w*|first|last|final)\b",
        ask.text,
    )
    talk = re.search(
        r"\b(speech|talk|speaker|reader|reading|lecture|narrator|story|text|said|says?|saying|spoken|words?|sentence|line|tale|recording|somebody|anybody|person|man|woman|he|she|they|it|video|stream|clip|presentation)\b",
        ask.text,
    )
    if set(ask.about) - _OWN or not talk or re.search(r"\babout (?:the|an?) \w+$", ask.text):
        return None
    if (ask.times or ask.ago is not None or ask.last is not None) and ask.spoken:
        return said_between(timeline, *stretch(ask, now))
    if _LATELY.search(ask.text):
        last = timeline.sentences[-1]
        return Finding(
            (f"At {timestamp(last.start)}: ", f'"{quote_of(last.text, 30, tail=True)}"'), (last.evidence(),)
        )
    if words is None:
        return None
    ends = _ENDS.search(ask.text) is not None
    number = re.search(
        r"\b(first|second|third|fourth|fifth|sixth|last|latest|1st|2nd|3rd)\s+(?:\w+\s+)?(?:speech|talk|speaker|reader|reading|lecture|text|person|recording|stretch)",
        ask.text,
    )
    chosen = (
        nth(parse(number[1]), timeline) if number else timeline.talks[0] if not ends else timeline.talks[-1]
    )
    if chosen is None:
        return refusal()
    spoken = [w for sentence in chosen for w in sentence.words]
    part = spoken[-16:] if ends else spoken[:16]
    text = (
        ("… " if ends and len(spoken) > 16 else "")
        + " ".join(w.text for w in part)
        + (" …" if not ends and len(spoken) > 16 else "")
    )
    return _words(part, text)


def said_between(timeline: Timeline, start: float, end: float) -> Finding:
    """The words between two times, quoted."""
    words = timeline.words_between(start, end)
    if not words:
        return refusal()
    part = words[:30]
    text = " ".join(w.text for w in part) + (" …" if len(words) > 30 else "")
    return _words(part, text)


def _words(spoken: Sequence[Word], text: str) -> Finding:
    """Words as an answer, quoted by a text."""
    return Finding(
        (f"At {timestamp(spoken[0].start)}: ", f'"{text}"'),
        (Evidence(spoken[0].start, spoken[-1].end, "speech", text),),
    )


def addressed(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """Whom the speaker addresses, by the words that address: "my fellow citizens"."""
    if _ADDRESSED.match(ask.text) is None:
        return None
    for sentence in timeline.sentences:
        if _CALLED.search(" ".join(tokens(sentence.text))):
            return Finding(
                (f"At {timestamp(sentence.start)}: ", f'"{quote_of(sentence.text, 30)}"'),
                (sentence.evidence(),),
            )
    return refusal()


def beside(ask: Ask, timeline: Timeline, now: float) -> Finding | None:
    """What was said right after, or before, words that are quoted; a word of the quote may have been heard otherwise."""
    asked = _BESIDE.search(ask.text)
    if ask.quoted is None or asked is None or ask.form != "open" or ask.on_screen:
        return None
    if not (
        ask.spoken
        or asked[1] not in ("after", "before")
        or re.search(r"\b(words?|phrase|quote|sentence)\b", ask.text)
    ):
        return None
    wanted = tokens(ask.quoted)
    words = [
        word
        for sentence in timeline.sentences
        for word in sentence.words
        if word.start < now and tokens(word.text)
    ]
    heard = ["".join(tokens(word.text)) for word in words]
    first = set(wanted[:2])  # one of these must have been heard as it is quoted
    starts = {n - k for n, word in enumerate(heard) if word in first for k in (0, 1, 2) if n >= k}
    if not wanted or not starts:
        return refusal()
    found = [(*_aligned(wanted, heard, n), n) for n in starts]
    alike, end, place = max(found, key=lambda each: (each[0], heard[each[2]] == wanted[0], -each[2]))
    if alike < QUOTE_ALIKE * len(wanted):
        return refusal()
    if asked[1].startswith(("before", "preced", "lead")):
        told = words[max(0, place - BESIDE) : place]
    else:
        told = words[end : end + BESIDE]
        ends = [n for n, word in enumerate(told, 1) if word.text.rstrip("\"'”’").endswith((".", "?", "!"))]
        told = told[: next((n for n in ends if n >= BESIDE_LEAST), len(told))]
    if not told:
        return refusal()
    return _words(told, " ".join(word.text for word in told))


def _aligned(wanted: list[str], heard: list[str], start: int) -> tuple[int, int]:
    """How many words of a quote were heard in order from a place on, and the place behind them. Compounds may be heard apart, and the other
    way round; a word may be heard otherwise, not at all, or besides.
    """
    found, i, j = 0, 0, start
    while i < len(wanted) and j < len(heard):
        following = heard[j + 1] if j + 1 < len(heard) else ""
        later = wanted[i + 1] if i + 1 < len(wanted) else ""
        if wanted[i] == heard[j]:
            found, i, j = found + 1, i + 1, j + 1
        elif wanted[i] == heard[j] + following:
            found, i, j = found + 1, i + 1, j + 2
        elif wanted[i] + later == heard[j]:
            found, i, j = found + 2, i + 2, j + 1
        elif later and later == following:
            i, j = i + 1, j + 1  # heard otherwise
        elif wanted[i] == following:
            j += 1
        elif later and later == heard[j]:
            i += 1
        else:
            i, j = i + 1, j + 1
    return found, j
