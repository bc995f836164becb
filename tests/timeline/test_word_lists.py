"""The word lists hold together: no group has a function word, or a single word."""

from __future__ import annotations

import pytest

from streamsvc.timeline import word_lists


@pytest.mark.parametrize("groups", [word_lists.RELATED, word_lists.HOMOPHONES])
def test_no_group_has_a_function_word_or_only_one_word(groups: str) -> None:
    for group in groups.split(";"):
        assert not set(group.split()) & set(word_lists.STOP.split()), group
        assert len(set(group.split())) > 1, group


def test_no_irregular_form_has_two_bases() -> None:
    forms = [form for entry in word_lists.IRREGULAR.split(";") for form in entry.split()[1:]]
    assert len(forms) == len(set(forms))
