"""The label tables are consistent."""

from __future__ import annotations

from collections import Counter

import pytest

from streamsvc.vision.label_tables import (
    COCO,
    COLLECTIVE_GROUPS,
    IMAGENET_GROUPS,
    SYNONYMS,
    WIDER_GROUPS,
    names_of,
)


def test_a_table_entry_is_split_at_semicolons_and_line_breaks_are_blanks() -> None:
    assert names_of("hot dog; hair\n    drier") == ["hot dog", "hair drier"]


def test_coco_has_its_80_labels_each_in_one_group() -> None:
    labels = [name for names in COCO.values() for name in names_of(names)]
    assert len(labels) == len(set(labels)) == 80


@pytest.mark.parametrize("table", [COCO, IMAGENET_GROUPS, SYNONYMS, WIDER_GROUPS])
def test_names_are_lower_case_and_unique_within_an_entry(table: dict[str, str]) -> None:
    for key, names in table.items():
        assert key == key.lower()
        assert names == names.lower()
        assert [name for name, count in Counter(names_of(names)).items() if count > 1 or not name] == [], key


def test_collective_groups_are_groups_of_the_tagger() -> None:
    assert set(IMAGENET_GROUPS) >= COLLECTIVE_GROUPS
