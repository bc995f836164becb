"""Scenarios: a recording, what is true of it, and the questions that are asked about it at their times.

A scenario is a media file with its truth beside it (NAME.json), a truth that names its media ("file"), or a recording that a
manifest.json above it describes: that one has words alone. Truth, all but "file" optional: {"duration_s", "play_s", "intervals":
[{"start", "end", "kind", "label", "title", "text", "things"}], "transcript", "words": [{"w", "start", "end"}], "speech": [{"start",
"end"}], "qa": [see grade.py, and "ask_at_s"], "noise", "accent", "channel"}, seconds throughout. "play_s": only so much of it is
played. A question whose time lies behind the end is asked when all has been understood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamsvc.core.errors import ConfigError

SLICES = ("noise", "accent", "channel")
_MEDIA = {".mp4", ".mkv", ".webm", ".mov", ".flac", ".wav", ".mp3", ".m4a", ".ogg", ".opus"}
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A recording and its truth. `seconds`: of it that are played, None: all. `slices`: by which word errors are told apart."""

    name: str
    media: Path
    truth: Mapping[str, Any]
    slices: Mapping[str, str]
    seconds: float | None = None


def found(paths: Sequence[Path]) -> list[Scenario]:
    """The scenarios that paths name: media files, truths, or folders of them, in order, none twice.

    Raises:
        ConfigError: a path is not there, holds no scenario, or its truth cannot be read.
    """
    scenarios: dict[tuple[Path, str], Scenario] = {}
    for path in paths:
        if path.is_dir():
            truths = [each for each in sorted(path.glob("*.json")) if each.name != _MANIFEST]
            inside = [scenario for each in truths if (scenario := _of_truth(each, strict=False)) is not None]
            told = {scenario.media for scenario in inside}
            others = [
                each.resolve()
                for each in sorted(path.iterdir())
                if each.suffix in _MEDIA and each.resolve() not in told
            ]
            inside += [scenario for each in others if (scenario := _of_media(each)) is not None]
            if not inside:
                raise ConfigError(
                    f"{path} holds no scenario: no truth (*.json), and no recording that a {_MANIFEST} describes"
                )
        elif path.suffix == ".json" and path.is_file():
            of_truth = _of_truth(path, strict=True)
            inside = [of_truth] if of_truth is not None else []
        elif path.is_file():
            of_media = _of_media(path.resolve())
            if of_media is None:
                raise ConfigError(
                    f"{path} has no truth: neither {path.with_suffix('.json').name} beside it nor an entry in a {_MANIFEST}"
                )
            inside = [of_media]
        else:
            raise ConfigError(f"{path} does not exist")
        for scenario in inside:
            scenarios.setdefault((scenario.media, scenario.name), scenario)
    return list(scenarios.values())


def _of_truth(path: Path, *, strict: bool) -> Scenario | None:
    """What a truth says. None: it is JSON of something else, and nobody has named it (`strict`)."""
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        named = isinstance(truth, dict) and isinstance(truth.get("file"), str)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__})") from None
    if not named:
        if strict:
            raise ConfigError(f'{path} is no truth: it names no recording ("file")')
        return None
    media = (path.parent / truth["file"]).resolve()
    if not media.is_file():
        raise ConfigError(f"{path}: its recording {media} does not exist")
    entry = _entry(media)
    seconds = truth.get("play_s")
    return _checked(
        Scenario(path.stem, media, truth, _slices(truth, entry), None if seconds is None else float(seconds)),
        path,
    )


def _of_media(media: Path) -> Scenario | None:
    """What is known of a recording: the truth beside it, or its entry in a manifest; None: nothing."""
    beside = media.with_suffix(".json")
    if beside.is_file():
        return _of_truth(beside, strict=True)
    entry = _entry(media)
    if entry.get("transcript") is None:
        return None
    truth = {
        "file": media.name,
        "speech": entry.get("segments") or [],
        **{key: entry.get(key) for key in ("transcript", "words")},
    }
    if not truth["speech"] and entry["transcript"]:  # it is known what is said, and not when: anywhere
        truth["speech"] = [{"start": 0.0, "end": float(entry.get("duration_s") or 1e9)}]
    return _checked(Scenario(media.stem, media, truth, _slices({}, entry)), media)


def _checked(scenario: Scenario, path: Path) -> Scenario:
    """Raises ConfigError where a question lacks what grading it takes: told now, not after the recording has been played."""
    for number, question in enumerate(scenario.truth.get("qa") or (), 1):
        lacking = {
            "id",
            "type",
            "question",
            "answer",
            "keywords",
            "evidence_s",
            "modality",
            "ask_at_s",
        } - set(question)
        if lacking or question["type"] not in ("open", "yes/no", "when"):
            what = (
                f"lacks {', '.join(sorted(lacking))}"
                if lacking
                else f"has the unknown type {question['type']!r}"
            )
            raise ConfigError(f"{path}: question {number} {what}")
    return scenario


def _entry(media: Path) -> dict[str, Any]:
    """What the nearest manifest above says of a recording; nothing where none does."""
    for folder in media.parents:
        try:
            files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
            return next(dict(entry) for entry in files if folder / entry["path"] == media)
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            continue  # none, or one of something else: the name is a common one
    return {}


def _slices(truth: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, str]:
    """Noise, accent and channel, as the truth or the manifest says by these names, or by its remarks."""
    told = {**entry, **truth}
    remarks = f"{told.get('noise') or ''} {told.get('note') or ''}".lower()
    channel = "telephone" if "telephone" in remarks or "8 khz" in remarks else "wide band"
    noise = str(told.get("noise") or "none")
    if "telephone" in noise:  # a channel is no noise
        noise = "none"
    if told.get("snr_db") is not None:
        noise = f"{noise} {told['snr_db']:g} dB"
    if "jackhammer" in remarks:
        noise = "jackhammer"
    accent = "non-native" if "non-native" in remarks else "native"
    found_by_name = {"noise": noise, "accent": accent, "channel": channel}
    return {
        name: str(told[name]) if name != "noise" and told.get(name) else found_by_name[name]
        for name in SLICES
    }
