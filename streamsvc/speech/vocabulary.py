"""Screen vocabulary: names and rare words on the screen, as prompt terms for the recogniser. Pure.

The recogniser misspells what it has seldom seen, and slides show just that: names, technical terms. A term is
given to it while it stands on the screen, and LINGER_SECONDS longer.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from streamsvc.core.types import ScreenText, Sight, TextLine
from streamsvc.timeline.text import stem

TERMS_MAX = 20
LINGER_SECONDS = 60.0  # for which a term is given after it has left the screen
LETTERS_MIN = 4
LETTERS_MAX = 24  # more are no word: a path, a key, words that OCR has run together
NAME_RANK = 1500  # by frequency; the commonest words are no terms even as names
SURE_SCORE = 0.97  # OCR score from which one reading of a line is enough
SCORE_MIN = 0.8  # below it a line is no reading
READINGS_MIN = 2  # different readings that a less certain word needs
ACRONYM_MAX = 6  # letters; a longer word in capitals is a heading
CANDIDATES_MAX = 400  # words remembered: several full screens
# Common words that are too short for common_words.txt.
_SHORT = "the and for you are was his her its not all one two our out who has had can".split()  # noqa: SIM905

_CACHE = 8192  # entries of the LRU cache
_CHUNK = re.compile(r"\S+")
_WORD = re.compile(r"(?<![^\W_])[^\W\d_][^\W_]*(?:[-'’][^\W_]+)*")
_ADDRESS = re.compile(r"[@/\\_=<>{}|~^]|\w[.:]\w|^[.$%#&*+-]")  # a chunk with one of these is not spoken text


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A word of the screen that may be a term.

    `place`: number of the screen, and of the word on it, when last read. `until`: session second at which it
    left the screen; None: it stands there. `sources`: different readings of lines with it, at most
    READINGS_MIN.
    """

    text: str
    name: bool
    place: tuple[int, int]
    until: float | None = None
    sure: bool = False
    sources: tuple[TextLine, ...] = ()

    @property
    def trusted(self) -> bool:
        return self.sure or len(self.sources) >= READINGS_MIN


class ScreenVocabulary:
    """The terms of one session's screens.

    Rule for full: beyond CANDIDATES_MAX words those that would be given last are forgotten.
    """

    def __init__(self) -> None:
        self._candidates: dict[str, _Candidate] = {}  # by the word in lower case
        self._readings = 0

    def __len__(self) -> int:
        """Words remembered."""
        return len(self._candidates)

    def take(self, unit: object) -> None:
        """Note a unit of the session: a reading of the screen, or a picture in which there is nothing."""
        if isinstance(unit, ScreenText):
            self.read(unit.lines, min(unit.first_seen, unit.at))
        elif isinstance(unit, Sight) and unit.blank:
            self.read((), unit.at)

    def read(self, lines: Sequence[TextLine], at: float) -> None:
        """Note a reading of the whole screen of session second `at`."""
        self._readings += 1
        shown: dict[str, _Candidate] = {}
        for line in lines:
            if line.score < SCORE_MIN:
                continue
            for text, name in candidates(line.text):
                key = text.lower()
                known = shown.get(key) or self._candidates.get(key)
                shown[key] = self._seen(known, text, name, line, len(shown))
        for key, known in self._candidates.items():
            if key not in shown:
                shown[key] = known if known.until is not None else replace(known, until=at)
        self._candidates = dict(sorted(shown.items(), key=lambda pair: _order(pair[1]))[:CANDIDATES_MAX])

    def _seen(
        self, known: _Candidate | None, text: str, name: bool, line: TextLine, number: int
    ) -> _Candidate:
        sources = known.sources if known is not None else ()
        if line not in sources:
            sources = (*sources, line)[-READINGS_MIN:]
        sure = line.score >= SURE_SCORE or (known is not None and known.sure)
        return _Candidate(text, name, (self._readings, number), None, sure, sources)

    def terms(self, at: float) -> tuple[str, ...]:
        """The terms at session second `at`, in reading order of the screens; at most TERMS_MAX.

        Where there are more, what stands on the screen goes before what has left it, the newest screen
        before older ones, and names before other words.
        """
        alive = [
            word
            for word in self._candidates.values()
            if word.trusted and (word.until is None or at < word.until + LINGER_SECONDS)
        ]
        first = sorted(alive, key=_order)[:TERMS_MAX]
        return tuple(word.text for word in sorted(first, key=lambda word: word.place))


def _order(word: _Candidate) -> tuple[float, int, bool, int]:
    """Which words go first where not all can: a sort key."""
    until = float("inf") if word.until is None else word.until
    return (-until, -word.place[0], not word.name, word.place[1])


def candidates(text: str) -> list[tuple[str, bool]]:
    """Names and rare words of a line of screen text: (word, whether it is a name)."""
    found = []
    chunks = _CHUNK.findall(text)
    words: list[str] = []
    opens = set()  # indices of words that begin a sentence
    for chunk in chunks:
        if not _ADDRESS.search(chunk):
            words += _WORD.findall(chunk)
        if chunk[-1] in ".!?:":
            opens.add(len(words))
    shouted = len(words) > 1 and all(word.isupper() for word in words)  # a heading in capitals
    lower = sum(word[0].islower() for word in words)
    for index, word in enumerate(words):
        plain = word.removesuffix("'s").removesuffix("’s")
        if not LETTERS_MIN <= sum(map(str.isalpha, plain)) <= LETTERS_MAX:
            continue
        within = index > 0 and index not in opens and 2 * lower >= len(words)  # of a sentence
        heading = shouted or (plain.isupper() and len(plain) > ACRONYM_MAX)
        name = not heading and (_is_odd(plain) or (within and plain[0].isupper()))
        if (name and rank(plain) >= NAME_RANK) or is_rare(plain):
            found.append((plain.capitalize() if heading else plain, name))
    return found


def _is_odd(word: str) -> bool:
    """Whether a word is written as only names are: CamelCase, capitals, digits."""
    return any(letter.isdigit() or letter.isupper() for letter in word[1:])


@lru_cache(maxsize=_CACHE)
def is_rare(word: str) -> bool:
    """Whether English text seldom has a word: neither the word, nor its stem, nor both of its two parts."""
    lower = word.lower()
    parts = re.split("[-'’]", lower)
    if len(parts) > 1:
        return any(len(part) >= LETTERS_MIN and is_rare(part) for part in parts)
    if rank(lower) < len(common_words()) or stem(lower) in _stems():
        return False
    return not any(
        _common_part(lower[:cut]) and _common_part(lower[cut:]) for cut in range(3, len(lower) - 2)
    )


def _common_part(text: str) -> bool:
    return text in _SHORT or text in common_words()


def rank(word: str) -> int:
    """How many words of common_words.txt are commoner in English; all of them if it is not one of them."""
    return common_words().get(word.lower(), len(common_words()))


@cache
def common_words() -> Mapping[str, int]:
    """The words of common_words.txt with their ranks; 0 is the commonest."""
    text = importlib.resources.files("streamsvc.speech").joinpath("common_words.txt").read_text("utf-8")
    words = [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]
    return {word: rank for rank, word in enumerate(words)}


@cache
def _stems() -> frozenset[str]:
    return frozenset(map(stem, common_words()))
