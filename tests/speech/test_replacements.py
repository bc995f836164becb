"""Phrases are replaced once, and published stable words are never revised."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Word, Words
from streamsvc.speech.replacements import Replacer


def words_of(text: str, first: int = 0) -> tuple[Word, ...]:
    """Words of a second each."""
    return tuple(Word(word, float(index), index + 1.0, 0.9) for index, word in enumerate(text.split(), first))


def unit(words: tuple[Word, ...], stable: int, *, final: bool = False) -> Words:
    reference = (words[:stable] or words)[-1].end if words else 0.0
    return Words("s", "main", words[0].start if words else 0.0, 100.0 + reference, words, stable, final)


def replaced(phrases: dict[str, str], text: str) -> str:
    """An utterance in one unit after replacement."""
    words = words_of(text)
    return " ".join(word.text for word in Replacer(phrases).take(unit(words, len(words), final=True)).words)


@pytest.mark.parametrize(
    ("phrases", "text", "expected"),
    [
        ({"stream service": "streamsvc"}, "The Stream SERVICE, runs.", "The streamsvc, runs."),
        ({"stream service": "streamsvc"}, "“Stream service!”", "“streamsvc!”"),
        (
            {"stream service": "streamsvc"},
            "A stream. Service is good, streams service",
            "A stream. Service is good, streams service",
        ),
        (
            {"stream service": "streamsvc"},
            "upstream service and stream services",
            "upstream service and stream services",
        ),
        ({"new york": "NY", "new york city": "NYC"}, "new york city, new york, new day", "NYC, NY, new day"),
        ({"a b": "X", "b c": "Y"}, "a b c", "X c"),
        ({"a b c": "X", "b": "Y"}, "a b d", "a Y d"),
        ({"see plus plus": "C++", "c++": "Cpp"}, "See plus plus. C++!", "C++. Cpp!"),
        ({"東京": "Tokyo"}, "東 京 は", "Tokyo は"),
        ({"東京": "Tokyo"}, "東京 は", "Tokyo は"),
        ({"a": "b", "b": "c"}, "a b", "b c"),
        ({}, "as it was", "as it was"),
    ],
)
def test_whole_phrases_are_replaced_case_insensitively_and_keep_their_punctuation(
    phrases: dict[str, str], text: str, expected: str
) -> None:
    assert replaced(phrases, text) == expected


def test_a_replaced_phrase_has_the_times_of_all_its_words() -> None:
    words = (Word("stream", 1.0, 1.5, 0.9), Word("service", 1.6, 2.0, 0.5))
    (joined,) = Replacer({"stream service": "streamsvc"}).take(unit(words, 2, final=True)).words
    assert joined == Word("streamsvc", 1.0, 2.0, 0.5)


def test_the_beginning_of_a_phrase_waits_in_the_tail_and_the_unit_has_the_arrival_of_its_own_words() -> None:
    replacer = Replacer({"stream service": "streamsvc"})
    first = replacer.take(unit(words_of("the stream serv"), 2))
    assert ([word.text for word in first.words], first.stable) == (["the", "stream", "serv"], 1)
    assert first.arrived == 101.0, "of `the`, not of `stream`"
    second = replacer.take(unit(words_of("service", 2), 1))
    assert ([word.text for word in second.words], second.stable) == (["streamsvc"], 1)
    assert (second.at, second.arrived) == (1.0, 103.0)


def test_the_tail_passes_unchanged() -> None:
    passed = Replacer({"stream service": "streamsvc"}).take(unit(words_of("stream service"), 0))
    assert ([word.text for word in passed.words], passed.stable) == (["stream", "service"], 0)


def test_undecided_words_are_published_at_the_end_of_the_utterance() -> None:
    replacer = Replacer({"stream service": "streamsvc"})
    assert replacer.take(unit(words_of("stream"), 1)).stable == 0
    end = replacer.take(unit((), 0, final=True))
    assert ([word.text for word in end.words], end.stable, end.final) == (["stream"], 1, True)
    assert replacer.take(unit((), 0, final=True)).words == ()


PHRASES = st.dictionaries(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(" ".join),
    st.sampled_from(["X", "y z"]),
    max_size=5,
)
TEXTS = st.lists(st.sampled_from(["a", "B", "c", "a,", "d", "(b"]), max_size=12)


@given(PHRASES, TEXTS, st.lists(st.integers(0, 4), max_size=12))
def test_the_result_does_not_depend_on_the_cuts_and_no_word_is_lost(
    phrases: dict[str, str], texts: Sequence[str], cuts: Sequence[int]
) -> None:
    words = words_of(" ".join(texts))
    whole = Replacer(phrases).take(unit(words, len(words), final=True)).words
    replacer, published, index = Replacer(phrases), list[Word](), 0
    for cut in cuts:
        piece = words[index : index + cut]
        out = replacer.take(unit((*piece, *words[index + cut : index + cut + 1]), len(piece)))
        published += out.words[: out.stable]
        assert published == list(whole[: len(published)]), "published stable words stay"
        index += len(piece)
    end = replacer.take(unit(words[index:], len(words) - index, final=True))
    assert end.stable == len(end.words)
    assert (*published, *end.words) == whole
    covered = [second for word in whole for second in range(int(word.start), int(word.end))]
    assert covered == list(range(len(words)))


def test_phrases_may_change_between_units_and_no_word_is_lost() -> None:
    replacer = Replacer({"stream service": "streamsvc"})
    first = replacer.take(unit(words_of("A stream"), 2))
    assert [word.text for word in first.words[: first.stable]] == ["A"], "the rest may begin a phrase"
    replacer.use({})
    second = replacer.take(unit(words_of("service runs", 2), 2))
    assert [word.text for word in second.words[: second.stable]] == ["stream", "service", "runs"]
    replacer.use({"a b": "c"})
    third = replacer.take(unit(words_of("a b", 4), 2, final=True))
    assert [word.text for word in third.words] == ["c"]
