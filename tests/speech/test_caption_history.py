"""The history gives back the captions that it was given."""

from __future__ import annotations

import pytest

from streamsvc.core.types import Cue, Word
from streamsvc.speech.caption_history import CaptionHistory
from streamsvc.speech.captions import compact, text_of


def cue(at: float, *texts: str, text: str = "", language: str = "en") -> Cue:
    words = tuple(Word(one, at + n / 4, at + n / 4 + 0.2, 0.75) for n, one in enumerate(texts))
    return Cue("s", "main", at, at + 1, text or text_of(words), words, len(words), True, language)


CUES = [
    cue(1.0, "Once", "more."),
    cue(3.5, "\u4f60", "\u597d", language="zh"),  # without blanks
    cue(5.0, '"quoted"', "\ud800", "a\nb", ""),
    cue(7.25, "other", "text", text="Another text."),
    cue(100_000.125, "late"),
]


def test_captions_come_back_as_they_were_in_order() -> None:
    history = CaptionHistory(10)
    for one in CUES:
        history.append(one)
    assert list(history) == [compact(one) for one in CUES] == CUES
    assert (len(history), history[-1], history[1:3]) == (5, CUES[-1], tuple(CUES[1:3]))
    assert list(reversed(history)) == CUES[::-1]
    with pytest.raises(IndexError):
        history[5]


def test_over_the_limit_the_oldest_goes() -> None:
    history = CaptionHistory(2)
    assert not history
    for one in CUES:
        history.append(compact(one))
    assert list(history) == CUES[-2:]
