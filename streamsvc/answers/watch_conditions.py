"""Watches: plain words become cheap checks on what is seen, read and heard, and fire when one becomes true. Pure.

A check fires on the edge: when a thing is there that was not, when a word is said, when another slide is shown. A thing that a look or
two overlook has not been away (ABSENT). What no model here can tell is refused when the watch is made, not accepted in silence.
All times are session seconds.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from streamsvc.answers.rules.parse import thing_in
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import Evidence, ScreenText, Sight, Word
from streamsvc.timeline.text import terms
from streamsvc.vision import labels, scenes

ABSENT = 2.5  # seconds without it after which a thing has been away
SPAN = 8.0  # seconds within which all words of a phrase are said
NEAR = 2  # words that may stand between those of a phrase
CLOSE = 0.4  # cosine from which a passage is about a topic; load_tests/search.py says what that finds, and how often wrongly
IN_MIND = 3  # passages behind the last close one for which a topic is still the same talk about it
SILENCE = 5.0  # seconds that are silence where nobody says how many
LONGEST = 200  # characters of a watch
_NAMES = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_NUMBERS = {word: n for n, word in enumerate(_NAMES)} | {"second": 2, "another": 2}
_COUNT = rf"(\d+|{'|'.join(_NUMBERS)})"
_OPENING = re.compile(
    r"^(?:please )?(?:(?:tell|alert|notify|warn|ping|inform|message|remind) (?:me|us)|let (?:me|us) know|say so|"
    r"(?:watch|look)(?: out)?|wait)?"
    r"[ ,:]*(?:as soon as|the moment|every time|each time|when(?:ever)?|if|once|that|for|until|about)?[ ,:]*(?:there (?:is|are|'s) )?"
)
_UNTOLD = re.compile(
    r"\b(colou?r\w*|red|blue|green|yellow|orange|purple|pink|brown|grey|gray|white|wear\w*|dress\w*|cloth\w*|hat|music|song|applause|clap\w*|"
    r"laugh\w*|noise|loud\w*|bark\w*|siren\w*|ring\w*|sings?|singing|happy|sad|angry|bored|tired|nervous|smil\w*|cry\w*|looks? at|feel\w*|"
    r"beautiful|ugly|fast|slow\w*|falls?|fell|fight\w*|runs?|running|jump\w*|danc\w*|wav(?:e|es|ing)|steal\w*|open(?:s|ed)?|clos(?:e|es|ed))\b"
)
_SILENT = re.compile(
    r"\b(?:nobody|no ?one|no-one) (?:speaks?|talks?|is (?:speaking|talking)|says? anything|has (?:spoken|talked|said anything))\b|"
    r"\b(?:stops?|stopped|pauses?|finish\w*|ends?) (?:speaking|talking|the talk)\b|"
    r"\b(?:silence|silent|goes quiet|is quiet|falls quiet|the speaker (?:stops|pauses))\b"
)
_SPEAKS = re.compile(
    r"\b(?:start\w*|begin\w*|resum\w*|continu\w*) (?:to )?(?:speak\w*|talk\w*)\b|\b(?:speech|talk|talking) (?:starts?|begins?|resumes?)\b|"
    r"^(?:somebody|someone|anybody|anyone) (?:speaks?|talks?|says (?:something|anything))$"
)
_SCREEN = r"(?:screen|slide|page|board|terminal|presentation|title|document)"
_ANOTHER = re.compile(
    rf"\b{_SCREEN}s? (?:is |are |has |gets |was )?(?:chang\w+|switch\w*|turn\w*|flip\w*|advanc\w*|moves? on|replaced)\b|"
    rf"\b(?:new|next|another|different|following) {_SCREEN}\b|"
    rf"\b(?:chang\w+|turn\w*|switch\w*) (?:of )?(?:the |to )?(?:\w+ )?{_SCREEN}\b"
)
_WRITTEN = re.compile(
    rf"\b(?:on|in) (?:the |a |any |one )?{_SCREEN}s?\b|\b{_SCREEN} (?:says|shows|reads|has|contains|mentions|with)\b|"
    r"\b(?:written|text|reads)\b"
)
_SAID = re.compile(
    r"\b(?:says?|said|saying|mentions?|mentioned|talks?|talked|talking|speaks?|spoke|speaking|discuss\w*|refers?|referred|brings? up|"
    r"brought up|comes? up|utters?|hears?|heard|words?|phrase|spoken|announc\w*|asks?|asked)\b"
)
_TOPIC = re.compile(
    r"\b(?:(?:talk|speak|spoke|hear|tell|told|ask)\w* (?:about|of)|discuss\w*|brings? up|refers? to|(?:is|are) about|"
    r"(?:topic|subject|conversation|discussion|talk) (?:is|becomes|comes|turns|moves|gets|changes)(?: on)?(?: to| about)?) "
    r"(?:the (?:topic|subject) of )?(.+)$"
)
_BLANK = re.compile(r"\b(?:black|blank|dark|empty)\b")
_PICTURE = re.compile(r"\b(?:picture|screen|video|image|camera|view|it)\b")
_GOES = re.compile(
    r"\b(?:leaves?|left|disappears?|disappeared|gone|goes (?:away|off)|vanish\w*|no longer|exits?|walks? (?:out|away|off)|"
    r"drives? (?:off|away|out)|moves? away|out of (?:view|sight|the picture|frame)|removed|no more|not (?:there|visible|in view))\b|^no "
)
# What a sentence about a thing may say beside it: it is there, in the picture, comes in.
_THERE = re.compile(
    r"^(?:appear\w*|com\w*|came|arriv\w*|enter\w*|walk\w*|pass\w*|driv\w*|show\w*|visible|seen|see\w*|spot\w*|detect\w*|present|view|picture|"
    r"frame|camera|screen|sight|image|video|scene|room|again|first|last|street|road|by|into|on|in|at|turn\w*|up|mov\w*|park\w*|find|found|get\w*|"
    r"more|than|least|over|most|exactly|leav\w*|left|disappear\w*|gone|go\w*|away|off|vanish\w*|longer|exit\w*|out|remov\w*|no|not|there|any|"
    r"person|people|shot|look\w*|be\w*)$"
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look for.

    `kind`: "thing" (`least` to `most` of `thing` are shown), "gone", "blank", "slide" (another screen of text), "written" and "said"
    (all of `words`, as stems), "silence" (for `seconds`), "speech" (somebody begins to speak). `topic`: of "said", what it is about; then
    what means as much is told too.
    """

    kind: str
    thing: str = ""
    least: int = 1
    most: float = inf
    words: frozenset[str] = frozenset()
    topic: str = ""
    seconds: float = SILENCE


@dataclass(frozen=True, slots=True)
class Alert:
    """A check that became true. `at`: when; `arrived`: monotonic, of what showed it."""

    text: str
    at: float
    arrived: float
    evidence: tuple[Evidence, ...]


def compiled(when: str) -> tuple[Check, ...]:
    """The checks of which one must become true.

    Raises:
        InvalidRequest: "cannot_watch": no model here can tell that; the message says what can be watched.
    """
    quoted = re.search(r"[\"“”']([^\"“”']{2,80})[\"“”'](?!\w)", when)
    text = " ".join(re.sub(r"[^\w\s'\-:]", " ", when.lower().replace("’", "'")).split())
    body = _OPENING.sub("", text, count=1).strip()
    if not body or len(when) > LONGEST:
        raise _refused(f"a watch has 1 to {LONGEST} characters")
    if re.search(r"\b(?:not|never|without|\w+n't|neither)\b", body) and not _GOES.search(body):
        raise _refused("that something does not happen is told of silence and of things that are gone alone")
    if _SILENT.search(body):
        found = re.search(rf"\b{_COUNT} (seconds?|secs?|minutes?|mins?)\b", body)
        seconds = float(_number(found[1])) * (60 if found[2].startswith("m") else 1) if found else SILENCE
        return (Check("silence", seconds=seconds),)
    if _SPEAKS.search(body):
        return (Check("speech"),)
    if re.search(r"\b(?:nobody|no ?one|no-one|nothing)\b", body):
        raise _refused("that nobody does something is told of silence alone")
    if _ANOTHER.search(body) and not quoted:
        return (Check("slide"),)
    if (written := _WRITTEN.search(body)) and (
        words := _words(quoted[1] if quoted else _SAID.sub(" ", body), written)
    ):
        return (Check("written", words=words),)
    if (about := _TOPIC.search(body)) and not quoted and (words := _words(about[1])):
        return (Check("said", words=words, topic=about[1]),)
    if said := _SAID.search(body):
        words = _words(quoted[1] if quoted else body, said)
        if not words:
            raise _refused("it does not say which words")
        return (Check("said", words=words),)
    if quoted and (words := _words(quoted[1])):
        return Check("said", words=words), Check("written", words=words)
    return tuple(_of_things(part) for part in re.split(r"\bor\b", body))


def _of_things(body: str) -> Check:
    if _BLANK.search(body) and _PICTURE.search(body):
        return Check("blank")
    if untold := _UNTOLD.search(body):
        raise _refused(f"colours, sounds, feelings and actions such as {untold[0]!r} are not told apart here")
    number = re.search(rf"\b(more than|over|at least|exactly)? ?\b{_COUNT} ", body)
    found = thing_in(body.replace(number[2], " ", 1) if number else body)
    if found is None:
        if (shown := re.search(r"\b(?:is|are) (?:shown|displayed|presented)\b", body)) and (
            words := _words(body, shown)
        ):
            return Check("written", words=words)
        raise _refused("it names nothing that the vision models here know")
    thing, others = found
    strange = [
        word for word in others if not _THERE.match(word) and word not in _NUMBERS and not word.isdigit()
    ]
    if strange:
        raise _refused(f"nothing here tells {strange[0]!r} of a thing in the picture")
    least = _number(number[2]) + (number[1] in ("more than", "over")) if number else 1
    if _GOES.search(body):
        if not labels.detectable(thing):
            raise _refused(f"that {thing!r} is gone cannot be told: the detector does not know it")
        return Check("gone", thing=thing)
    if least > 1 and not labels.detectable(thing):
        raise _refused(f"{thing!r} cannot be counted: the detector does not know it")
    exactly = number is not None and number[1] == "exactly"
    return Check("thing", thing=thing, least=max(1, least), most=max(1, least) if exactly else inf)


def _refused(why: str) -> InvalidRequest:
    can = "things of the vision models' lists, another slide, words on the screen, words that are said, silence and a black picture can"
    return InvalidRequest(f"this cannot be watched: {why}; {can}", code="cannot_watch")


def _number(text: str) -> int:
    return int(text) if text.isdigit() else _NUMBERS[text]


_ABOUT = frozenset(
    terms(
        "somebody someone anybody anyone speaker teacher presenter lecturer people person word words phrase term name says said mention "
        "talk about discuss comes up appears shown shows visible written text title screen slide page board terminal presentation document "
        "displayed reads read heard hear topic subject something everything called new next time first again stands announces refers asks"
    )
)


def _words(text: str, verb: re.Match[str] | None = None) -> frozenset[str]:
    """The stems that matter: behind the verb, or before it where nothing stands behind."""
    parts = [text] if verb is None or verb.string != text else [text[verb.end() :], text[: verb.start()]]
    for part in parts:
        if words := frozenset(terms(part)) - _ABOUT:
            return words
    return frozenset()


@dataclass(slots=True)
class _Edge:
    """Whether something is there, with what overlooks it for a moment left out."""

    there: bool = False
    last: float = -inf  # when it was last seen
    missed: int = 0  # looks in a row that did not see it

    def rises(self, holds: bool, at: float) -> bool:
        """Take one look; whether it has just come."""
        if holds:
            new = not self.there
            self.there, self.last, self.missed = True, at, 0
            return new
        self.missed += 1
        if self.there and self.missed >= 2 and at - self.last >= ABSENT:
            self.there = False
        return False


@dataclass(slots=True)
class Watch:
    """One watch of a session. `fired`: how often; `cooldown`: seconds after one alert in which there is no other."""

    id: str
    when: str
    checks: tuple[Check, ...]
    cooldown: float
    fired: int = 0
    _last: float = -inf
    _edges: dict[int, _Edge] = field(default_factory=dict)
    _heard: deque[tuple[Word, tuple[str, ...]]] = field(default_factory=lambda: deque(maxlen=24))
    _page: tuple[str, ...] = ()
    _silence: float = -inf  # when the silence began that has been told
    _mind: dict[str, int] = field(
        default_factory=dict
    )  # of each topic, for how many passages more it is in mind

    def saw(self, sight: Sight) -> Alert | None:
        """Take what one keyframe shows. Every check takes every look; the first that becomes true is told."""
        found: Alert | None = None
        for number, check in self._of("thing", "gone", "blank"):
            edge = self._edges.setdefault(number, _Edge())
            count = 0 if sight.blank or check.kind == "blank" else scenes.shows(sight, check.thing)
            holds = sight.blank if check.kind == "blank" else check.least <= count <= check.most
            was = edge.there
            rose = edge.rises(holds, sight.at)
            if check.kind == "gone":
                if was and not edge.there:
                    found = found or self._alert(
                        f"No {labels.plain(check.thing)} is shown any more",
                        sight.at,
                        sight.arrived,
                        _shown(edge.last, sight),
                    )
            elif rose:
                told = scenes.phrase(sight) or "the picture is blank"
                told = (
                    told[:1].upper()
                    + told[1:]
                    + ("" if sight.blank else " is shown" if count == 1 else " are shown")
                )
                found = found or self._alert(told, sight.at, sight.arrived, _shown(sight.at, sight))
        return found

    def read(self, page: ScreenText) -> Alert | None:
        """Take the text of a screen."""
        found: Alert | None = None
        lines = tuple(line.text for line in page.lines)
        before, self._page = self._page, lines
        for number, check in self._of("slide", "written"):
            if check.kind == "slide":
                new = bool(lines) and bool(before) and _another(before, lines)
                told, quote = "Another slide is shown", page.title or " ".join(lines)
            else:
                held = [line for line in lines if check.words & set(terms(line))]
                holds = check.words <= set(terms(" ".join(lines)))
                new = self._edges.setdefault(number, _Edge()).rises(holds, page.at)
                if not holds:
                    self._edges[number].there = False  # text is read or not; nothing flickers
                told, quote = "On the screen", " ".join(held)
            if new:
                quote = _cut(quote)
                found = found or self._alert(
                    f'{told}: "{quote}"',
                    page.at,
                    page.arrived,
                    Evidence(page.at, page.at, "screen", quote, page.at),
                )
        return found

    def heard(self, words: Sequence[Word], arrived: float) -> Alert | None:
        """Take newly stable words."""
        checks = self._of("said")
        for word in words if checks else ():
            self._heard.append((word, terms(word.text)))
            for _, check in checks:
                if not set(self._heard[-1][1]) & check.words:
                    continue
                near = [
                    each
                    for each in list(self._heard)[-(len(check.words) + NEAR) :]
                    if word.start - each[0].start <= SPAN
                ]
                if check.words <= {term for _, found in near for term in found}:
                    self._heard.clear()
                    quote = _cut(" ".join(each.text for each, _ in near))
                    span = Evidence(near[0][0].start, word.end, "speech", quote)
                    return self._alert(f'Said: "{quote}"', word.end, arrived, span)
        return None

    @property
    def topics(self) -> tuple[str, ...]:
        """What is to be compared with what is said, by meaning."""
        return tuple(check.topic for check in self.checks if check.topic)

    def meant(self, likeness: Mapping[str, float], passage: Evidence, arrived: float) -> Alert | None:
        """Take how close a passage is to each topic. What has been told by its words is not told again."""
        for topic in self.topics:
            close = likeness.get(topic, 0.0) >= CLOSE
            before = self._mind.get(topic, 0)
            self._mind[topic] = IN_MIND if close else max(0, before - 1)
            if close and not before and self._last < passage.start:
                return self._alert(f'About {topic}: "{_cut(passage.quote)}"', passage.end, arrived, passage)
        return None

    def spoke(self, at: float, arrived: float) -> Alert | None:
        """Somebody begins to speak."""
        if self._of("speech"):
            return self._alert("Somebody speaks", at, arrived, Evidence(at, at, "timeline", "speech began"))
        return None

    def quiet(self, since: float, now: float, arrived: float) -> Alert | None:
        """Nobody has spoken since a time."""
        for _, check in self._of("silence"):
            if now - since >= check.seconds and since > self._silence:
                self._silence = since
                told = f"Nobody has spoken for {now - since:.0f} seconds"
                return self._alert(told, now, arrived, Evidence(since, now, "timeline", "no speech"))
        return None

    def _of(self, *kinds: str) -> list[tuple[int, Check]]:
        return [(number, check) for number, check in enumerate(self.checks) if check.kind in kinds]

    def _alert(self, text: str, at: float, arrived: float, evidence: Evidence) -> Alert | None:
        if at - self._last < self.cooldown:
            return None
        self._last = at
        self.fired += 1
        return Alert(text if text.endswith('"') else f"{text}.", at, arrived, (evidence,))


def _another(before: Iterable[str], now: Iterable[str]) -> bool:
    """Whether less than half of the words are those of the page before."""
    old, new = ({term for line in page for term in terms(line)} for page in (before, now))
    return len(old & new) < 0.5 * max(len(old), len(new), 1)


def _shown(start: float, sight: Sight) -> Evidence:
    return Evidence(start, sight.at, "sight", scenes.quote(sight), sight.at)


def _cut(text: str) -> str:
    return text if len(text) <= 120 else text[:119].rsplit(" ", 1)[0] + "…"
