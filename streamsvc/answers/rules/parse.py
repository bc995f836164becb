"""What a question asks for, read by rule: its form, the times, ordinals and quotes in it, and what it is about. Pure.

English only. Nothing here knows what the session holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property

from streamsvc.core.types import Question
from streamsvc.timeline.text import QUESTION_WORDS, STOP, stem, terms, tokens
from streamsvc.vision import labels

_AUX = tokens("is are was were has have had did does do can could will would should am")
_ORDINALS = {
    word: number
    for number, words in enumerate(
        (
            "first 1st opening initial",
            "second 2nd",
            "third 3rd",
            "fourth 4th",
            "fifth 5th",
            "sixth 6th",
            "seventh 7th",
            "eighth 8th",
        ),
        1,
    )
    for word in words.split()
} | {"ninth": 9, "tenth": 10, "last": -1, "final": -1, "latest": -1}
NUMBERS = {
    word: n
    for n, word in enumerate(
        [
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
        ]
    )
}

SCREEN = re.compile(r"\b(slides?|screen|title[ds]?|heading|headline|written|text|pages?|reads|bullet)\b")
SPOKEN = re.compile(
    r"\b(sa(?:y|ys|id|ying)|speak\w*|spoken?|talk(?:s|ed|ing)?|mention\w*|narrat\w+|t(?:ell|old|ells)|heard|speech|utter\w*|refer(?:s|red)? to|discuss\w*|nam(?:e|ed) by)\b"
)
SIGHT = re.compile(
    r"\b(shown|shows?|showed|visible|displayed|pictures?|pictured|images?|photos?|appear(?:s|ed|ing)?|on camera|on (?:the )?screen|in(?:to)? (?:the )?(?:frame|shot|video|scene|view)|"
    r"(?:you|we|i|one|viewers?) (?:\w+ )?(?:see|saw|seen)|(?:be|been|is|are|was|were) (?:\w+ ){0,3}?(?:seen|in sight|in view)|look(?:ing)? at)\b"
)
NOW = re.compile(
    r"\b(now|currently|at the moment|at present|this moment|presently|this (?:picture|image|slide|screen))\b"
)
_PAST = re.compile(
    r"\b(was|were|did|had|has|have|been|came|won|first|last|earlier|later|before|after|so far|ever|yet|until|while)\b"
)
_HERE = re.compile(r"\b(left|right|middle|cent(?:er|re)|top|bottom|happening|going on|there)\b")

_CLOCK = re.compile(r"\b(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)\b")
_SECONDS = re.compile(
    r"\b(\d+(?:\.\d+)?)\s*(s|secs?|seconds?|min|mins|minutes?)\b|\b(?:second|minute) (\d+)\b"
)
_RANGE = re.compile(
    r"\b(?:between|from) (\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?)? (?:and|to|until|till) (\d+(?:\.\d+)?)\s*(?:s|secs?|seconds?)\b"
)
_QUOTED = re.compile(r"[\"“”]([^\"“”]+)[\"“”]|(?:^|(?<=\s))['‘]([^'‘’]{3,}?)['’](?=[\s?.,!]|$)|«([^»]+)»")


@dataclass(frozen=True)
class Ask:
    """A question, taken apart. `text`: lower case, straight quotes, one blank between words, no question mark."""

    raw: str
    text: str
    words: list[str]
    form: str  # "yes/no", "when", "how long", "how many" or "open"
    quoted: str | None
    times: tuple[float, ...] = field(default=())  # session seconds named, in order of the text
    last: float | None = None  # "in the last 20 seconds"
    ago: float | None = None  # "20 seconds ago"

    @cached_property
    def about(self) -> list[str]:
        """Stems of the content words that the answer must be about, in order, each once."""
        body = re.sub(r"\bhow (?:many|much|often|long|far|late|soon|early)\b", " ", self.text)
        body = _RANGE.sub(" ", _CLOCK.sub(" ", _SECONDS.sub(" ", body)))
        found = (
            stem(token)
            for token in tokens(body)
            if token not in STOP and token not in _ORDINALS and not token[0].isdigit()
        )
        told = re.search(
            r"\b(?:about|mention(?:ed)?|of) (?:the|an?) (\w+)$", self.text
        )  # of a picture, a moment, the word itself
        own = stem(told[1]) if told and self.spoken else None
        return list(
            dict.fromkeys(
                term for term in found if (term not in QUESTION_WORDS or term == own) and term != self.focus
            )
        )

    @cached_property
    def focus(self) -> str | None:
        """Stem of the noun right after "what" or "which": what the answer is, so the text need not name it ("which dish ...")."""
        found = re.match(
            r"(?:in |on |at |of |by |for |to |from |with )?(?:what|which) ([a-z]+)(?: ([a-z]+))?", self.text
        )
        if found is None or found[1] in _AUX or found[1] in STOP:
            return None
        if found[1] in ("kind", "kinds", "sort", "sorts", "type", "types") or found[2] == "of":
            return None
        return stem(found[1]) if found[2] is None or found[2] in _AUX or found[2] in STOP else None

    @cached_property
    def subject(self) -> str | None:
        """Stem of the noun that acts: "why did the KING stay", "had the STONE-CUTTER ever ...". None for pronouns and the speaker."""
        found = re.search(
            r"\b(?:did|does|do|had|has|have|was|were|is|are|could|would|can|will) (?:the|a|an|this|that|his|her|their|its|any|some) ([a-z0-9'-]+)",
            self.text,
        )
        if found is None:
            return None
        joined = terms(found[1])
        return joined[0] if joined and joined[0] not in QUESTION_WORDS else None

    @cached_property
    def definite(self) -> list[str]:
        """Stems of the nouns that must be spoken of, beside the one that acts: "what kind of BREAD did he bake", "why did he throw the first HONEY on the GRASS"."""
        found = re.findall(
            rf"\b(?:the|his|her|their|its) ((?:[a-z'-]+ ){{0,2}}?[a-z'-]+)(?= {_SMALL}\b|$)", self.text
        )
        found += re.findall(
            r"\b(?:kind|sort|type)s? of ((?:[a-z'-]+ ){0,2}?[a-z'-]+)(?= (?:is|are|was|were|did|does|do|has|have|had|can|could)\b)",
            self.text,
        )
        found += re.findall(r"\b(?:with|from|to|in|on|at|of|into) ([a-z'-]+)$", self.text)
        stems_ = [terms(words.split()[-1])[:1] for words in found]
        return [
            of[0]
            for of in stems_
            if of and of[0] not in QUESTION_WORDS and of[0] not in (self.subject, self.verb)
        ]

    @cached_property
    def verb(self) -> str | None:
        """Stem of what is done: "what did the monkey STEAL". None where it cannot be told, or is a word of the stream ("say")."""
        found = re.match(
            r"(?:what|which|whom?|whose|why|where|how)\b.*?\b(?:did|does|do|could|would|will) (?:(?:the|an?|his|her|their|its|this|that) )?([\w'-]+) (\w+)",
            self.text,
        )
        joined = terms(found[2]) if found and found[1] not in _AUX else ()
        return joined[0] if joined and joined[0] not in QUESTION_WORDS else None

    @cached_property
    def quotes(self) -> list[str]:
        """Everything that stands in quotation marks, in order."""
        return _quotes(self.raw)

    @cached_property
    def names(self) -> list[str]:
        """Stems of words written as names (a capital inside the question): they must be found."""
        return [
            t
            for word in re.findall(r"(?<=[a-z,] )([A-Z][a-zA-Z'-]+)", self.raw)
            for t in terms(word)[:1]
            if t not in QUESTION_WORDS
        ]

    @cached_property
    def owners(self) -> list[str]:
        """Stems of whose something is ("the palace of the king", "the king's palace"): they must be found, or it is another's."""
        words = re.findall(r"\bof (?:the|an?|his|her|their) (\w+)|\b(\w+)'s (?!been\b|there\b)\w", self.text)
        return [
            t
            for pair in words
            for word in pair
            if word
            for t in terms(word)[:1]
            if t not in QUESTION_WORDS and word not in ("what", "who", "it", "that")
        ]

    @cached_property
    def ordinal(self) -> int | None:
        """1 for first, -1 for last, None where no ordinal is used ("30 seconds" is none)."""
        body = re.sub(
            r"\d+(?:\.\d+)? seconds?|second \d+|(?:what|which) second\b|in the last|last \d+", " ", self.text
        )
        return next((_ORDINALS[word] for word in tokens(body) if word in _ORDINALS), None)

    @cached_property
    def thing(self) -> tuple[str, list[str]] | None:
        """The first thing that a vision model could name, and the content words beside it (colours, places, actions)."""
        return thing_in(self.text)

    @property
    def on_screen(self) -> bool:
        """Whether it is about text on the screen."""
        return SCREEN.search(
            self.text.replace("on the screen", "").replace("on screen", "")
        ) is not None or bool(re.search(r"\b(written|text) on\b", self.text))

    @property
    def spoken(self) -> bool:
        """Whether it is about what was said."""
        return SPOKEN.search(self.text) is not None

    @property
    def seen(self) -> bool:
        """Whether it is about what the picture shows."""
        return SIGHT.search(self.text) is not None

    @property
    def now(self) -> bool:
        """Whether it is about this moment."""
        return NOW.search(self.text) is not None

    @property
    def present(self) -> bool:
        """Whether the picture of this moment answers it: not what was, what was said, or what stands written."""
        timed = (
            self.times or self.last is not None or self.ago is not None or self.form in ("when", "how long")
        )
        if timed or self.quoted or self.spoken or self.on_screen or _PAST.search(self.text):
            return False
        return self.now or self.seen or self.thing is not None or _HERE.search(self.text) is not None


_SMALL = r"(?:of|in|on|at|to|for|from|with|by|into|onto|out|off|away|down|up|back|when|while|after|before|until|because|so|and|or|that|which|who|as|than)"
# Other ways to say the same, each put as the rules know it; the first ones stand for contractions.
_PLAINER = tuple(
    (re.compile(pattern), plain)
    for pattern, plain in (
        (r"'s (?=been\b)", " has "),
        (r"\b(what|who|where|when|how|that|there|it|he|she)'s\b", r"\1 is"),
        (r"\b(what|who|where|when|how)s\b", r"\1 is"),
        (r"\b(what|who|where|when|how|they|we|you)'re\b", r"\1 are"),
        (r"\b(what|who|where|when|how)'d\b", r"\1 did"),
        (r"^(?:can't|cannot)\b", "can"),
        (r"^(is|are|was|were|has|have|had|did|does|do|could|would)n'?t\b", r"\1"),
        (r"\b(?:exactly|actually|precisely|specifically|basically|roughly|approximately)\b ?", ""),
        (r",? (?:please|thanks|thank you|do you know|by the way|at all)$", ""),
        (r"\b(you|we|i|anyone|anybody) (?:notice|spot)(?:d|ted)?\b", r"\1 see"),
        (r"\b(\d+) ?(?:m|min|mins|minutes?),? ?(?:and )?(\d)(?= ?(?:s|secs?|seconds?)\b)", r"\1:0\2"),
        (r"\b(\d+) ?(?:m|min|mins|minutes?),? ?(?:and )?(\d\d)(?= ?(?:s|secs?|seconds?)\b)", r"\1:\2"),
        (r"(?<=:\d\d) ?(?:s|secs?|seconds?)\b", ""),
        (r"^any (?=\w)", "was there any "),
        (r"^did i miss (?:any|an?|the) (?=mention)", "was there any "),
        (r"^is it (?:true|correct|right) that ", "whether "),
        (r"\b(?:get|gets|got|getting) (?=(?:said|mentioned|shown|spoken|discussed|displayed)\b)", ""),
        (r"^what is the (?:story|deal|matter|thing|news) (?:with|about) ", "what was said about "),
        (r"\b(?:on the subject of|on the topic of|when it comes to)\b", "about"),
        (r"\b(?:regarding|concerning|with regard to|with respect to)\b", "about"),
        (r"^(?:summari[sz]e|sum up|explain) (?=what\b)", ""),
        (r"\b(?:around|near|about|circa) (?=\d)", "at "),
        (
            r"^what (?:did|do|could|can) (?:you|we|i) hear (?=at\b|between\b|from\b|in the\b|\d)",
            "what was said ",
        ),
        (r"\b(?:could|can) be read\b", "was on the screen"),
    )
)
_OPENING = re.compile(
    r"^(?:(?:please|so(?! far)|and|but|ok|okay|hey|hi|hello|well|just|also|quick question|"
    r"(?:(?:can|could|would|will) you (?:please )?)?(?:please )?(?:tell|remind) me(?: again)?|"
    r"(?:(?:can|could) you (?:please )?say|do you (?:happen to )?(?:know|remember|recall)|any idea|i(?:'d| would) like to know|i want to know|"
    r"i(?:'m| am| was) wondering|i wonder|let me know)(?=,? (?:when|what|who|whom|where|which|why|how|if|whether|at|in)))\b[,: ]*)+"
)
_NUMBERED = re.compile(rf"\b(slide|page|screen)(?: number| no)? ({'|'.join(NUMBERS)})\b")
_SOMEBODY = re.compile(r"\b(?:any|some|no)(?:body|one)\b")
_COMES_UP = re.compile(
    r"\b(?:(?:come|comes|came|coming|bring|brings|brought|pops?|popped) up|(?:get|gets|got) (?:a )?mention(?:ed)?)\b"
)
# Other ways to ask what was said about something.
_ABOUT = re.compile(
    r"^(?:please )?(?:what (?:do|can|did) (?:you|we|i) (?:know|learn|hear|tell (?:me|us))|(?:can you |could you )?(?:please )?tell (?:me|us)(?: more| something| everything)?|"
    r"what (?:do|did) (?:they|he|she|people) (?:say|tell (?:me|us))(?: more)?|what is (?:there )?(?:said|to say|known)) (?:about|of|regarding|concerning) "
)


def parse(raw: str) -> Ask:
    """Take a question apart.

    Args:
        raw: the question as typed, any length, any text.
    """
    straight = raw.replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    text = " ".join(re.sub(r"[?!]+|[.](?=\s|$)", " ", straight.lower()).split())
    text = _OPENING.sub("", _ABOUT.sub("what was said about ", text))
    for pattern, plain in _PLAINER:
        text = pattern.sub(plain, text)
    text = _NUMBERED.sub(lambda found: f"{found[1]} {NUMBERS[found[2]]}", text)
    text = " ".join(_ABOUT.sub("what was said about ", text).split())
    if _COMES_UP.search(text) and not (
        SCREEN.search(text) or SIGHT.search(text) or thing_in(_SOMEBODY.sub("", text))
    ):
        text = _COMES_UP.sub("mentioned", text)
    claimed = re.match(r"(?:if|whether) ", text)
    text = text[claimed.end() :] if claimed else text
    words = tokens(text)
    last = re.search(r"\b(?:last|past|previous) (\d+|[a-z]+)?\s*(seconds?|minutes?|s|min)\b", text)
    ago = re.search(r"\b(\d+|[a-z]+) (seconds?|minutes?|s|min) ago\b", text)
    return Ask(
        raw,
        text,
        words,
        "yes/no" if claimed else _form(text, words),
        next(iter(_quotes(raw)), None),
        () if last or ago else _times(text),
        _span(last[1], last[2]) if last else None,
        _span(ago[1], ago[2]) if ago else None,
    )


def _quotes(raw: str) -> list[str]:
    return [next(group for group in found if group) for found in _QUOTED.findall(raw)]


def thing_in(text: str) -> tuple[str, list[str]] | None:
    """The longest, first phrase that names a thing of the models, and the other content words."""
    words = tokens(text.replace("-", " "))
    for length in (3, 2, 1):
        for index in range(len(words) - length + 1):
            phrase = " ".join(words[index : index + length])
            if length == 1 and (
                phrase in STOP
                or (
                    stem(phrase) in QUESTION_WORDS
                    and phrase not in ("anybody", "anyone", "somebody", "someone")
                )
            ):
                continue
            if labels.known(phrase):
                others = words[:index] + words[index + length :]
                return phrase, [
                    word
                    for word in others
                    if word not in STOP
                    and stem(word) not in QUESTION_WORDS
                    and word not in (*_ORDINALS, "many")
                    and not word[0].isdigit()
                ]
    return None


def _form(text: str, words: list[str]) -> str:
    first = words[0] if words else ""
    if re.match(
        r"(?:since |until |by |from |around |about )?when\b|(?:at |around |about |in )?(?:what|which) (?:time|timestamp|moment|second|minute|point in time)\b|at (?:what|which) point\b|"
        r"how (?:far (?:in|into)|late|soon|early)\b|where in the (?:recording|talk|video|stream|lecture|speech|clip|audio)\b|how many (?:seconds|minutes) in(?:to)?\b|what (?:is|was) the (?:timestamp|moment)\b|what (?:is|was) the (?:second|minute|time|point) (?:when|at which|in which|that)\b",
        text,
    ):
        return "when"
    if first == "how" and words[1:2] == ["long"]:
        return "how long"
    if re.match(r"how many\b|how often\b|what (?:is the )?number of\b", text):
        return "how many"
    return "yes/no" if first in _AUX else "open"


def _times(text: str) -> tuple[float, ...]:
    spans = _RANGE.search(text)
    if spans:
        return float(spans[1]), float(spans[2])
    found = [
        (m.start(), float(m[1] or 0) * 3600 + float(m[2]) * 60 + float(m[3])) for m in _CLOCK.finditer(text)
    ]
    for m in _SECONDS.finditer(text):
        value = float(m[1] or m[3])
        found.append((m.start(), value * 60 if (m[2] or m[0]).startswith("min") else value))
    return tuple(value for _, value in sorted(found))


def _span(number: str | None, unit: str) -> float:
    count = float(number) if number and number.isdigit() else float(NUMBERS.get(number or "one", 1))
    return count * (60.0 if unit.startswith("min") else 1.0)


@dataclass(frozen=True, slots=True)
class ParsedQuestion:
    """A question and what it asks for, parsed once and carried along."""

    question: Question
    ask: Ask


def parsed(question: Question) -> ParsedQuestion:
    """The question with what its text asks for."""
    return ParsedQuestion(question, parse(question.text))
