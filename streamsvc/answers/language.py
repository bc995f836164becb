"""The language of a question. The packaged encoders know English alone, so it decides who may answer.

A naive Bayes model over byte n-grams (py3langid), read so that a short or sloppy English question is not
taken for another language: English unless another one is likely and English is not.
"""

from __future__ import annotations

from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

ENGLISH = "en"
# Chosen on 700 English questions (the examples, the develop half, made-up short ones with foreign names), of
# which one is lost, and 64 in 22 other languages, of which 62 are found.
_ENGLISH_AT_MOST = 0.05
_OTHER_AT_LEAST = 0.2


@cache
def _identifier() -> LanguageIdentifier:
    """The model; loading takes 0.2 to 1 s of one core."""
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def prepare() -> None:
    """Load the model; on a thread, where nothing may wait."""
    _identifier()


def language_of(text: str) -> str:
    """ISO 639-1 code of the language of a question, "en" where it is not clear; 0.3 ms."""
    first, *rest = text.split() or [""]
    # A capital inside a sentence begins a name, which says nothing about the language of the rest.
    ranks = _identifier().rank(" ".join([first, *(word for word in rest if not word[:1].isupper())]))
    language, share = ranks[0]
    if dict(ranks)[ENGLISH] >= _ENGLISH_AT_MOST or share < _OTHER_AT_LEAST:
        return ENGLISH
    return str(language)
