"""Readers of published datasets in their own formats: rows of transcribed audio or of questions about images.

No media is opened. The folder is the one that a set unpacks to; the docstring of a reader names the files it
needs. An absent set gives no rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamsvc.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording and its transcript. `slices`: groups by which word errors are reported."""

    id: str
    audio: Path
    text: str
    slices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageQuestion:
    """A question about an image and the annotators' answers. `rule`: a name of `grade_answers.RULES`."""

    id: str
    image: Path
    question: str
    answers: tuple[str, ...]
    rule: str
    slices: Mapping[str, str] = field(default_factory=dict)


Row = Utterance | ImageQuestion


# --- speech -------------------------------------------------------------------------------------------------


def librispeech(folder: Path) -> Iterator[Row]:
    """LibriSpeech.

    SUBSET/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt, lines of an id and its words; ID.flac beside it.
    """
    for listing in sorted(folder.rglob("*.trans.txt")):
        for line in listing.read_text(encoding="utf-8").splitlines():
            number, _, text = line.partition(" ")
            yield Utterance(
                number, listing.parent / f"{number}.flac", text, {"subset": listing.parents[2].name}
            )


def common_voice(folder: Path) -> Iterator[Row]:
    """Common Voice.

    test.tsv with columns path and sentence, and accents (accent in older ones), age, gender; clips/PATH.
    """
    listing = folder / "test.tsv"
    if not listing.is_file():
        return
    with listing.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            slices = {
                "accent": row.get("accents") or row.get("accent"),
                "age": row.get("age"),
                "gender": row.get("gender"),
            }
            yield Utterance(
                row["path"],
                folder / "clips" / row["path"],
                row["sentence"],
                {name: value or "unsaid" for name, value in slices.items()},
            )


# --- pictures -----------------------------------------------------------------------------------------------


def vqav2(folder: Path) -> Iterator[Row]:
    """VQAv2.

    *OpenEnded*questions.json and *annotations.json with the same prefix; SUBTYPE/COCO_SUBTYPE_<12
    digits>.jpg.
    """
    for listing in sorted(folder.glob("*OpenEnded*questions.json")):
        begin = listing.name.removesuffix("questions.json").replace("OpenEnded_", "")
        if not (folder / f"{begin}annotations.json").is_file():
            continue  # the test sets' answers are not published
        asked = _json(listing)
        part = asked.get("data_subtype") or next(name for name in begin.split("_") if name.endswith("2014"))
        answers = {
            item["question_id"]: item for item in _json(folder / f"{begin}annotations.json")["annotations"]
        }
        for item in asked["questions"]:
            image = folder / part / f"COCO_{part}_{item['image_id']:012d}.jpg"
            annotation = answers[item["question_id"]]
            given = tuple(answer["answer"] for answer in annotation["answers"])
            yield ImageQuestion(
                str(item["question_id"]),
                image,
                item["question"],
                given,
                "vqa",
                {"type": annotation.get("answer_type", "other")},
            )


def textvqa(folder: Path) -> Iterator[Row]:
    """TextVQA.

    TextVQA_*_val.json, {"data": [{"question_id", "image_id", "question", "answers"}]}; train_images/ID.jpg,
    also for the validation set.
    """
    for listing in sorted(folder.glob("TextVQA_*_val.json")):
        for item in _json(listing)["data"]:
            image = folder / "train_images" / f"{item['image_id']}.jpg"
            yield ImageQuestion(
                str(item["question_id"]), image, item["question"], tuple(item["answers"]), "vqa"
            )


def docvqa(folder: Path) -> Iterator[Row]:
    """DocVQA.

    val_v*.json, {"data": [{"questionId", "question", "image", "answers", "question_types"?}]}; "image" is
    relative to the folder.
    """
    for listing in sorted(folder.glob("val_v*.json"))[:1]:  # the others repeat its questions
        for item in _json(listing)["data"]:
            kind = {"type": ", ".join(item["question_types"])} if item.get("question_types") else {}
            yield ImageQuestion(
                str(item["questionId"]),
                folder / item["image"],
                item["question"],
                tuple(item["answers"]),
                "anls",
                kind,
            )


def chartqa(folder: Path) -> Iterator[Row]:
    """ChartQA.

    test/test_human.json and test/test_augmented.json, lists of {"imgname", "query", "label"};
    test/png/IMGNAME.
    """
    for part in ("human", "augmented"):
        listing = folder / "test" / f"test_{part}.json"
        for number, item in enumerate(_json(listing) if listing.is_file() else []):
            image = folder / "test" / "png" / item["imgname"]
            yield ImageQuestion(
                f"{part}-{number}", image, item["query"], (str(item["label"]),), "relaxed", {"part": part}
            )


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


DATASETS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    "librispeech": librispeech,
    "common_voice": common_voice,
    "vqav2": vqav2,
    "textvqa": textvqa,
    "docvqa": docvqa,
    "chartqa": chartqa,
}


def rows(name: str, folder: Path, most: int | None = None) -> list[Row]:
    """The rows of a set, at most `most`, evenly drawn; none where the folder does not contain it.

    Args:
        name: of DATASETS.
        folder: where it was unpacked.
        most: None: all.

    Raises:
        ConfigError: it is not in its published format.
    """
    try:
        listed = list(DATASETS[name](folder)) if folder.is_dir() else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, StopIteration, IndexError) as error:
        raise ConfigError(
            f"{folder} is not in the published format of {name} ({type(error).__name__})"
        ) from None
    if most is None or len(listed) <= most:
        return listed
    return [listed[index * len(listed) // most] for index in range(most)]
