"""Questions that follow another one: "and when was that?", "what about the second one?", "what did he say after that?". Pure.

What was told before is the last question and answer of the same asker, for some minutes. Such a question is answered from
that answer's own evidence (`followed`), or made to stand alone (`standalone`); where neither is sure it is taken as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from streamsvc.answers.rules import sights
from streamsvc.answers.rules.finding import Finding, quote_of, refusal, timestamp
from streamsvc.answers.rules.parse import Ask, ParsedQuestion, parse, parsed
from streamsvc.core.types import Answer, Before, Evidence, Word
from streamsvc.timeline.text import stem, tokens
from streamsvc.timeline.timeline import Timeline

SECONDS = 180.0  # after so long an answer is forgotten
ASKERS = 64  # of whom the last answer is kept; beyond them the one who was answered longest ago is forgotten
TOLD = 16  # words told after, or before, something
LEAST = 3  # words after which a full stop ends what is told

_THAT = r"(?:that|this|it|those|these)"
_WHO = r"(?:he|she|they|you|we|i|somebody|someone|people|the (?:speaker|reader|narrator|presenter|lecturer|teacher|man|woman))"
_SAY = r"(?:say|see|hear|show|mention|read|talk about|tell)"
_DONE = r"(?:said|shown|seen|heard|mentioned|written|spoken|read|visible|displayed|on (?:the )?screen|in the picture|there)"
_WHEN = r"(?:exactly )?(?:when|at (?:what|which) (?:time|second|minute|moment|point)|what time)(?: exactly)?"
_THEN = rf"(?:right |just )?(?:next|then|afterwards|after {_THAT}|before {_THAT})"
_AT = re.compile(
    rf"{_WHEN}(?: (?:was|were) {_THAT}(?: {_DONE})?| did {_THAT} (?:happen|appear|begin|start|come up)|"
    rf" (?:did|have|has) {_WHO} {_SAY} {_THAT})?(?: exactly)?"
)
_ENDED = re.compile(
    rf"{_WHEN} did {_THAT} (?:end|stop|finish|disappear|vanish|go away|leave)|until when(?: was {_THAT} {_DONE})?"
)
_LASTED = re.compile(
    rf"(?:for )?how long(?: (?:was|were) {_THAT}(?: {_DONE})?| did {_THAT} (?:last|take|stay|go on)(?: {_DONE})?|"
    rf" has {_THAT} been {_DONE})?"
)
_WHOSE = re.compile(
    rf"who (?:said|says|told (?:us|you|them)|mentioned|asked|claimed|spoke|wrote) (?:{_THAT}|so)|who was (?:that|it)|says who|"
    rf"whose words (?:are|were) {_THAT}"
)
_WHY = re.compile(
    rf"how do you know(?: {_THAT})?|are you sure(?: (?:of|about) {_THAT})?|what makes you (?:say|think) (?:{_THAT}|so)|"
    rf"where (?:did|do|does) {_WHO} (?:{_SAY}|get) {_THAT}(?: from)?|where was {_THAT}(?: {_DONE})?|"
    rf"can you (?:prove|quote|show) {_THAT}"
)
_NEXT = re.compile(
    rf"then|then what|what then|what next|next|go on|continue|what (?:came|comes|was|is) next|"
    rf"what (?:happened|happens|came|comes|followed|was) {_THEN}|what (?:did|do|does) {_WHO} {_SAY} {_THEN}|"
    rf"what (?:was|were|is|has been) {_DONE} {_THEN}|(?:right |just )?(?:after|before) that"
)
_MEANWHILE = re.compile(
    rf"what (?:was|were) {_DONE} (?:then|meanwhile|at (?:that|the same) (?:time|moment|point)|while {_WHO} (?:said|mentioned|read) {_THAT})"
)
_NTH = r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|last|1st|2nd|3rd|[4-8]th)"
_NTH_AT = re.compile(rf"{_WHEN} was the ({_NTH})(?: one| time)?(?: {_DONE})?")
_DIRECT = (_AT, _NTH_AT, _ENDED, _LASTED, _WHOSE, _WHY, _MEANWHILE, _NEXT)
_ABOUT = re.compile(r"(?:what|how) about (.+)")
_ONE = re.compile(rf"(?:the )?({_NTH})(?: (?:one|time|thing))?")
_TIMED = re.compile(
    r" ?\b(?:(?:at|in|between|from|after|before|until)\b[^,]*\d.*|(?:right )?now|at the moment|\d+ \w+ ago)$"
)
_OPENS = re.compile(
    r"(?:what|which|who|whose|when|where|why|how|is|are|was|were|did|does|do|has|have|had|can|could|will|would|i|we|you)\b"
)
_ITS = re.compile(r"\b(?:it|they|them|that one|this one)\b")
_ITS_OWN = re.compile(
    r"(?:is|are|was|were|has|have|did|does|do|when|since when|how long|how many|how often)\b(?!.*\babout\b)"
)
_MOVES = frozenset(
    map(
        stem,
        (
            "disappear",
            "vanish",
            "go",
            "come",
            "leave",
            "still",
            "back",
            "again",
            "long",
            "stay",
            "away",
            "gone",
            "seen",
        ),
    )
)


def refers(ask: Ask) -> bool:
    """Whether a question may need what was told before; one that stands alone never does."""
    return _direct(ask) is not None or _phrase(ask) is not None or _pronoun(ask)


def _direct(ask: Ask) -> re.Pattern[str] | None:
    return next((pattern for pattern in _DIRECT if pattern.fullmatch(ask.text)), None)


def _phrase(ask: Ask) -> str | None:
    """What an elliptic question puts in the place of something: "what about the dog", "and the dog"."""
    about = _ABOUT.fullmatch(ask.text)
    if about is not None:
        return about[1]
    short = (
        re.match(r"\s*(?:and|or)\b", ask.raw.lower())
        and len(ask.text.split()) <= 6
        and not _OPENS.match(ask.text)
    )
    return ask.text if short and ask.text and _direct(ask) is None else None


def _pronoun(ask: Ask) -> bool:
    if _ITS_OWN.match(ask.text) is None or _ITS.search(ask.text) is None:
        return False
    return ask.thing is None and not ask.quoted and set(ask.about) <= _MOVES


# --- a question that stands alone -----------------------------------------------------------------------------------


def standalone(question: ParsedQuestion, before: Before | None) -> ParsedQuestion:
    """A question with what its asker was told before, in words that need nothing before them, where that can be done.

    Args:
        question: as it was asked.
        before: what the same asker asked last, and was told; None: nothing, or too long ago.
    """
    if before is None or question.question.image is not None:
        return question
    told = before.image or _nth(question.ask, before) is not None
    text = None if told else _replaced(question.ask, before.question)
    if not text:
        return replace(question, question=replace(question.question, before=before))
    return parsed(replace(question.question, text=text, before=before))


def _nth(ask: Ask, before: Before) -> int | None:
    """Which entry of a list that was told a question is about, as an index: "what about the second one"."""
    phrase = _phrase(ask)
    chosen = _ONE.fullmatch(phrase) if phrase is not None else None
    if chosen is None or before.listed is None:
        return None
    number = parse(chosen[1]).ordinal or 1
    return len(before.listed.values) - 1 if number < 0 else number - 1


def _replaced(ask: Ask, last: str) -> str | None:
    old = parse(last)
    phrase = _phrase(ask)
    if phrase is not None:
        return _put(phrase, old)
    if _direct(ask) is not None or not _pronoun(ask) or old.thing is None:
        return None
    named = _ITS.sub(f"the {old.thing[0]}", ask.text, count=1)
    if re.match(r"(?:is|are)\b", named):
        named = re.sub(r" (?:still )?(?:there|visible|shown|in the picture)(?: now)?$", " visible now", named)
    return named


def _put(phrase: str, old: Ask) -> str | None:
    """The last question, with a phrase in the place of what is like it; None: nothing in it is."""
    new = parse(phrase)
    if nth := _ONE.fullmatch(phrase):
        place = re.search(rf"\b{_NTH}\b", old.text) or re.search(r"\b(?:the|an?)(?= \w)", old.text)
        if place is None:
            return None
        article = "" if re.fullmatch(_NTH, place[0]) else "the "
        return f"{old.text[: place.start()]}{article}{nth[1]}{old.text[place.end() :]}"
    if (
        new.times
        or new.last is not None
        or new.ago is not None
        or phrase in ("now", "right now", "at the moment")
    ):
        return None if old.form in ("when", "how long") else f"{_TIMED.sub('', old.text)} {phrase}"
    if new.quoted and old.quoted:
        return old.raw.replace(old.quoted, new.quoted)
    if (about := re.search(r"\b(about|mention(?:ed|s)?) .+$", old.text)) and not old.quoted:
        return f"{old.text[: about.start()]}{about[1]} {re.sub(r'^about ', '', phrase)}"
    if old.thing is not None and new.thing is not None and not new.thing[1]:
        if old.form == "how many":
            phrase = re.sub(r"^(?:the|an?|any) ", "", phrase)
        name = r"[ -]".join(map(re.escape, old.thing[0].split()))
        found = re.sub(rf"\b(?:(?:the|an?|any) )?{name}\b", phrase, old.text.replace("-", " "), count=1)
        return found if found != old.text else None
    return None


# --- a question that the last answer's evidence answers -----------------------------------------------------------------


def followed(parsed: ParsedQuestion, timeline: Timeline, now: float) -> Finding | None:
    """What the evidence of the last answer tells; None: it is not asked about, or there was none.

    Args:
        parsed: the question, as `standalone` returns it.
        timeline: what is known.
        now: session seconds at which it is asked.
    """
    question, ask = parsed.question, parsed.ask
    if question.before is None:
        return None
    told = question.before.answer
    nth, listed = _nth(ask, question.before), question.before.listed
    if nth is not None and listed is not None:
        if nth >= len(listed.values):
            return refusal()
        value, where = listed.values[nth], listed.evidence[nth]
        return Finding(
            (f'"{quote_of(value, 30)}", ', f"from {timestamp(where.start)}."), (where,), values=(value,)
        )
    kind = _direct(ask)
    if kind is None:
        return None
    places = told.evidence
    if kind is _NTH_AT and (which := kind.fullmatch(ask.text)) is not None:
        number = parse(which[1]).ordinal or 1
        places = places[number - 1 : number] if number > 0 else places[-1:]
    if not told.supported or not places:
        return refusal()
    place = places[0]
    if kind is _WHY:
        return Finding((_cited(place),), (place,))
    if kind is _WHOSE:
        if place.kind == "screen":
            return Finding(
                (f"It was not said, it stood on the screen at {timestamp(place.start)}.",), (place,)
            )
        return Finding(("I cannot tell who speaks.",), (), supported=False)
    if place.kind in ("timeline", "image"):
        return refusal()
    if kind in (_AT, _NTH_AT):
        return Finding((f"At {timestamp(place.start)} ({place.start:.1f} s).",), (place,))
    until = _until(place, parse(question.before.question), timeline)
    place = replace(place, end=timeline.latest if until is None else until)
    if kind in (_ENDED, _LASTED):
        if until is None:
            return Finding((f"It is still shown, since {timestamp(place.start)}.",), (place,))
        if kind is _ENDED:
            return Finding((f"At {timestamp(until)} ({until:.1f} s).",), (replace(place, start=until),))
        return Finding(
            (f"{until - place.start:.0f} s, ", f"from {timestamp(place.start)} to {timestamp(until)}."),
            (place,),
        )
    heard = ask.spoken or (not ask.seen and place.kind == "speech")
    if kind is _MEANWHILE:
        if heard:
            return _quoted(timeline.words_between(place.start, max(place.end, place.start + 1.0))[:TOLD])
        return (
            sights.at(timeline, (place.start + place.end) / 2 if place.kind == "speech" else place.start)
            or refusal()
        )
    return _beside(place, timeline, now, later=re.search(r"\bbefore\b", ask.text) is None, heard=heard)


def _cited(place: Evidence) -> str:
    where = {
        "speech": "It was said",
        "screen": "It stood on the screen",
        "sight": "It was in the picture",
    }.get(place.kind)
    if where is None:
        return f"From this: {place.quote}."
    return f'{where} at {timestamp(place.start)}: "{quote_of(place.quote, 30)}"'


def _until(place: Evidence, asked: Ask, timeline: Timeline) -> float | None:
    """When what some evidence shows came to its end, as far as is known by now; None: it is shown still."""
    if place.kind == "speech":
        return place.end
    if place.kind == "screen":
        screen = timeline.screen_at(place.start)
        return screen.end if screen is not None else place.end
    spans = sights.appearances(timeline, asked.thing[0]) if asked.thing is not None else []
    end = next((span.end for span in spans if span.start <= place.start <= span.end), None)
    if end is None:
        shown = timeline.at(place.start)
        return shown.end if shown is not None else place.end
    return None if end >= timeline.latest else end


def _beside(place: Evidence, timeline: Timeline, now: float, *, later: bool, heard: bool) -> Finding:
    """What was said, or shown, right after or before some evidence."""
    if not heard:
        return sights.beside(timeline, place, later) or refusal()
    words = [
        word
        for sentence in timeline.sentences
        for word in sentence.words
        if word.end <= now and tokens(word.text)
    ]
    if not later:
        return _quoted([word for word in words if word.end <= place.start + 0.05][-TOLD:])
    since = place.end - 0.05 if place.kind == "speech" else place.start
    told = [word for word in words if word.start >= since][:TOLD]
    stops = [
        n
        for n, word in enumerate(told, 1)
        if word.text.rstrip("\"'”’").endswith((".", "?", "!")) and n >= LEAST
    ]
    return _quoted(told[: stops[0] if stops else TOLD])


def _quoted(words: Sequence[Word]) -> Finding:
    if not words:
        return refusal()
    text = " ".join(word.text for word in words)
    return Finding(
        (f"At {timestamp(words[0].start)}: ", f'"{quote_of(text, 2 * TOLD)}"'),
        (Evidence(words[0].start, words[-1].end, "speech", text),),
    )


# --- what was told --------------------------------------------------------------------------------------------------


class Memory:
    """The last question and answer of each asker who can be told from others.

    Args:
        seconds: after which an answer is forgotten.
        askers: limit; beyond it, the one who was answered longest ago is forgotten.
    """

    def __init__(self, seconds: float = SECONDS, askers: int = ASKERS) -> None:
        self._seconds, self._askers = seconds, askers
        self._last: dict[str, Before] = {}  # by asker, the newest last

    def before(self, asker: str, now: float) -> Before | None:
        """What an asker was told last, if it is not forgotten at monotonic second `now`."""
        last = self._last.get(asker)
        return last if last is not None and now - last.at <= self._seconds else None

    def note(self, asker: str, parsed: ParsedQuestion, answer: Answer, now: float) -> None:
        """Keep an answer at monotonic second `now`; of a question about the last answer, with the question that that one answered."""
        if not asker:
            return
        self._last.pop(asker, None)
        question = parsed.question
        last = question.before
        if last is not None and _direct(parsed.ask) is None and _nth(parsed.ask, last) is None:
            last = None
        image = question.image is not None or (last is not None and last.image)
        many = len(answer.values) > 1 and len(answer.values) == len(answer.evidence)
        listed = answer if many else last.listed if last is not None else None
        self._last[asker] = Before(last.question if last else question.text, answer, now, image, listed)
        while len(self._last) > self._askers:
            del self._last[next(iter(self._last))]
