"""Words of a transcript: sentences and distinctive words."""

from __future__ import annotations

from load_tests.question_words import SpokenWord, distinctive, words_of

TALK = (
    "The miller carried a lantern to the harbour, and the miller slept. "
    "Nobody saw the lighthouse burn; it was dark."
)


def spoken(text: str) -> list[SpokenWord]:
    items = [{"w": word, "start": float(n), "end": n + 0.5} for n, word in enumerate(text.split())]
    return words_of({"words": items}, 100.0)


def test_sentences_end_at_their_marks_and_words_after_the_end_are_left_out() -> None:
    words = spoken(TALK)
    assert [word.text for word in words if word.sentence == 1] == [
        "Nobody",
        "saw",
        "the",
        "lighthouse",
        "burn;",
    ]
    assert (
        len(words_of({"words": [{"w": "a", "start": 0, "end": 1}, {"w": "b", "start": 9, "end": 10}]}, 5.0))
        == 1
    )


def test_distinctive_words_occur_once() -> None:
    words = spoken(TALK)
    assert [word.bare for word in distinctive(words)] == [
        "carried",
        "lantern",
        "harbour",
        "slept",
        "nobody",
        "lighthouse",
    ]
