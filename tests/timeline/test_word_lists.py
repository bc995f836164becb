"""The word lists hold together: no irregular form has two bases."""

from __future__ import annotations

from streamsvc.timeline import word_lists


def test_no_irregular_form_has_two_bases() -> None:
    forms = [form for entry in word_lists.IRREGULAR.split(";") for form in entry.split()[1:]]
    assert len(forms) == len(set(forms))
