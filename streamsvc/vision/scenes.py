"""Scene captions and what a picture surely shows, composed by rule. Pure."""

from __future__ import annotations

from collections import Counter

from streamsvc.core.types import Box, Evidence, Scene, Sight, Tag
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels

BOX_SURE = 0.5  # score from which a detected thing is named
BOX_LONE = (
    0.75  # ... a small thing that no tag agrees with: the detector sees phones and clocks in plain patterns
)
TAG_SURE = 0.5  # ... from which a whole picture's tag is named
TAG_MAY = 0.3  # from which a tag may confirm what a question already names
LARGE = (
    "person",
    "animal",
    "vehicle",
    "chair",
    "couch",
    "bed",
    "dining table",
    "cup",
    "bottle",
)  # boxes of these are right more often


def names(sight: Sight) -> Counter[str]:
    """What one picture surely shows, by plain name, with counts."""
    if sight.blank:
        return Counter()
    found = Counter(labels.plain(box.label) for box in sight.boxes if sure(box, sight))
    for tag in sight.tags:
        if tag.score >= TAG_SURE and not any(labels.is_a(tag.label, name) for name in found):
            found[labels.plain(tag.label)] += 1
    return found


def sure(box: Box, sight: Sight) -> bool:
    """Whether a detected thing of a picture is certain enough to be named."""
    agreed = any(labels.is_a(box.label, kind) for kind in LARGE) or any(
        labels.is_a(tag.label, box.label) for tag in sight.tags
    )
    return box.score >= (BOX_SURE if agreed else BOX_LONE)


def phrase(sight: Sight) -> str | None:
    """A picture in words, no capital and no stop; None where nothing is known."""
    if sight.blank:
        black = any(tag.label == "black" for tag in sight.tags)
        return "the picture is black" if black else "the picture is blank"
    found = [
        labels.counted(name, count)
        for name, count in sorted(names(sight).items(), key=lambda item: (item[0] != "person", -item[1]))
    ][:5]
    if not found:
        return None
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def scene(timeline: Timeline, sight: Sight) -> Scene | None:
    """The caption of a new scene, or None where nothing is known or nothing has changed.

    Args:
        timeline: what came before, its last Scene included.
        sight: the newest picture; it may be on the time line already.
    """
    told = phrase(sight)
    if told is None:
        return None
    text = f"{told[0].upper()}{told[1:]}."
    if timeline.scenes and timeline.scenes[-1].text == text:
        before = [
            item
            for item in timeline.shown
            if timeline.scenes[-1].start <= item.start < sight.at and item.sight is not None
        ]
        if not any(item.sight is not None and phrase(item.sight) not in (None, told) for item in before):
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
        dict(sight.stages),
    )


def labelled(sight: Sight) -> list[Box | Tag]:
    """Everything that has a label and a score: boxes, then tags."""
    return [*sight.boxes, *sight.tags]


def quote(sight: Sight) -> str:
    """The labels behind a picture's words, with scores."""
    if sight.blank:
        return "blank picture"
    return ", ".join(f"{item.label} {item.score:.2f}" for item in labelled(sight) if item.score >= TAG_MAY)


def shows(sight: Sight, thing: str) -> int:
    """How many of a thing a picture surely shows; one where only a tag tells of it."""
    boxes = sum(sure(box, sight) and labels.is_a(box.label, thing) for box in sight.boxes)
    return boxes or int(holds(sight, thing))


def holds(sight: Sight, thing: str) -> bool:
    """Whether a picture surely shows a thing."""
    return not sight.blank and (
        any(sure(box, sight) and labels.is_a(box.label, thing) for box in sight.boxes)
        or any(tag.score >= TAG_SURE and labels.is_a(tag.label, thing) for tag in sight.tags)
    )
