"""Cues close early, contain every stable word once, and make valid subtitles."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import Cue, Translation, Word, Words
from streamsvc.speech import captions
from streamsvc.speech.captions import Cues, timed, to_json, to_srt, to_vtt, wrap


def spoken(text: str, start: float = 0.0, pace: float = 0.3) -> tuple[Word, ...]:
    return tuple(
        Word(word, start + number * pace, start + (number + 1) * pace)
        for number, word in enumerate(text.split())
    )


def words(
    said: tuple[Word, ...], stable: int | None = None, *, final: bool = False, arrived: float = 100.0
) -> Words:
    return Words(
        "0.s",
        "main",
        said[0].start if said else 0.0,
        arrived,
        said,
        len(said) if stable is None else stable,
        final,
    )


def test_the_open_cue_shows_stable_words_and_the_tail() -> None:
    (cue,) = Cues("0.s").push(words(spoken("so it goes"), 2))
    assert (cue.text, cue.stable, cue.final) == ("so it goes", 2, False)


def test_the_end_of_an_utterance_closes_the_cue_even_without_new_words() -> None:
    cues = Cues("0.s")
    cues.push(words(spoken("so it goes")))
    (cue,) = cues.push(words((), final=True))
    assert (cue.text, cue.final) == ("so it goes", True)
    assert cues.push(words((), final=True)) == []


def test_a_sentence_closes_at_once_and_what_follows_stays_open() -> None:
    closed, still_open = Cues("0.s").push(words(spoken("The stale smell of old beer lingers. It takes")))
    assert (closed.text, closed.final) == ("The stale smell of old beer lingers.", True)
    assert (still_open.text, still_open.final) == ("It takes", False)


@pytest.mark.parametrize(
    "text", ["Yes. And then he went", "Then old Mr. Brown of Leeds", "It was J. Smith who went"]
)
def test_a_short_sentence_or_an_abbreviation_closes_nothing(text: str) -> None:
    (cue,) = Cues("0.s").push(words(spoken(text)))
    assert not cue.final


def test_a_full_cue_is_cut_after_a_recent_comma_only() -> None:
    recent = (
        "a very long stream of words without any end in sight that goes on, and then on and on and on and on"
    )
    (closed, _) = Cues("0.s").push(words(spoken(recent, pace=0.2)))
    assert closed.text.endswith("goes on,")
    old = (
        "well, "
        + "a very long stream of words without any end in sight that goes on and on and on and on and on"
    )
    (closed, _) = Cues("0.s").push(words(spoken(old, pace=0.2)))
    assert not closed.text.endswith("well,")
    assert len(wrap(closed.text)) == 2


def test_slow_speech_closes_after_seven_seconds() -> None:
    closed, _ = Cues("0.s").push(words(spoken("one two three four five six", pace=1.5)))
    assert closed.end - closed.start <= captions.SECONDS_MAX


def test_a_closed_cue_has_the_arrival_of_its_own_last_word() -> None:
    said = spoken("The stale smell of old beer lingers. It takes heat")
    closed, still_open = Cues("0.s").push(words(said, 9, arrived=100.0))
    assert closed.arrived == pytest.approx(100.0 - (said[8].end - said[6].end))
    assert still_open.arrived == pytest.approx(100.0 + said[-1].end - said[8].end)


TEXTS = st.lists(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).map(lambda t: "".join(t.split()) or "x"),
    max_size=60,
)


@given(st.data(), TEXTS)
def test_every_stable_word_is_in_one_closed_cue_in_order_and_within_the_reading_rules(
    data: st.DataObject, texts: list[str]
) -> None:
    said = tuple(Word(text, 0.3 * number, 0.3 * number + 0.25) for number, text in enumerate(texts))
    cues, closed, index = Cues("0.s"), list[Cue](), 0
    while index < len(said):
        step = data.draw(st.integers(0, 8))
        tail = data.draw(st.integers(0, 4))
        pushed = cues.push(
            words(said[index : index + step + tail], min(step, len(said) - index), final=False)
        )
        assert all(cue.final for cue in pushed[:-1])
        closed += [cue for cue in pushed if cue.final]
        index += step or 1 if step else 0
        if not step:
            closed += [cue for cue in cues.push(words(said[index : index + 1])) if cue.final]
            index += 1
    closed += cues.push(words((), final=True))
    assert [word for cue in closed for word in cue.words] == list(said)
    for cue in closed:
        assert len(cue.words) == 1 or len(wrap(cue.text)) <= captions.LINES
        assert len(cue.words) == 1 or cue.end - cue.start <= captions.SECONDS_MAX


TIMES = st.lists(
    st.tuples(st.floats(0, 5000), st.floats(0.01, 9), st.text(min_size=1, max_size=120)), max_size=12
)


def cues_of(times: list[tuple[float, float, str]]) -> list[Cue]:
    return [
        Cue("0.s", "main", at, 0.0, text, (Word(text, at, at + length),), 1, True)
        for at, length, text in times
    ]


@given(TIMES)
def test_subtitles_are_sorted_never_overlap_and_end_after_they_start(
    times: list[tuple[float, float, str]],
) -> None:
    shown = [(start, end) for start, end, _ in timed(cues_of(times))]
    assert all(start < end for start, end in shown)
    assert all(first[1] <= second[0] + 1e-9 for first, second in itertools.pairwise(shown))


@given(TIMES)
def test_webvtt_and_subrip_are_valid_for_any_text(times: list[tuple[float, float, str]]) -> None:
    cues = cues_of(times)
    vtt, srt = to_vtt(cues), to_srt(cues)
    assert vtt.startswith("WEBVTT\n")
    line = r"\d\d:\d\d:\d\d%s\d{3} --> \d\d:\d\d:\d\d%s\d{3}"
    assert len(re.findall("^" + line % (r"\.", r"\.") + "$", vtt, re.M)) == len(cues) == vtt.count("-->")
    assert len(re.findall("^" + line % (",", ",") + "$", srt, re.M)) == len(cues) == srt.count("-->")
    payload = "\n".join(row for row in vtt.split("\n") if "-->" not in row)
    assert "<" not in payload
    assert ">" not in payload
    assert [int(block.split("\n")[0]) for block in srt.split("\n\n") if block] == list(
        range(1, len(cues) + 1)
    )


def test_markup_is_escaped() -> None:
    assert "&lt;b&gt; &amp; --&gt;" in to_vtt(cues_of([(0.0, 1.0, "<b> & -->")]))


def test_a_short_cue_is_displayed_for_a_second_and_a_long_text_long_enough_to_read() -> None:
    (start, end, _), (start2, end2, _) = timed(cues_of([(0.0, 0.2, "Yes"), (10.0, 1.0, "x" * 80)]))
    assert end - start == captions.SECONDS_MIN
    assert end2 - start2 == 4.0


def test_json_contains_the_words() -> None:
    (cue,) = to_json(cues_of([(1.0, 0.5, "Hallo")]))
    assert cue["words"] == [{"text": "Hallo", "start": 1.0, "end": 1.5, "probability": 1.0}]


def test_a_compact_cue_has_the_same_words_and_shares_equal_texts() -> None:
    def cue(text: str) -> Cue:
        said = tuple(Word("".join(word), 1.0 + n, 1.5 + n, 0.98765) for n, word in enumerate(text.split()))
        return Cue("0.s", "main", 1.0, 100.0, text, said, len(said), True, "en", (("decode", 100.1),))

    one, other = captions.compact(cue("the old mill")), captions.compact(cue("by the mill"))
    assert (one.text, one.start, one.end, one.stable, one.final) == ("the old mill", 1.0, 3.5, 3, True)
    assert [word.text for word in one.words] == ["the", "old", "mill"]
    assert [(word.start, word.end) for word in one.words] == [(1.0, 1.5), (2.0, 2.5), (3.0, 3.5)]
    assert one.words[2].text is other.words[2].text
    assert {word.probability for word in (*one.words, *other.words)} == {0.99}
    assert one.stages == ()


# --- incremental writing


@pytest.mark.parametrize("form", ["vtt", "srt"])
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 8), st.text(min_size=1, max_size=90)), max_size=12)
)
def test_incremental_output_is_a_valid_file_after_every_cue(
    form: str, spoken: list[tuple[float, float, str]]
) -> None:
    writer = captions.SubtitleWriter(form)
    file, last = writer.head, 0.0
    for number, (start, seconds, text) in enumerate(spoken, 1):
        file += writer.write(start, start + seconds, text)
        assert file.endswith("\n")
        assert len(file.split("\n\n")) == number + (form == "vtt")
        (first, second), *_ = re.findall(r"([\d:,.]+) --> ([\d:,.]+)", file.split("\n\n")[-1])
        assert seconds_of(second) > seconds_of(first) >= last, "sorted, without overlap"
        last = seconds_of(second)
    assert form != "vtt" or file.startswith("WEBVTT\n")


def seconds_of(stamp: str) -> float:
    hours, minutes, rest = stamp.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_incremental_output_equals_the_whole_file() -> None:
    cues = [
        Cue("s", "main", at, 0.0, text, spoken("x", at, 1.5), 1, True)
        for at, text in ((1.0, "one <b>"), (4.0, "two"))
    ]
    for form, whole in (("vtt", to_vtt(cues)), ("srt", to_srt(cues))):
        writer = captions.SubtitleWriter(form)
        assert writer.head + "".join(writer.write(cue.start, cue.end, cue.text) for cue in cues) == whole


def test_scripts_without_blanks_are_joined_without_blanks() -> None:
    assert captions.text_of(spoken("東 京 は 7 時 です。 はい")) == "東京は7時です。はい"
    assert captions.text_of(spoken("so it goes")) == "so it goes"


def test_a_translation_is_written_like_a_cue_and_has_no_words() -> None:
    unit = Translation("s", "main", 1.0, 0.0, "e.1", "Good day", "en", 1.0, 2.5)
    assert to_vtt([unit]) == "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nGood day\n"
    assert to_json([unit]) == [{"start": 1.0, "end": 2.5, "text": "Good day", "language": "en", "words": []}]


JOINED = (
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f680 Schiff\u00adfahrt \u200fabc"
)


def test_format_characters_are_as_in_json() -> None:
    cue = Cue("s", "main", 1.0, 0.0, JOINED, spoken(JOINED, 1.0, 1.5), 4, True)
    (entry,) = to_json([cue])
    assert entry["text"] == JOINED
    assert JOINED in to_vtt([cue])
    assert JOINED in to_srt([cue])
    for form in ("vtt", "srt"):
        assert JOINED in captions.SubtitleWriter(form).write(1.0, 2.0, JOINED)


def test_a_line_break_within_a_long_word_does_not_cut_a_character() -> None:
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    lines = wrap("\u4e2d" * 40 + family + "\u6587" * 10)
    assert len(lines) == 2
    assert any(family in line for line in lines)
    lines = wrap("a" * 41 + "e\u0301" + "b" * 5)
    assert any("e\u0301" in line for line in lines)


@pytest.mark.parametrize("text", ["\u200b", "\u00a0", "\u200f \u00ad", "\x00\n"])
def test_a_cue_without_a_visible_character_has_a_line(text: str) -> None:
    assert captions.vtt_block(0.0, 1.0, text).split("\n")[1] == "…"
