"""Datasets: the published formats become rows, from three of our own rows in each format."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from streamsvc.core.errors import ConfigError
from streamsvc.evaluation.datasets import DATASETS, ImageQuestion, Row, Utterance, rows
from streamsvc.evaluation.grade_answers import RULES

FIXTURES = Path(__file__).parents[1] / "fixtures" / "published"


def below(row: Row, name: str) -> str:
    media = row.audio if isinstance(row, Utterance) else row.image
    return str(media.relative_to(FIXTURES / name))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_set_gives_its_three_rows_with_ids_of_their_own(name: str) -> None:
    found = rows(name, FIXTURES / name)
    assert len({row.id for row in found}) == len(found) == 3
    assert all(row.rule in RULES for row in found if isinstance(row, ImageQuestion))


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_a_set_that_is_not_there_gives_nothing(name: str, tmp_path: Path) -> None:
    assert rows(name, tmp_path / "absent") == rows(name, tmp_path) == []


def test_librispeech_lies_by_subset_speaker_and_chapter() -> None:
    first, _, last = rows("librispeech", FIXTURES / "librispeech")
    assert isinstance(first, Utterance)
    assert below(first, "librispeech") == "test-clean/61/70968/61-70968-0000.flac"
    assert first.text == "THE BOAT LEAVES AT SEVEN BECAUSE OF THE TIDE"
    assert last.slices == {"subset": "test-other"}


def test_common_voice_gives_accent_age_and_gender_where_known() -> None:
    first, _, last = rows("common_voice", FIXTURES / "common_voice")
    assert isinstance(first, Utterance)
    assert below(first, "common_voice") == "clips/common_voice_en_1.mp3"
    assert first.text == 'The "old" mill stands by the river.'
    assert first.slices == {"accent": "Scottish English", "age": "twenties", "gender": "female_feminine"}
    assert last.slices["accent"] == "unsaid"


def test_vqav2_joins_questions_with_the_ten_answers_by_their_id() -> None:
    first, second, _ = rows("vqav2", FIXTURES / "vqav2")
    assert isinstance(second, ImageQuestion)
    assert below(first, "vqav2") == "val2014/COCO_val2014_000000000042.jpg"
    assert (second.question, second.answers[6:], second.slices) == (
        "How many cups are there?",
        ("2", "two", "3", "3"),
        {"type": "number"},
    )


def test_a_set_of_vqav2_whose_answers_are_not_published_gives_nothing(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "vqav2" / "v2_OpenEnded_mscoco_val2014_questions.json", tmp_path)
    assert rows("vqav2", tmp_path) == []


def test_the_other_three_name_their_pictures_as_they_are_unpacked() -> None:
    text, document, chart = (rows(name, FIXTURES / name) for name in ("textvqa", "docvqa", "chartqa"))
    assert [below(text[0], "textvqa"), below(document[0], "docvqa")] == [
        "train_images/00aa.jpg",
        "documents/aa01_1.png",
    ]
    assert below(chart[2], "chartqa") == "test/png/mills_7.png"
    assert isinstance(document[1], ImageQuestion) and isinstance(chart[2], ImageQuestion)
    assert (document[1].answers, document[1].rule, document[1].slices) == (
        ("$ 312.50", "312.50"),
        "anls",
        {"type": "form, table/list"},
    )
    assert (chart[2].answers, chart[2].rule, chart[2].slices) == (
        ("35.2%",),
        "relaxed",
        {"part": "augmented"},
    )


def test_a_few_rows_are_drawn_evenly() -> None:
    assert [row.id for row in rows("docvqa", FIXTURES / "docvqa", 2)] == ["1", "2"]
    assert len(rows("docvqa", FIXTURES / "docvqa", 30)) == 3


@pytest.mark.parametrize("body", ["{", "[]", '{"data": [{"question": "?"}]}'])
def test_a_file_of_another_format_is_an_error(body: str, tmp_path: Path) -> None:
    (tmp_path / "TextVQA_0.5.1_val.json").write_text(body)
    with pytest.raises(ConfigError, match="not in the published format of textvqa"):
        rows("textvqa", tmp_path)
