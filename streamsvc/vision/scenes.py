"""Scene captions by rule: what a picture shows with confidence, and which slide it is. Pure.

A slide is a scene of its own. Its caption comes once it is read, and takes the place of what was said of the
same picture before; until the picture changes as a whole nothing else is said of it.
"""

from __future__ import annotations

from collections import Counter

from streamsvc.core.types import Box, Evidence, Scene, ScreenText, Sight, Tag
from streamsvc.timeline.text_tracks import same_letters
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels

BOX_CONFIDENT = 0.5  # score from which a box is named, if it is of LARGE or a tag confirms it
BOX_CONFIDENT_ALONE = 0.75  # for others: the detector finds phones and clocks in plain patterns
TAG_CONFIDENT = 0.5  # score from which a tag of a whole picture is named
TAG_POSSIBLE = 0.3  # score from which a tag may confirm what a question names
LARGE = ("person", "animal", "vehicle", "chair", "couch", "bed", "dining table", "cup", "bottle")
NAMES_MAX = 5  # names in a caption
SLIDE_LINES = 2  # of text that a slide has at least, ...
SLIDE_LINES_AMONG = 4  # ... and where a thing is seen beside them
TITLE_WORDS = 12  # of a slide in its caption
NEW_PICTURE = ("first", "scene")  # reasons of keyframes that stand for another picture than before


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
    if shown is None or _on_slide(timeline, sight):
        return None
    text = f"{shown[0].upper()}{shown[1:]}."
    if timeline.scenes and timeline.scenes[-1].text == text:
        since = timeline.scenes[-1].start
        between = [item.sight for item in timeline.shown if since <= item.start < sight.at]
        if not any(other is not None and phrase(other) not in (None, shown) for other in between):
            return None
    return _scene(sight, text, Evidence(sight.at, sight.at, "sight", quote(sight), sight.at))


def slide(timeline: Timeline, text: ScreenText) -> Scene | None:
    """The caption of a new slide, by its title or its first line; None: it is no slide, or not a new one.

    Args:
        timeline: what came before, its last Scene included.
        text: the newest reading; it may be on the timeline already.
    """
    shown = timeline.at(text.at)
    sight = shown.sight if shown is not None else None
    among_things = sight is not None and any(confident(box, sight) for box in sight.boxes)
    if len(text.lines) < (SLIDE_LINES_AMONG if among_things else SLIDE_LINES):
        return None
    name = " ".join((text.title or text.lines[0].text).split()[:TITLE_WORDS])
    last = timeline.scenes[-1] if timeline.scenes else None
    if last is not None and _is_slide(last) and same_letters(last.evidence[0].quote, name):
        return None
    evidence = Evidence(text.at, text.at, "screen", name, text.at)
    return _scene(text, f"Slide \u201c{name}\u201d.", evidence)


def _scene(unit: Sight | ScreenText, text: str, evidence: Evidence) -> Scene:
    head = unit.session, unit.track, unit.at, unit.arrived
    return Scene(*head, text, unit.at, unit.at, (evidence,), unit.stages)


def _is_slide(scene: Scene) -> bool:
    return bool(scene.evidence) and scene.evidence[0].kind == "screen"


def _on_slide(timeline: Timeline, sight: Sight) -> bool:
    """Whether a picture is the slide still that the last caption tells of."""
    shown = timeline.at(sight.at)
    return (
        bool(timeline.scenes)
        and _is_slide(timeline.scenes[-1])
        and timeline.screen_at(sight.at) is not None
        and shown is not None
        and shown.reason not in NEW_PICTURE
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
