"""What may be shown of a sentence: names, numbers, quotations and negations must stand in its lines."""

from __future__ import annotations

import pytest

from streamsvc.answers.grounding import Claim, ClaimReader, held, is_none, names, numbers

LINES = ["[7] 0:31 said: Marta rents the barge for twenty-two thousand crowns, because the old one leaks."]


def claims(*pieces: str) -> list[Claim]:
    reader = ClaimReader()
    return [claim for piece in pieces for claim in reader.take(piece)] + reader.rest()


@pytest.mark.parametrize(
    "text",
    [
        "The barge leaks [3]. It is old [4, 5].",
        "The barge leaks. [3] It is old. [4][5]",
        "The barge leaks [3]. It is old [4;5]",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 400])
def test_sentences_are_cut_with_their_citations_however_the_text_comes(text: str, step: int) -> None:
    pieces = [text[n : n + step] for n in range(0, len(text), step)]
    first, second = claims(*pieces)
    assert (first.text.rstrip("."), first.lines) == ("The barge leaks", (3,))
    assert (second.text.rstrip("."), second.lines) == ("It is old", (4, 5))


def test_a_sentence_is_not_passed_on_while_its_citation_may_still_come() -> None:
    reader = ClaimReader()
    assert reader.take("The barge leaks.") == []
    assert reader.take(" [") == []
    assert reader.take("3] It") == [Claim("The barge leaks.", (3,))]


def test_a_decimal_point_or_a_clock_time_ends_no_sentence() -> None:
    assert claims("It costs 3.5 crowns at 1:15 [2].") == [Claim("It costs 3.5 crowns at 1:15.", (2,))]


def test_punctuation_alone_is_no_claim() -> None:
    assert claims(" ... [3]") == []


@pytest.mark.parametrize("text", ["NONE", "none.", ' "NONE" ', "[NONE]"])
def test_a_model_may_say_that_the_lines_do_not_tell(text: str) -> None:
    assert is_none(text)


def test_none_within_a_sentence_is_a_claim() -> None:
    assert not is_none("None of them came [3].")


@pytest.mark.parametrize(
    "claim",
    [
        "Marta is renting a boat since hers lets water in.",  # paraphrase
        "The price is 22,000 crowns.",
        "She pays twenty-two thousand.",
        "At 0:31 Martha says so.",  # a caption may have misheard the name
        'She calls it "the old one".',
        "It leaks, Piet.",  # a name of the question
    ],
)
def test_what_the_lines_or_the_question_hold_may_be_said(claim: str) -> None:
    assert held(claim, LINES, "Did Piet ask what the barge costs?")


@pytest.mark.parametrize(
    "claim",
    [
        "Gregor rents the barge.",  # another name, first word
        "It is rented by Gregor.",
        "The price is 23,000 crowns.",
        "She pays thirty thousand.",
        'She calls it "the golden swan".',
        "Marta never rents a barge.",  # no line denies it
    ],
)
def test_what_neither_lines_nor_question_hold_may_not(claim: str) -> None:
    assert not held(claim, LINES, "What does the barge cost?")


def test_an_affirmation_of_what_the_line_denies_may_not_be_said() -> None:
    line = ["[9] 0:50 said: The harbour master will not sell the red boat."]
    assert not held("The harbour master will sell the red boat.", line, "Is the boat for sale?")
    assert held("No, the harbour master will not sell the red boat.", line, "Is the boat for sale?")


def test_without_lines_nothing_may_be_said() -> None:
    assert not held("The barge leaks.", [], "Why?")


def test_nouns_with_capitals_of_other_languages_are_no_names() -> None:
    claim = "Weil das alte Boot ein Leck hat."
    assert held(claim, LINES, "Warum?", "de")
    assert not held(claim, LINES, "Warum?")


def test_first_words_of_other_languages_are_no_names_but_later_ones_are() -> None:
    assert held("Porque Marta necesita un barco.", LINES, "¿Por qué?", "es")
    assert not held("Porque Gregor necesita un barco.", LINES, "¿Por qué?", "es")


def test_a_claim_that_shares_few_words_with_its_lines_may_not_be_said() -> None:
    assert not held("The harbour festival opens with fireworks.", LINES, "When does it open?")


def test_yes_and_no_before_a_sentence_deny_nothing_by_themselves() -> None:
    line = ["[9] 0:50 said: The harbour master will not sell the red boat."]
    assert held("No, the boat stays.", ["[8] 0:40 said: The boat stays in the harbour."], "Is it for sale?")
    assert not held("Yes, the harbour master will sell the red boat.", line, "Is the boat for sale?")


def test_a_quotation_may_run_over_two_lines() -> None:
    lines = ["[3] 0:10 said: Your boat is ready.", "[4] 0:12 said: A fine boat you shall have."]
    assert held('"Your boat is ready; a fine boat you shall have".', lines, "What did she say?")


def test_numbers_and_names() -> None:
    assert numbers("On the sixteenth of March, 1,250 of ninety-five") == {"16", "1250", "95"}
    assert names("Then Ada met the Queen of Sweden. Yes: Ada said: No.") == ["Ada", "Queen", "Sweden", "Ada"]
