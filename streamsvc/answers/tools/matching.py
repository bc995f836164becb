"""Where words were said, or stood on the screen. Pure.

Words match by their stems; those of a compound may be written apart or together. A word that was misread on
the screen is forgiven where two others of the line are right.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence

from streamsvc.core.types import Evidence
from streamsvc.timeline.text import stem, terms, tokens
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.transcript import Sentence

MISREAD = 0.7  # likeness of a misread word to what it is
RIGHT_BESIDE = 2  # words of a line that are right where one is misread
FAR = 8  # words by which those of a loose mention may lie apart, beside two for each of them


def mentions(timeline: Timeline, text: str) -> list[Evidence]:
    """Every time at which a text was said or came onto the screen, by time."""
    return sorted((*spoken(timeline, text), *written(timeline, text)), key=lambda span: span.start)


def spoken(timeline: Timeline, text: str) -> list[Evidence]:
    """Every time at which a text was said: word for word, else all its content words near together.

    Each begins with the first of the words and ends with its sentence.
    """
    return _word_for_word(timeline.sentences, text) or _near_together(timeline.sentences, text)


def written(timeline: Timeline, text: str) -> list[Evidence]:
    """The lines on the screen that hold the content words of a text, by time."""
    wanted = frozenset(terms(text))
    tracks = timeline.text_tracks.all() if wanted else []
    found = [track for track in tracks if wanted <= frozenset(terms(track.text))]
    if not found:
        found = [track for track in tracks if _is_misread(wanted, frozenset(terms(track.text)))]
    return [track.evidence(timeline.latest) for track in found]


def holds_any(timeline: Timeline, text: str) -> bool:
    """Whether any content word of a text was said or stood on the screen."""
    wanted = frozenset(terms(text))
    lines = [sentence.text for sentence in timeline.sentences]
    lines += [track.text for track in timeline.text_tracks.all()]
    return any(wanted & _with_compounds(line) for line in lines)


def is_complete(timeline: Timeline) -> bool:
    """Whether all that was said and shown is known, so that it can be told that something was not."""
    lost = any(gap.end - gap.start > 1.0 for gap in timeline.gaps)
    return not lost and timeline.folded_until < 0 and not timeline.dropped.total()


def _word_for_word(sentences: Sequence[Sentence], text: str) -> list[Evidence]:
    wanted = tokens(text)
    heard = [(word, sentence) for sentence in sentences for word in sentence.words]
    plain = ["".join(tokens(word.text)) for word, _ in heard]
    found = []
    for place in range(len(plain)) if wanted else ():
        if _matched(plain, place, wanted):
            word, sentence = heard[place]
            found.append(Evidence(word.start, max(word.end, sentence.end), "speech", sentence.text))
    return found


def _matched(plain: Sequence[str], place: int, wanted: Sequence[str]) -> bool:
    """Whether wanted words follow each other from a place on; compounds may be cut otherwise."""
    here, rest = place, list(wanted)
    while rest and here < len(plain):
        two = plain[here] + plain[here + 1] if here + 1 < len(plain) else ""
        if stem(plain[here]) == stem(rest[0]):
            here, rest = here + 1, rest[1:]
        elif two and stem(two) == stem(rest[0]):
            here, rest = here + 2, rest[1:]
        elif len(rest) > 1 and stem(plain[here]) == stem(rest[0] + rest[1]):
            here, rest = here + 1, rest[2:]
        else:
            return False
    return not rest


def _near_together(sentences: Sequence[Sentence], text: str) -> list[Evidence]:
    wanted = frozenset(terms(text))
    found = []
    for sentence in sentences if len(wanted) > 1 else ():
        if not wanted <= _with_compounds(sentence.text):
            continue
        plain = ["".join(tokens(word)) for word in sentence.words.texts]
        places = [place for place, word in enumerate(plain) if stem(word) in wanted]
        if places and places[-1] - places[0] <= 2 * len(wanted) + FAR:
            found.append(Evidence(sentence.words[places[0]].start, sentence.end, "speech", sentence.text))
    return found


def _with_compounds(text: str) -> frozenset[str]:
    """The terms of a text, and its neighbouring words joined."""
    words = tokens(text)
    return frozenset(terms(text)) | {stem(one + other) for one, other in itertools.pairwise(words)}


def _is_misread(wanted: frozenset[str], held: frozenset[str]) -> bool:
    odd = wanted - held
    if len(odd) != 1 or len(wanted) - 1 < RIGHT_BESIDE:
        return False
    return bool(difflib.get_close_matches(next(iter(odd)), held - wanted, 1, MISREAD))
