"""Logged events as the units that they were published as, to fill a timeline from a session's log. Pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from streamsvc.core.types import (
    Answer,
    Box,
    Cue,
    Evidence,
    Gap,
    Keyframe,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Tag,
    TextLine,
    Translation,
    VideoFrame,
    Word,
)

LoggedUnit = Cue | Gap | Keyframe | Scene | ScreenText | Sight | Speech
LoggedEvent = Mapping[str, Any]  # as in the log: envelope and body together
_NO_EMBEDDING = np.zeros(0, np.float32)


def units_of(events: Iterable[LoggedEvent]) -> Iterator[LoggedUnit]:
    """The units of a timeline that events were made of, in their order; other events are passed over.

    So are a model's scene captions, which are on no timeline. What the log does not hold is left empty: times
    of arrival, stages, pixels, embeddings. Times are rounded to milliseconds, places to four decimals.
    """
    for event in events:
        made = _UNITS.get(event["type"])
        if made is not None and event.get("by") != "model":
            yield made(event)


def translations_of(
    events: Iterable[LoggedEvent], originals: MutableMapping[str, tuple[float, float]]
) -> Iterator[Translation]:
    """The translated captions among events; those whose original the log has lost are passed over.

    Args:
        events: of the log, in their order.
        originals: start and end by id of the captions of earlier calls; those of this call are added.
    """
    for event in events:
        if event["type"] == "caption.final":
            originals[event["id"]] = event["start"], event["end"]
        elif event["type"] == "caption.translation" and event["of"] in originals:
            of = event["of"]
            yield Translation(*_head(event), of, event["text"], event["language"], *originals[of])


def answer_of(event: LoggedEvent) -> Answer:
    """The answer that an `answer.done` without an error tells; pictures of its evidence are left out."""
    return Answer(
        event["question_id"],
        event["text"],
        event["supported"],
        _evidence(event),
        outcome=event["outcome"],
        reason=event.get("reason", ""),
        by=event.get("by", "tool"),
    )


def _head(event: LoggedEvent) -> tuple[str, str, float, float]:
    """The first four fields of every unit."""
    return str(event["session"]), str(event["track"]), float(event["at"]), 0.0


def _cue(event: LoggedEvent) -> Cue:
    words = tuple(
        Word(word["text"], word["start"], word["end"], word["probability"]) for word in event["words"]
    )
    return Cue(*_head(event), event["text"], words, len(words), True, event["language"])


def _gap(event: LoggedEvent) -> Gap:
    return Gap(*_head(event), event["start"], event["end"], event["reason"])


def _keyframe(event: LoggedEvent) -> Keyframe:
    head = _head(event)
    return Keyframe(*head, VideoFrame(*head, None, 0, 0), event["reason"])


def _sight(event: LoggedEvent) -> Sight:
    tags = tuple(Tag(tag["label"], tag["score"]) for tag in event["tags"])
    boxes = tuple(Box(box["label"], box["score"], *_rectangle(box), _colours(box)) for box in event["boxes"])
    return Sight(
        *_head(event),
        _NO_EMBEDDING,
        tags,
        boxes,
        event.get("blank", False),
        of=event["of"],
        colours=_colours(event),
        background=_colours(event, "background"),
        same_as=event.get("same_as"),
    )


def _colours(item: Mapping[str, Any], key: str = "colours") -> tuple[str, ...]:
    return tuple(map(sys.intern, item.get(key, ())))


def _screen(event: LoggedEvent) -> ScreenText:
    lines = tuple(
        TextLine(line["text"], line.get("score", 1.0), *_rectangle(line)) for line in event["lines"]
    )
    return ScreenText(*_head(event), event["title"], lines, event["first_seen"], of=event["of"])


def _scene(event: LoggedEvent) -> Scene:
    return Scene(*_head(event), event["text"], event["start"], event["end"], _evidence(event), by=event["by"])


def _evidence(event: LoggedEvent) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(item["start"], item["end"], item["kind"], item["quote"]) for item in event["evidence"]
    )


def _rectangle(item: Mapping[str, float]) -> tuple[float, float, float, float]:
    return item["x"], item["y"], item["w"], item["h"]


_UNITS: Mapping[str, Callable[[LoggedEvent], LoggedUnit]] = {
    "caption.final": _cue,
    "caption.gap": _gap,
    "keyframe.sampled": _keyframe,
    "scene.caption": _scene,
    "screen.text": _screen,
    "sight.ready": _sight,
    "speech.started": lambda event: Speech(*_head(event), True),
    "speech.stopped": lambda event: Speech(*_head(event), False),
}
