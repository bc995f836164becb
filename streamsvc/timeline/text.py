"""Terms of a text: stems of its content words. Pure; English."""

from __future__ import annotations

import re
from functools import lru_cache

from streamsvc.timeline import word_lists

_TOKEN = re.compile(r"[a-z0-9]+(?:['’][a-z]+)?(?:[.:]\d+)?", re.ASCII)
_HYPHEN = re.compile(r"(?<=[a-z])[-‐‑](?=[a-z])")
_COMPOUND_PART = re.compile(r"[a-z]+(?=[-‐‑][a-z])|(?<=[a-z][-‐‑])[a-z]+")
_CACHE = 32_768  # entries of each LRU cache

STOP = frozenset(word_lists.STOP.split())
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
def stem(word: str) -> str:
    """A light stem: plural, -ing, -ed, -ly, irregular forms; British and American spelling are one."""
    return _base(word.removesuffix("'s").replace("'", ""))


def stems(words: str) -> frozenset[str]:
    """The stems of words separated by blanks."""
    return frozenset(map(stem, words.split()))


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


QUESTION_WORDS = stems(word_lists.QUESTION)
