"""Scene captions by rule: what a picture shows with confidence. Pure."""

from __future__ import annotations

from collections import Counter

from streamsvc.core.types import Box, Evidence, Scene, Sight, Tag
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels

BOX_CONFIDENT = 0.5  # score from which a box is named, if it is of LARGE or a tag confirms it
BOX_CONFIDENT_ALONE = 0.75  # for others: the detector finds phones and clocks in plain patterns
TAG_CONFIDENT = 0.5  # score from which a tag of a whole picture is named
TAG_POSSIBLE = 0.3  # score from which a tag may confirm what a question names
LARGE = ("person", "animal", "vehicle", "chair", "couch", "bed", "dining table", "cup", "bottle")
NAMES_MAX = 5  # names in a caption


def names(sight: Sight) -> Counter[str]:
    """Plain names of what a picture shows with confidence, with counts."""
    if sight.blank:
        return Counter()
    counts = Counter(labels.plain(box.label) for box in sight.boxes if confident(box, sight))
    for tag in sight.tags:
        if tag.score >= TAG_CONFIDENT and not any(labels.is_a(tag.label, name) for name in counts):
            counts[labels.plain(tag.label)] += 1
    return counts


def confident(box: Box, sight: Sight) -> bool:
    """Whether a box of a picture is certain enough to be named."""
    large = any(labels.is_a(box.label, kind) for kind in LARGE)
    confirmed = large or any(labels.is_a(tag.label, box.label) for tag in sight.tags)
    return box.score >= (BOX_CONFIDENT if confirmed else BOX_CONFIDENT_ALONE)


def phrase(sight: Sight) -> str | None:
    """A picture in words, without capital and full stop; None if nothing is known."""
    if sight.blank:
        black = any(tag.label == "black" for tag in sight.tags)
        return "the picture is black" if black else "the picture is blank"
    persons_first = sorted(names(sight).items(), key=lambda item: (item[0] != "person", -item[1]))
    counted = [labels.counted(name, count) for name, count in persons_first][:NAMES_MAX]
    if not counted:
        return None
    return counted[0] if len(counted) == 1 else f"{', '.join(counted[:-1])} and {counted[-1]}"


def scene(timeline: Timeline, sight: Sight) -> Scene | None:
    """The caption of a new scene, or None if nothing is known or nothing has changed.

    Args:
        timeline: what came before, its last Scene included.
        sight: the newest picture; it may be on the timeline already.
    """
    shown = phrase(sight)
    if shown is None:
        return None
    text = f"{shown[0].upper()}{shown[1:]}."
    if timeline.scenes and timeline.scenes[-1].text == text:
        since = timeline.scenes[-1].start
        between = [item.sight for item in timeline.shown if since <= item.start < sight.at]
        if not any(other is not None and phrase(other) not in (None, shown) for other in between):
            return None
    evidence = Evidence(sight.at, sight.at, "sight", quote(sight), sight.at)
    return Scene(
        sight.session,
        sight.track,
        sight.at,
        sight.arrived,
        text,
        sight.at,
        sight.at,
        (evidence,),
        sight.stages,
    )


def labelled(sight: Sight) -> list[Box | Tag]:
    """All labels with scores: boxes, then tags."""
    return [*sight.boxes, *sight.tags]


def quote(sight: Sight) -> str:
    """The labels of a picture with their scores, as evidence."""
    if sight.blank:
        return "blank picture"
    return ", ".join(
        f"{item.label} {item.score:.2f}" for item in labelled(sight) if item.score >= TAG_POSSIBLE
    )


def count_shown(sight: Sight, name: str) -> int:
    """How many of a label a picture shows with confidence; 1 if only a tag has it."""
    boxes = sum(confident(box, sight) and labels.is_a(box.label, name) for box in sight.boxes)
    return boxes or int(is_shown(sight, name))


def is_shown(sight: Sight, name: str) -> bool:
    """Whether a picture shows a label with confidence."""
    return not sight.blank and (
        any(confident(box, sight) and labels.is_a(box.label, name) for box in sight.boxes)
        or any(tag.score >= TAG_CONFIDENT and labels.is_a(tag.label, name) for tag in sight.tags)
    )
