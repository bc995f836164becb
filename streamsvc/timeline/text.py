"""Terms of a text for retrieval: stems of its content words, with near synonyms joined. Pure; English."""

from __future__ import annotations

import itertools
import re
from functools import lru_cache

from streamsvc.timeline import word_lists

_TOKEN = re.compile(r"[a-z0-9]+(?:['’][a-z]+)?(?:[.:]\d+)?", re.ASCII)
_HYPHEN = re.compile(r"(?<=[a-z])[-‐‑](?=[a-z])")
_COMPOUND_PART = re.compile(r"[a-z]+(?=[-‐‑][a-z])|(?<=[a-z][-‐‑])[a-z]+")
_CACHE = 32_768  # entries of each LRU cache

STOP = frozenset(word_lists.STOP.split())
NEGATIONS = frozenset(word_lists.NEGATIONS.split())
_IRREGULAR = {
    form: base
    for base, *forms in (entry.split() for entry in word_lists.IRREGULAR.split(";"))
    for form in forms
}


def tokens(text: str) -> list[str]:
    """Words and numbers in lower case. Hyphens are removed: "by-law" gives "bylaw"."""
    return _TOKEN.findall(_HYPHEN.sub("", text.lower().replace("’", "'").replace("‘", " ")))


@lru_cache(maxsize=_CACHE)
def terms(text: str) -> tuple[str, ...]:
    """Stems of the content words, in order; a hyphenated compound gives its parts too."""
    words = [token for token in tokens(text) if token not in STOP]
    if _HYPHEN.search(text.lower()):
        words += [part for part in _COMPOUND_PART.findall(text.lower()) if part not in STOP]
    return tuple(map(stem, words))


@lru_cache(maxsize=_CACHE)
def bag(text: str) -> frozenset[str]:
    """Terms of a line, its negations, and neighbours joined: "by law" has "bylaw"."""
    words = tokens(text)
    joined = {stem(a + b) for a, b in itertools.pairwise(words)}
    return frozenset(terms(text)) | joined | {stem(word) for word in words if word in NEGATIONS}


@lru_cache(maxsize=_CACHE)
def stem(word: str) -> str:
    """A light stem: plural, -ing, -ed, -ly, irregular forms; British spelling and near synonyms joined."""
    base = _base(word.removesuffix("'s").replace("'", ""))
    return _SYNONYMS.get(base, base)


def stems(words: str) -> frozenset[str]:
    """The stems of words separated by blanks."""
    return frozenset(map(stem, words.split()))


def related(term: str) -> frozenset[str]:
    """Stems that a question may mean by a stem, itself included."""
    return _RELATED.get(term, frozenset((term,)))


def homophones(term: str) -> frozenset[str]:
    """Stems that a recogniser may write for a stem, itself included."""
    return _HOMOPHONES.get(term, frozenset((term,)))


def _base(word: str) -> str:
    word = _IRREGULAR.get(word, word)
    if len(word) <= 3 or word[0].isdigit():
        return word
    word = _without_ly(_without_ing_ed(_singular(word)))
    word = _american(word)
    word = _IRREGULAR.get(word, word)
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _without_ing_ed(word: str) -> str:
    for suffix in ("ing", "ed"):
        root = word.removesuffix(suffix)
        if root != word and len(root) > 2 and re.search("[aeiouy]", root):
            if root[-1] == root[-2] and root[-1] not in "lsz":
                root = root[:-1]  # stopped
            return root[:-1] + "y" if root.endswith("i") else root
    return word


def _without_ly(word: str) -> str:
    return word[:-2] if word.endswith("ly") and len(word) > 5 else word


def _american(word: str) -> str:
    """-our as -or, -ise and -isation as -ize and -ization; also "-is", which -ed and -ing leave."""
    if word.endswith("our") and len(word) > 5:
        word = word.replace("our", "or")
    shortest = 6 if word.endswith("is") else 7
    if len(word) >= shortest and word.endswith(("is", "ise", "isation")):
        word = re.sub("is(e|ation)?$", r"iz\1", word)
    return word


def _groups(text: str) -> dict[str, frozenset[str]]:
    """Stem -> the stems of all groups that it is in."""
    members: dict[str, frozenset[str]] = {}
    for group in map(stems, text.split(";")):
        for term in group:
            members[term] = members.get(term, frozenset()) | group
    return members


_SYNONYMS = {
    _base(word): _base(group.split()[0]) for group in word_lists.SYNONYMS.split(";") for word in group.split()
}
_RELATED = _groups(word_lists.RELATED)
_HOMOPHONES = _groups(word_lists.HOMOPHONES)
QUESTION_WORDS = stems(word_lists.QUESTION)
