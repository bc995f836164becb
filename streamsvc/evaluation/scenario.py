"""Scenarios: a recording, its truth, and questions about it with the times at which they are asked.

A scenario is a media file with its truth beside it (NAME.json), a truth that names its media ("file"), or a
recording that a manifest.json above it describes (transcript only). Truth, all but "file" optional:
{"duration_s", "play_s", "intervals": [{"start", "end", "kind", "label", "title", "text", "things"}],
"transcript", "words": [{"w", "start", "end"}], "speech": [{"start", "end"}], "qa": [see grade_answers.py, and
"ask_at_s"], "noise", "accent", "channel"}, seconds throughout. "play_s": only the first seconds are played. A
question with a time after the end is asked when the whole recording has been processed. All questions are
asked by one client, in the order of their times; a question may tell its "half" ("develop", "measure"),
"kind", "style", "points" and, as a follow-up, the question right before it ("after": its id).
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
    """A recording and its truth.

    `seconds`: how much is played, None: all. `slices`: groups by which word errors are reported.
    """

    name: str
    media: Path
    truth: Mapping[str, Any]
    slices: Mapping[str, str]
    seconds: float | None = None


def load_scenarios(paths: Sequence[Path]) -> list[Scenario]:
    """The scenarios of media files, truths, or folders of them, in order, without duplicates.

    Raises:
        ConfigError: a path does not exist, contains no scenario, or its truth cannot be read.
    """
    scenarios: dict[tuple[Path, str], Scenario] = {}
    for path in paths:
        for scenario in _in_folder(path) if path.is_dir() else [_of_file(path)]:
            scenarios.setdefault((scenario.media, scenario.name), scenario)
    return list(scenarios.values())


def _in_folder(folder: Path) -> list[Scenario]:
    """All truths of a folder, then the recordings that no truth names and a manifest describes."""
    truths = [path for path in sorted(folder.glob("*.json")) if path.name != _MANIFEST]
    scenarios = [scenario for path in truths if (scenario := _of_truth(path, strict=False)) is not None]
    named = {scenario.media for scenario in scenarios}
    others = [
        path.resolve()
        for path in sorted(folder.iterdir())
        if path.suffix in _MEDIA and path.resolve() not in named
    ]
    scenarios += [scenario for path in others if (scenario := _of_media(path)) is not None]
    if not scenarios:
        raise ConfigError(
            f"{folder} holds no scenario: no truth (*.json), and no recording that a {_MANIFEST} describes"
        )
    return scenarios


def _of_file(path: Path) -> Scenario:
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    if path.suffix == ".json":
        scenario = _of_truth(path, strict=True)
        assert scenario is not None
        return scenario
    scenario = _of_media(path.resolve())
    if scenario is None:
        beside = path.with_suffix(".json").name
        raise ConfigError(f"{path} has no truth: neither {beside} beside it nor an entry in a {_MANIFEST}")
    return scenario


def _of_truth(path: Path, *, strict: bool) -> Scenario | None:
    """The scenario of a truth file. JSON of something else: None, or with `strict` a ConfigError."""
    try:
        truth = json.loads(path.read_text(encoding="utf-8"))
        named = isinstance(truth, dict) and isinstance(truth.get("file"), str)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__})") from None
    if not named:
        if strict:
            raise ConfigError(f'{path} is not a truth: it names no recording ("file")')
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
    """The scenario of a recording, by the truth beside it or its entry in a manifest; None without both."""
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
    if not truth["speech"] and entry["transcript"]:  # times unknown: speech anywhere
        truth["speech"] = [{"start": 0.0, "end": float(entry.get("duration_s") or 1e9)}]
    return _checked(Scenario(media.stem, media, truth, _slices({}, entry)), media)


def _checked(scenario: Scenario, path: Path) -> Scenario:
    """Check the questions before anything is played.

    Raises ConfigError: a question lacks a field that grading needs, or follows none before it.
    """
    questions = scenario.truth.get("qa") or ()
    times = {question.get("id"): question.get("ask_at_s", 0.0) for question in questions}
    for number, question in enumerate(questions, 1):
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
        after = question.get("after")
        if after is not None and times.get(after, float("inf")) >= question["ask_at_s"]:
            raise ConfigError(f"{path}: question {number} follows {after!r}, which is not asked before it")
    return scenario


def _entry(media: Path) -> dict[str, Any]:
    """The entry of a recording in the nearest manifest above it; {} where there is none."""
    for folder in media.parents:
        try:
            files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
            return next(dict(entry) for entry in files if folder / entry["path"] == media)
        except (OSError, ValueError, KeyError, TypeError, StopIteration):
            continue  # no manifest, or a file of that name with another purpose
    return {}


def _slices(truth: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, str]:
    """Noise, accent and channel, by these keys of the truth or the manifest, or derived from its notes."""
    fields = {**entry, **truth}
    remarks = f"{fields.get('noise') or ''} {fields.get('note') or ''}".lower()
    channel = "telephone" if "telephone" in remarks or "8 khz" in remarks else "wide band"
    noise = str(fields.get("noise") or "none")
    if "telephone" in noise:  # a channel, not a noise
        noise = "none"
    if fields.get("snr_db") is not None:
        noise = f"{noise} {fields['snr_db']:g} dB"
    if "jackhammer" in remarks:
        noise = "jackhammer"
    accent = "non-native" if "non-native" in remarks else "native"
    derived = {"noise": noise, "accent": accent, "channel": channel}
    return {
        name: str(fields[name]) if name != "noise" and fields.get(name) else derived[name] for name in SLICES
    }
