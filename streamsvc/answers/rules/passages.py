"""The lines of speech and screens that hold a question's words, and the part of them worth quoting. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from streamsvc.answers.rules.finding import Finding, quote_of, timestamp
from streamsvc.answers.rules.parse import Ask
from streamsvc.core.types import Evidence, Word
from streamsvc.timeline.ranking import idf
from streamsvc.timeline.text import (
    NEGATIONS,
    QUESTION_WORDS,
    bag,
    homophones,
    related,
    stem,
    stems,
    terms,
    tokens,
)
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.transcript import Sentence

ENOUGH = 0.55  # share of the question's words, weighed by rarity, that a line must hold
STRICT = 0.75  # ... where a near miss would be a wrong answer
NEIGHBOUR = 0.6  # worth of a word that stands in the line before or after
KIN = 0.7  # ... of one that is meant by another, or sounds like it, beside one that is the same
OWN, SAME = 0.4, 0.2  # share that a line must hold itself, and of it in the same words
LIGHT = 0.4  # worth of a word that only tells how things lie or follow each other: another way of saying it has others
_LIGHT = stems(
    "before after because through though although against among within upon toward towards across along behind beside near around above "
    "below underneath beneath inside outside between beyond instead"
)
_CAUSE = re.compile(r"\b(?:because|for|since|so|that is why|therefore|due to|as)\b")
_NUMERAL = re.compile(
    r"^(?:\d[\d,.]*|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand|million|dozen|once|twice)$"
)
_PERSONS = frozenset(tokens("he him his himself")), frozenset(tokens("she her hers herself"))
_PRONOUNS = frozenset(tokens("he she it they his her its their"))
_NONE_OF = {
    "anybody": "nobody none",
    "anyone": "nobody none",
    "anything": "nothing",
    "any": "no none",
    "ever": "never",
}
_MEMBERS = {
    "season": "spring summer autumn fall winter", "month": "january february march april may june july august september october november december",
    "day": "monday tuesday wednesday thursday friday saturday sunday today tomorrow yesterday", "color": "red blue green yellow orange purple pink brown grey gray golden silver white black",
    "year": "", "number": "", "war": "war", "language": "english french german spanish italian latin greek chinese japanese russian",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Line:
    terms: frozenset[str]
    evidence: Evidence
    sentence: Sentence | None  # None: a line of a screen
    place: int  # among the sentences, for neighbours


def _lines(timeline: Timeline) -> list[_Line]:
    said = [_Line(bag(s.text), s.evidence(), s, i) for i, s in enumerate(timeline.sentences)]
    read = [
        _Line(bag(line.text), line.evidence(timeline.latest), None, 0) for line in timeline.text_tracks.all()
    ]
    return said + read


def _weights(wanted: Iterable[str], lines: Sequence[_Line]) -> dict[str, float]:
    return {
        term: (LIGHT if term in _LIGHT else 1.0) * idf(sum(term in line.terms for line in lines), len(lines))
        for term in wanted
    }


def _around(line: _Line, lines: Sequence[_Line]) -> frozenset[str]:
    """The terms of what was said right before and after a sentence, and stood on the screen meanwhile; of what was shown beside a line of text."""
    start, end = line.evidence.start, line.evidence.end
    near = [
        o.terms
        for o in lines
        if o.sentence is None and o.evidence.start < end and o.evidence.end > start and o is not line
    ]
    if line.sentence is not None:
        near += [o.terms for o in _beside(line, lines, 1) if o is not line and _pause(o, line) < 5.0]
    return frozenset().union(*near)


def _beside(line: _Line, lines: Sequence[_Line], reach: int) -> list[_Line]:
    """A sentence and so many before and after it; sentences come first among the lines, by their places. Nothing for a line of a screen."""
    beside = lines[max(0, line.place - reach) : line.place + reach + 1] if line.sentence is not None else ()
    return [other for other in beside if other.sentence is not None]


def _pause(one: _Line, other: _Line) -> float:
    """Seconds between two sentences."""
    return max(one.evidence.start - other.evidence.end, other.evidence.start - one.evidence.end)


def _spread(terms_: frozenset[str], quote: str) -> int:
    """Over how many words of a text these terms lie."""
    places = [n for n, word in enumerate(tokens(quote)) if stem(word) in terms_]
    return places[-1] - places[0] if places else 0


def _ranked(
    wanted: Sequence[str],
    lines: Sequence[_Line],
    loose: bool = False,
    words: Sequence[str] = (),
    fits: Callable[[_Line], bool] = lambda line: True,
) -> list[tuple[float, float, _Line]]:
    """(coverage with neighbours, own coverage, line) of the best dozen that fit, best first.

    Of equals those come first beside which somebody is spoken of as the question does ("he"); then those with the most of its other words,
    and with the wanted words nearest together; then the newest.

    Args:
        wanted: stems.
        lines: all of them; those of speech first.
        loose: what may be meant by a word counts too.
        words: of the question, as it was asked.
        fits: what an answer must hold besides.
    """
    asked, also = frozenset(wanted), QUESTION_WORDS & frozenset(map(stem, words))
    person = frozenset().union(*(family for family in _PERSONS if family & set(words)))
    weights = _weights(wanted, lines)
    total = sum(weights.values()) or 1.0
    found = []
    for line in lines:
        same = sum(weights[t] for t in wanted if t in line.terms)
        if same < SAME * total or not fits(line):
            continue
        meant = {
            t
            for t in wanted
            if t not in line.terms and (homophones(t) | (related(t) if loose else frozenset())) & line.terms
        }
        own = same + KIN * sum(weights[t] for t in meant)
        near = _around(line, lines)
        rest = [t for t in wanted if t not in line.terms and t not in meant]
        worth = sum(
            weights[t] * (1.0 if t in near else KIN if loose and related(t) & near else 0.0) for t in rest
        )
        found.append(((own + NEIGHBOUR * worth) / total, own / total, line))

    def named(line: _Line) -> bool:
        return any(
            _pause(o, line) < 5.0 and not person.isdisjoint(tokens(o.evidence.quote))
            for o in _beside(line, lines, 2)
        )

    def order(item: tuple[float, float, _Line]) -> tuple[float, float, bool, bool]:
        cover, own, line = item
        return -round(cover, 3), -round(own, 3), line.sentence is None, bool(person) and not named(line)

    best = sorted(found, key=lambda item: (order(item), -item[2].evidence.start))[:12]
    return sorted(
        best,
        key=lambda item: (order(item), -len(also & item[2].terms), _spread(asked, item[2].evidence.quote)),
    )


def extract(
    ask: Ask,
    timeline: Timeline,
    now: float,
    need: frozenset[str] | None = None,
    numbers: bool = False,
    strict: bool = False,
) -> Finding | None:
    """The line that holds the question's words, quoted with its time; None where none holds enough of them.

    Args:
        ask: the question, taken apart.
        timeline: all that is known.
        now: session seconds.
        need: stems of which the line must hold one.
        numbers: the line must hold a number.
        strict: demand more of the words.
    """
    lines = _lines(timeline)
    wanted = ask.about
    if not wanted or not lines:
        return None
    members = _MEMBERS.get(ask.focus or "")
    if members is not None:
        need = frozenset(stem(word) for word in members.split()) or None
        numbers = numbers or not members

    def holds(line: _Line) -> bool:
        return (not need or bool(need & line.terms)) and (
            not numbers or any(map(_NUMERAL.match, tokens(line.evidence.quote)))
        )

    for cover, own, line in _ranked(wanted, lines, not strict, ask.words, holds)[:6]:
        if cover < (STRICT if strict else ENOUGH):
            break
        if own < OWN or not _fits(ask, line, line.terms | _around(line, lines), lines):
            continue
        if (
            line.sentence is None
            and ask.form == "open"
            and not (need or ask.on_screen or _tells(line, wanted))
        ):
            continue
        if ask.on_screen and line.sentence is not None:
            shown = [(c, other) for c, _, other in _ranked(wanted, lines)[:6] if other.sentence is None]
            if any(c >= cover - 0.15 for c, _ in shown):
                line = shown[0][1]
        return _quoted(line, wanted, timeline, why=re.match(r"why\b|how come\b", ask.text) is not None)
    return None


def _tells(line: _Line, wanted: Sequence[str]) -> bool:
    """Whether a line of a slide that nobody asked for says more than the question: a title repeats its words and answers nothing."""
    said = set(terms(line.evidence.quote))
    return len(said & set(wanted)) >= min(2, len(wanted)) and len(said - set(wanted)) >= 2


def _fits(ask: Ask, line: _Line, near: frozenset[str], lines: Sequence[_Line]) -> bool:
    """Whether who acts in the question, what is acted upon, and every name in it, is spoken of here."""
    if (
        ask.subject is not None
        and ask.subject != ask.focus
        and not (related(ask.subject) | homophones(ask.subject))
        & near.union(*(other.terms for other in _beside(line, lines, 2)))
    ):
        return False
    if any(
        not (related(term) | homophones(term)) & near
        for term in (*ask.definite, *([ask.verb] if ask.verb else []))
    ):
        return False
    return all(homophones(name) & near for name in (*ask.names, *ask.owners))


def _quoted(line: _Line, wanted: Sequence[str], timeline: Timeline, why: bool = False) -> Finding:
    if line.sentence is None:
        return Finding(
            (
                f"On the screen at {timestamp(line.evidence.start)}: ",
                f'"{quote_of(line.evidence.quote, 30)}"',
            ),
            (line.evidence,),
            lines=(line.evidence,),
        )
    part = _part(line.sentence, wanted, 28)
    said = timeline.sentences
    whole = len(part) == len(line.sentence.words)
    before = [word for sentence in said[max(0, line.place - 3) : line.place] for word in sentence.words]
    before = before if before and part[0].start - before[-1].end < 2.0 else []
    if whole and why and not _CAUSE.search(line.sentence.text.lower()):
        part = (
            (*before[-max(0, 34 - len(part)) :], *part) if len(part) < 34 else part
        )  # what came before is mostly why
    elif (
        whole and len(part) <= 14
    ):  # a short line is told with what comes after it, else with what came before
        following = said[line.place + 1] if line.place + 1 < len(said) else None
        if (
            following is not None
            and following.start - line.sentence.end < 2.0
            and len(part) + 3 < len(part) + len(following.words) <= 30
        ):
            part = (*part, *following.words)
        else:
            part = (*before[-(32 - len(part)) :], *part)
    text = " ".join(word.text for word in part)
    begins = any(part[0] == sentence.words[0] for sentence in said[max(0, line.place - 3) : line.place + 1])
    quoted = ("" if begins else "… ") + quote_of(text, 34)
    span = Evidence(part[0].start, part[-1].end, "speech", text)
    return Finding(
        (f"At {timestamp(span.start)}: ", f'"{quoted}"'), (span,), lines=(line.sentence.evidence(),)
    )


def _part(sentence: Sentence, wanted: Sequence[str], most: int) -> tuple[Word, ...]:
    """The stretch of a long sentence that holds most of the wanted words and what follows the last of them."""
    words = sentence.words[:]
    if len(words) <= most:
        return words
    hits = [i for i, held in enumerate(_holds(sentence, wanted)) if held]
    if not hits:
        return words[:most]

    def worth(start: int) -> tuple[float, int]:
        inside = [i for i in hits if start <= i < start + most]
        after = start + most - 1 - inside[-1] if inside else 0
        room = len(words) - 1 - inside[-1] if inside else 0
        return len(inside) + (0.9 if after >= min(8, room) else 0.1 * after), -start

    best = max(range(len(words) - most + 1), key=worth)
    return words[best : best + most]


def locate(ask: Ask, timeline: Timeline, nth: int = 1) -> Evidence | None:
    """Where words were spoken: from the first to the last of them that were asked for."""
    places = mentions(ask, timeline, speech_only=True)
    if places:
        if nth > len(places):
            return None
        return places[nth if nth < 0 else nth - 1]
    if nth != 1:
        return None
    wanted = [*terms(ask.quoted)] if ask.quoted else ask.about
    lines = [line for line in _lines(timeline) if line.sentence is not None]
    if len(wanted) < 2:
        return None
    for cover, own, line in _ranked(wanted, lines)[:3]:
        if (
            cover >= STRICT
            and own >= 0.6
            and line.sentence is not None
            and _fits(ask, line, line.terms | _around(line, lines), lines)
        ):
            return _span(line.sentence, wanted)
    return None


def _span(sentence: Sentence, wanted: Sequence[str]) -> Evidence:
    hits = [word for word, holds in zip(sentence.words, _holds(sentence, wanted), strict=True) if holds]
    return (
        Evidence(hits[0].start, hits[-1].end, "speech", quote_of(sentence.text, 30))
        if hits
        else sentence.evidence()
    )


def _holds(sentence: Sentence, wanted: Sequence[str]) -> list[bool]:
    """Which words of a sentence are wanted ones, compounds written apart included."""
    found = [bool(set(terms(text)) & set(wanted)) for text in sentence.words.texts]
    plain = [tokens(text) for text in sentence.words.texts]
    for i in range(len(plain) - 1):
        if plain[i] and plain[i + 1] and stem(plain[i][-1] + plain[i + 1][0]) in wanted:
            found[i] = found[i + 1] = True
    return found


def mentions(
    ask: Ask, timeline: Timeline, wanted: Sequence[str] | None = None, speech_only: bool = False
) -> list[Evidence]:
    """Every line that holds all the words asked for near together, by time; the evidence begins with the first of them."""
    needed = list(wanted if wanted is not None else terms(ask.quoted) if ask.quoted else ask.about)
    if not needed:
        return []
    found = []
    for line in _lines(timeline):
        if (
            not all(term in line.terms for term in needed)
            or (speech_only and line.sentence is None)
            or (ask.on_screen and not speech_only and line.sentence is not None)
        ):
            continue
        if line.sentence is None:
            found.append(line.evidence)
            continue
        holds = _holds(line.sentence, needed)
        places = [i for i, held in enumerate(holds) if held]
        if places and (len(needed) == 1 or places[-1] - places[0] <= 2 * len(needed) + 8):
            if len(needed) == 1:
                found += [
                    Evidence(
                        line.sentence.words[i].start,
                        line.sentence.words[i].end if n else line.sentence.end,
                        "speech",
                        line.sentence.text,
                    )
                    for n, i in enumerate(places)
                ]
            else:
                found.append(
                    Evidence(
                        line.sentence.words[places[0]].start,
                        line.sentence.words[places[-1]].end,
                        "speech",
                        line.sentence.text,
                    )
                )
    return sorted(found, key=lambda e: (e.kind == "screen", e.start))


def claim(ask: Ask, timeline: Timeline) -> Finding | None:
    """Yes or no to a claim about what was told. One sentence must hold every word of it, near together; its "not" decides.

    Who acts may be named right before it, where the sentence has a pronoun; a sentence goes on where the next one begins with "but" or "and".
    """
    asked = ask.about
    if len(asked) < 2 or set(ask.words) & NEGATIONS:
        return None
    lines = _lines(timeline)
    indefinite = [word for word in ask.words if word in _NONE_OF]
    for line, quote in _claims(lines):
        held, words = bag(quote.quote), tokens(quote.quote)
        meant = (
            ask.subject is not None
            and ask.subject not in held
            and len(asked) > 2
            and _stands_for(ask.subject, line, lines)
        )
        wanted = [term for term in asked if not (meant and term == ask.subject)]
        if not all(term in held for term in wanted) or not _fits(ask, line, held, lines):
            continue
        places = [
            i
            for i, word in enumerate(words)
            if stem(word) in wanted or (i + 1 < len(words) and stem(word + words[i + 1]) in wanted)
        ]
        wide = places[-1] - places[0] + 1
        if meant and not _PRONOUNS & set(words[: places[0]]):
            continue
        denied = [i for i, word in enumerate(words) if word in NEGATIONS or word.endswith("n't")]
        said = f'at {timestamp(quote.start)}: "{quote_of(quote.quote, 28)}"'
        if indefinite:
            if (
                any(words[i] in _NONE_OF[word].split() for word in indefinite for i in denied)
                and wide <= 3 * len(wanted) + 8
            ):
                return Finding(("No, ", said), (quote,), lines=(quote,))
            if "ever" not in indefinite:
                continue
        if wide > 2 * len(wanted) + 3:
            continue
        inside = [i for i in denied if places[0] - 3 <= i <= places[-1]]
        if inside:
            return Finding(("No, ", said), (quote,), lines=(quote,))
        order = [
            next(
                i
                for i, w in enumerate(words)
                if stem(w) == t or (i + 1 < len(words) and stem(w + words[i + 1]) == t)
            )
            for t in wanted
        ]
        doubtful = any(places[0] - 8 <= i <= places[-1] + 4 for i in denied)
        if (
            not doubtful
            and order == sorted(order)
            and not re.search(r"\b(if|would|could|wish|perhaps|maybe)\b", quote.quote.lower())
        ):
            return Finding(("Yes, ", said), (quote,), lines=(quote,))
    return None


def _claims(lines: Sequence[_Line]) -> Iterator[tuple[_Line, Evidence]]:
    """Every line as evidence; a sentence that goes on in the next one with it too."""
    for line, following in itertools.zip_longest(lines, lines[1:]):
        told = line.evidence
        yield (
            line,
            Evidence(told.start, told.end, "speech", told.quote) if line.sentence is not None else told,
        )
        if (
            following is None
            or line.sentence is None
            or following.sentence is None
            or _pause(line, following) > 1.5
        ):
            continue
        if tokens(following.evidence.quote)[:1] in (["but"], ["and"], ["nor"], ["yet"]):
            yield (
                line,
                Evidence(
                    told.start, following.evidence.end, "speech", f"{told.quote} {following.evidence.quote}"
                ),
            )


def _stands_for(subject: str, line: _Line, lines: Sequence[_Line]) -> bool:
    """Whether a pronoun of a sentence may mean this: it is named in the sentence before."""
    return line.sentence is not None and line.place > 0 and subject in lines[line.place - 1].terms
