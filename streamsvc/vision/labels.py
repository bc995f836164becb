"""Labels of the vision models in plain words. Pure.

"Egyptian cat" is a cat and an animal, "missile" is a rocket. Labels are the 80 of COCO (the detector) and the
1000 of ImageNet (the tagger, up to the first comma). Absence can be stated only of what the detector knows
(`detectable`): a tag names one label of a whole picture.
"""

from __future__ import annotations

from functools import lru_cache

from streamsvc.timeline.text import stem, tokens
from streamsvc.vision.label_tables import (
    COCO,
    COLLECTIVE_GROUPS,
    IMAGENET_GROUPS,
    NARROW,
    PLACES,
    SYNONYMS,
    WIDER_GROUPS,
    names_of,
)

UNCOUNTABLE = ("coffee", "scissors", "skis", "broccoli", "food")
NUMBERS = (
    "no",
    "",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)


def _key(phrase: str) -> str:
    """A phrase as stems, as labels are compared."""
    return " ".join(stem(token) for token in tokens(phrase.replace("-", " ")))


def _groups_by_label() -> dict[str, frozenset[str]]:
    """Key of a label or group -> keys of its groups and synonyms."""
    groups: dict[str, set[str]] = {}
    for group, names in IMAGENET_GROUPS.items():
        for name in names_of(names):
            groups.setdefault(_key(name), set()).add(_key(group))
    for group, names in COCO.items():
        for name in names_of(names):
            groups.setdefault(_key(name), set()).add(_key(group))
    for name, synonyms in SYNONYMS.items():
        groups.setdefault(_key(name), set()).update(_key(synonym) for synonym in names_of(synonyms))
    for group, members in WIDER_GROUPS.items():
        for member in names_of(members):
            groups.setdefault(_key(member), set()).add(_key(group))
    return {name: frozenset(keys) for name, keys in groups.items()}


def _plain_names() -> dict[str, str]:
    """Key of an ImageNet label -> name of the first group that may replace it."""
    plain_names: dict[str, str] = {}
    for group, names in IMAGENET_GROUPS.items():
        if group not in COLLECTIVE_GROUPS:
            for name in names_of(names):
                plain_names.setdefault(_key(name), group)
    return plain_names


_GROUPS = _groups_by_label()
_PLAIN_NAMES = _plain_names()
_COCO_LABELS = [name for names in COCO.values() for name in names_of(names)]
_COCO_KEYS = frozenset(map(_key, _COCO_LABELS))
_NARROW_KEYS = frozenset(map(_key, NARROW))
_LABELS_BY_PLACE = {
    stem(place): tuple(names_of(names)) for places, names in PLACES.items() for place in names_of(places)
}


@lru_cache(maxsize=4096)
def kinds(label: str) -> frozenset[str]:
    """All that a label may be called, as stems.

    That is the label, its last word, its groups and wider groups, and synonyms.
    """
    key = _key(label.split(",")[0])
    keys = {key}
    if " " in key and key not in _COCO_KEYS:
        keys.add(key.split(" ")[-1])  # "coffee mug" is a mug
    frontier = list(keys)
    while frontier:
        wider = _GROUPS.get(frontier.pop(), frozenset()) - keys
        frontier += wider
        keys |= wider
    return frozenset(keys)


def is_a(label: str, phrase: str) -> bool:
    """Whether a word or phrase of a question denotes a label."""
    key = _key(phrase)
    return key in kinds(label) or key in ("object", "thing")


def plain(label: str) -> str:
    """The plain name of a label: "Egyptian cat" -> "cat"; its own name if it has none."""
    name = label.split(",")[0].strip()
    key = _key(name)
    if key in _PLAIN_NAMES:
        return _PLAIN_NAMES[key]
    return name.lower() if key in _COCO_KEYS else name


@lru_cache(maxsize=4096)
def known(phrase: str) -> bool:
    """Whether a phrase names a label or group of the tables."""
    return _key(phrase) in _KNOWN_KEYS


@lru_cache(maxsize=4096)
def detectable(phrase: str) -> bool:
    """Whether the detector would have boxed it, so that its absence may be stated.

    True of a group only where the detector knows its usual members.
    """
    key = _key(phrase)
    return any(key in kinds(label) for label in _COCO_LABELS) and key not in _NARROW_KEYS


def at_place(place: str) -> tuple[str, ...]:
    """Labels and groups that a place would show; empty for other places."""
    return _LABELS_BY_PLACE.get(stem(place.lower()), ())


def article(name: str) -> str:
    """The name with "a" or "an", or without if it is uncountable."""
    if name in UNCOUNTABLE or name.endswith("site"):
        return name
    return ("an " if name[:1].lower() in "aeiou" else "a ") + name


def plural(name: str) -> str:
    """The plural of a plain name."""
    if name == "person":
        return "persons"
    if name.endswith(("skis", "scissors")) or name in ("sheep", "fish"):
        return name
    if name == "mouse":
        return "mice"
    if name == "knife":
        return "knives"
    return name + "es" if name.endswith(("s", "x", "ch", "sh")) else name + "s"


def singular(name: str) -> str:
    """What one of a label, group or synonym is called: "people", "somebody" -> "person"."""
    key = _key(name)
    for known_name in (*_COCO_LABELS, *COCO, *IMAGENET_GROUPS, *WIDER_GROUPS):
        if _key(known_name) == key:
            return known_name
    meant = (label for label, words in SYNONYMS.items() if key in map(_key, names_of(words)))
    return next(meant, name)


def counted(name: str, count: int) -> str:
    """A name with its number, such as "two persons" or "a car"."""
    if count == 1:
        return article(name)
    return f"{NUMBERS[count] if count < len(NUMBERS) else count} {plural(name)}"


_KNOWN_KEYS = frozenset(
    key
    for name in (
        *_COCO_LABELS,
        *IMAGENET_GROUPS,
        *(n for names in IMAGENET_GROUPS.values() for n in names_of(names)),
    )
    for key in kinds(name)
)
