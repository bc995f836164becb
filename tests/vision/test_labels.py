"""Labels in plain words; absence is stated only of what the detector knows."""

from __future__ import annotations

import pytest

from streamsvc.vision.labels import at_place, counted, detectable, is_a, known, plain, singular


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
def test_a_label_is_what_plain_words_denote(label: str, word: str) -> None:
    assert is_a(label, word)


@pytest.mark.parametrize(
    "label, word", [("hot dog", "dog"), ("cat", "dog"), ("football helmet", "person"), ("cup", "coffee")]
)
def test_a_label_is_not_another_one(label: str, word: str) -> None:
    assert not is_a(label, word)


def test_absence_can_be_stated_only_of_what_the_detector_knows() -> None:
    assert detectable("dog") and detectable("zebra") and detectable("people")
    assert not detectable("astronaut") and not detectable("rocket") and not detectable("coffee")
    assert known("rocket") and not known("unicorn")


def test_names_are_plain_and_counted() -> None:
    assert plain("tabby, tabby cat") == "cat"
    assert (counted("person", 2), counted("airplane", 1)) == ("two persons", "an airplane")
    assert "car" in at_place("road") and at_place("moon") == ()


@pytest.mark.parametrize(
    "name, one",
    [("people", "person"), ("somebody", "person"), ("dogs", "dog"), ("animals", "animal"), ("orb", "orb")],
)
def test_one_of_many_has_a_name(name: str, one: str) -> None:
    assert singular(name) == one
