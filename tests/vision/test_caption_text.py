"""A VLM's sentence is a caption where it is short, new and of the picture; its beginning is shown before."""

from __future__ import annotations

import itertools
import random

import pytest

from streamsvc.vision.caption_text import MAX_WORDS, begun, caption

KNOWN = ["A cat.", "A cat on a mat."]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("A dog lies on the sofa.", "A dog lies on the sofa."),
        ("[3] 0:03 Answer: **A dog** lies\non the sofa.", "A dog lies on the sofa."),
        ("A cat on a mat.", ""),  # known
        ("The picture shows a cat and a mat.", ""),
        ("The last picture shows a dog.", "A dog."),
        ("In the picture, a dog has come in.", "A dog has come in."),
        ("The picture shows ", ""),
        ("A mouse.", "A mouse."),
        ("Nothing new.", ""),
        ("There is no change.", ""),
        ("The dog is still on the sofa.", ""),
        ("I cannot see that.", ""),
        ('A sign says "Exit".', ""),
        ("A speaker explains the budget.", ""),
        ("...", ""),
        ("", ""),
        ("A dog and " * (MAX_WORDS // 3) + "a horse run.", ""),
    ],
)
def test_what_is_not_short_new_and_of_the_picture_is_not_told(said: str, told: str) -> None:
    assert caption(said, KNOWN) == told


@pytest.mark.parametrize(
    ("so_far", "shown"),
    [
        ("", ""),
        ("A d", ""),
        ("A dog", ""),  # it may be a dogfish
        ("A dog ", "A dog"),
        ("A cat on a mat and ", ""),  # nothing of it is new
        ("A cat on a mat and a dog ", "A cat on a mat and a dog"),
        ("The dog ", ""),  # it may be "The dog picture shows"
        ("The dog lies on the ", ""),
        ("The dog lies on the sofa ", "The dog lies on the sofa"),
        ("The last picture now shows ", ""),
        ("The last picture now shows a dog ", "A dog"),
        ("In the picture, a dog ", "A dog"),
        ("[3] 0:03 Answer: The picture shows a dog ", "A dog"),
        ("[3] 0:03 ", ""),
        ("**A dog** ", "A dog"),
        ("A sign that says ", ""),
    ],
)
def test_the_whole_words_of_an_unfinished_sentence_are_shown_once_they_say_something_new(
    so_far: str, shown: str
) -> None:
    assert begun(so_far, KNOWN) == shown


def test_what_was_shown_is_the_beginning_of_what_comes_next_or_is_withdrawn_for_good() -> None:
    rng = random.Random(5)
    heads = ["", "In the picture, ", "The last image now shows ", "[1] 0:03 Picture: ", "**", "The "]
    words = [
        "a",
        "dog",
        "no",
        "new",
        "cat",
        "still",
        "on",
        "it",
        "says",
        "can",
        "not",
        "red",
        "3",
        "sofa,",
        "in",
    ]
    told = 0
    for _ in range(500):
        sentence = rng.choice(heads) + " ".join(rng.choices(words, k=rng.randrange(1, 12))) + "."
        parts = [begun(sentence[:end], KNOWN) for end in range(len(sentence) + 1)]
        parts.append(caption(sentence, KNOWN))
        begins = next((n for n, part in enumerate(parts) if part), len(parts))
        for one, other in itertools.pairwise(parts[begins:]):
            assert not other or (one and other.startswith(one)), sentence
        told += bool(parts[-1])
    assert told > 50
