"""Labels answer to plain words, and absence is stated only where the detector could have seen the thing."""

from __future__ import annotations

import pytest

from streamsvc.vision.labels import at_place, counted, detectable, is_a, known, plain


@pytest.mark.parametrize(
    "label, word",
    [
        ("golden retriever", "dog"),
        ("Egyptian cat", "cats"),
        ("missile", "rocket"),
        ("espresso", "coffee"),
        ("espresso", "drink"),
        ("car", "vehicle"),
        ("cell phone", "phone"),
        ("person", "people"),
    ],
)
def test_a_label_answers_to_plain_words(label: str, word: str) -> None:
    assert is_a(label, word)


@pytest.mark.parametrize(
    "label, word", [("hot dog", "dog"), ("cat", "dog"), ("football helmet", "person"), ("cup", "coffee")]
)
def test_a_label_does_not_answer_to_what_it_is_not(label: str, word: str) -> None:
    assert not is_a(label, word)


def test_absence_is_told_only_of_what_the_detector_knows() -> None:
    assert detectable("dog") and detectable("zebra") and detectable("people")
    assert not detectable("astronaut") and not detectable("rocket") and not detectable("coffee")
    assert known("rocket") and not known("unicorn")


def test_names_are_plain_and_counted() -> None:
    assert plain("tabby, tabby cat") == "cat"
    assert (counted("person", 2), counted("airplane", 1)) == ("two persons", "an airplane")
    assert "car" in at_place("road") and at_place("moon") == ()
