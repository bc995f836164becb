"""The object that the condition of a watch names. Pure; English."""

from __future__ import annotations

from streamsvc.answers.times import ORDINALS
from streamsvc.timeline.text import QUESTION_WORDS, STOP, stem, tokens
from streamsvc.vision import labels

_ANYBODY = ("anybody", "anyone", "somebody", "someone")  # words about the stream that name a label too
_LONGEST = 3  # words of a label


def thing_in(text: str) -> tuple[str, list[str]] | None:
    """The longest, first phrase that names a label or a group of labels, and the content words beside it."""
    words = tokens(text.replace("-", " "))
    for length in range(_LONGEST, 0, -1):
        for start in range(len(words) - length + 1):
            phrase = " ".join(words[start : start + length])
            if (length > 1 or _is_content(phrase)) and labels.known(phrase):
                others = words[:start] + words[start + length :]
                return phrase, [word for word in others if _qualifies(word)]
    return None


def _is_content(word: str) -> bool:
    return word in _ANYBODY or (word not in STOP and stem(word) not in QUESTION_WORDS)


def _qualifies(word: str) -> bool:
    """Whether a word beside an object says more of it than how many there are."""
    if word in STOP or stem(word) in QUESTION_WORDS:
        return False
    return word not in ORDINALS and word != "many" and not word[0].isdigit()
