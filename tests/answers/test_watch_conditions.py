"""Plain words become checks, what cannot be told is refused, and a check fires on its edge alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streamsvc.answers.watch_conditions import ABSENT, Alert, Watch, compiled
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.types import Box, Evidence, ScreenText, Sight, Tag, TextLine, Word


def made(when: str, cooldown: float = 0.0) -> Watch:
    return Watch("w", when, compiled(when), cooldown)


def sight(at: float, *labels: str, blank: bool = False) -> Sight:
    boxes = tuple(Box(label, 0.9, 0.1 * n, 0.1, 0.1, 0.5) for n, label in enumerate(labels))
    tags = (Tag("black", 1.0),) if blank else ()
    return Sight("s", "main", at, at, np.zeros(2, np.float32), tags, boxes, blank)


def page(at: float, *lines: str) -> ScreenText:
    found = tuple(TextLine(line, 0.99, 0.1, 0.1 * n, 0.5, 0.05) for n, line in enumerate(lines))
    return ScreenText("s", "main", at, at, lines[0] if lines else None, found, at)


def words(text: str, start: float = 0.0) -> list[Word]:
    return [Word(word, start + n, start + n + 0.5, 0.9) for n, word in enumerate(text.split())]


def fired(alerts: list[Alert | None]) -> list[float]:
    return [alert.at for alert in alerts if alert is not None]


# --- plain words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "kind", "what"),
    [
        ("when a bus appears", "thing", ("bus", 1)),
        ("tell me when somebody walks in", "thing", ("somebody", 1)),
        ("alert me if there are more than three people", "thing", ("people", 4)),
        ("when at least two cars are in the picture", "thing", ("cars", 2)),
        ("when a second person appears", "thing", ("person", 2)),
        ("as soon as a dog is visible", "thing", ("dog", 1)),
        ("Please notify me when a pedestrian enters the picture!", "thing", ("pedestrian", 1)),
        ("when the person leaves", "gone", ("person", 1)),
        ("when people disappear", "gone", ("people", 1)),
        ("let me know when the picture goes black", "blank", ()),
        ("when the slide changes", "slide", ()),
        ("notify me when a new title comes up", "slide", ()),
        ("when the next slide is shown", "slide", ()),
        ("when 'Budget' is on the screen", "written", {"budget"}),
        ('when the text "total due" is on the slide', "written", {"total", "due"}),
        ("when the screen shows an invoice", "written", {"invoic"}),
        ("when the invoice is shown", "written", {"invoic"}),
        ("someone says budget", "said", {"budget"}),
        ("when they talk about the harvest", "said", {"harvest"}),
        ('if the word "deadline" is mentioned', "said", {"deadlin"}),
        ("when the mountain spirit comes up", "said", {"mountain", "spirit"}),
        ("if anyone is talking about gravestones", "said", {"graveston"}),
        ("when the speaker stops for ten seconds", "silence", 10.0),
        ("when nobody has spoken for 2 minutes", "silence", 120.0),
        ("when the speaker starts talking again", "speech", ()),
    ],
)
def test_plain_words_become_a_check(when: str, kind: str, what: Any) -> None:
    (check,) = compiled(when)
    assert check.kind == kind
    if kind in ("thing", "gone"):
        assert (check.thing, check.least) == what
    elif kind in ("written", "said"):
        assert check.words == what
    elif kind == "silence":
        assert check.seconds == what


def test_a_quoted_phrase_alone_may_be_said_or_written() -> None:
    assert {check.kind for check in compiled('"quarterly report"')} == {"said", "written"}


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("when a red car appears", "red"),
        ("when the dog barks", "barks"),
        ("when somebody smiles", "smiles"),
        ("when music plays", "music"),
        ("when a man with an umbrella walks in", "'man'"),
        ("when somebody sits down", "'sits'"),
        ("when a unicorn appears", "know"),
        ("when the coffee is gone", "detector"),
        ("when somebody says it", "which words"),
        ("when no one mentions budget", "silence alone"),
        ("when someone doesn't say budget", "does not happen"),
        ("when nothing is written on the screen", "silence alone"),
        ("tell me when", "characters"),
        ("x" * 201, "characters"),
    ],
)
def test_what_nothing_here_can_tell_is_refused_with_the_reason(when: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why) as caught:
        compiled(when)
    assert caught.value.code == "cannot_watch"


# --- edges ----------------------------------------------------------------------------------------------------------


def test_a_thing_fires_when_it_comes_and_not_while_it_stays_or_flickers() -> None:
    watch = made("when a car appears")
    seen = [
        sight(0.0),
        sight(1.0, "car"),
        sight(2.0, "car"),
        sight(3.0),
        sight(4.0, "car"),
        sight(5.0),
        sight(6.0),
        sight(8.0),
        sight(9.0, "car"),
    ]
    alerts = [watch.saw(each) for each in seen]
    assert fired(alerts) == [1.0, 9.0]
    first = alerts[1]
    assert first is not None
    assert first.text == "A car is shown."
    assert (first.evidence[0].kind, first.evidence[0].frame) == ("sight", 1.0)
    assert watch.fired == 2


def test_a_count_fires_when_it_is_reached() -> None:
    watch = made("when there are more than one person")
    assert fired([watch.saw(sight(float(n), *["person"] * n)) for n in (1, 2, 3)]) == [2.0]


def test_an_exact_count_is_exact() -> None:
    watch = made("when exactly two people are in the picture")
    assert fired([watch.saw(sight(float(n), *["person"] * n)) for n in (1, 3)]) == []
    assert fired([watch.saw(sight(float(n), *["person"] * 2)) for n in (4, 5)]) == [4.0]


def test_every_check_takes_every_look() -> None:
    watch = made("when a cat or a dog appears")
    assert fired([watch.saw(sight(1.0, "cat", "dog")), watch.saw(sight(2.0, "cat", "dog"))]) == [1.0]


def test_gone_fires_after_two_looks_without_it_and_only_if_it_was_there() -> None:
    watch = made("when the car leaves")
    assert fired([watch.saw(sight(at)) for at in (0.0, 1.0, 2.0, 3.0, 9.0)]) == []
    assert watch.saw(sight(10.0, "car")) is None
    assert watch.saw(sight(11.0)) is None, "one look may overlook it"
    alert = watch.saw(sight(10.0 + ABSENT))
    assert alert is not None
    assert alert.text == "No car is shown any more."
    assert alert.evidence[0].start == 10.0


def test_a_black_picture_fires() -> None:
    watch = made("when the picture goes black")
    alerts = [watch.saw(sight(0.0, "car")), watch.saw(sight(1.0, blank=True))]
    assert fired(alerts) == [1.0]
    assert alerts[1] is not None
    assert alerts[1].text == "The picture is black."


def test_another_slide_fires_and_a_changed_line_does_not() -> None:
    watch = made("when the slide changes")
    pages = [
        page(0.0, "Agenda", "one two three four"),
        page(1.0, "Agenda", "one two three five"),
        page(2.0, "Budget 2026", "costs and income"),
    ]
    assert fired([watch.read(each) for each in (*pages, page(3.0))]) == [2.0]


def test_words_on_the_screen_fire_once_while_they_stand_there() -> None:
    watch = made("when 'total due' is on the screen")
    alerts = [
        watch.read(page(at, "Invoice", *lines))
        for at, lines in ((0.0, ["Due"]), (1.0, ["Total due: 3"]), (2.0, ["Total due: 4"]))
    ]
    assert fired(alerts) == [1.0]
    assert alerts[1] is not None
    assert alerts[1].text == 'On the screen: "Total due: 3"'
    assert watch.read(page(3.0)) is None
    assert watch.read(page(4.0, "Total due: 3")) is not None


def test_words_that_are_said_fire_when_all_of_them_stand_near_each_other() -> None:
    watch = made('when somebody says "interest rates"')
    assert (
        watch.heard(
            words("we have no interest in that, they rated it; and much later all of it was about the rates"),
            0.0,
        )
        is None
    )
    alert = watch.heard(words("now the interest", 50.0), 0.0) or watch.heard(words("rates rise", 53.0), 60.0)
    assert alert is not None
    assert alert.text.endswith('interest rates"')
    assert (alert.evidence[0].kind, alert.evidence[0].end, alert.arrived) == ("speech", 53.5, 60.0)
    assert watch.heard(words("rise", 55.0), 0.0) is None, "the same words fire once"


@pytest.mark.parametrize(
    ("when", "topics"),
    [
        ("when someone talks about the price of bread", ("the price of bread",)),
        ("tell me when they discuss hiring", ("hiring",)),
        ("if the conversation turns to politics", ("politics",)),
        ("when the talk is about insects", ("insects",)),
        ("when the speaker brings up the budget again", ("the budget again",)),
        ("someone says budget", ()),
        ('when they talk about "net zero"', ()),
        ("when the word deadline is mentioned", ()),
        ("when a bus appears", ()),
    ],
)
def test_what_is_talked_about_is_a_topic_and_what_is_said_is_words(
    when: str, topics: tuple[str, ...]
) -> None:
    assert made(when).topics == topics


def passage(start: float) -> Evidence:
    return Evidence(start, start + 5.0, "speech", "He paid forty dollars. He owes the bank.")


def test_a_topic_fires_when_it_comes_up_and_not_while_it_goes_on() -> None:
    watch = made("when someone talks about money")
    told = [
        watch.meant({"money": near}, passage(10.0 * n), 0.0)
        for n, near in enumerate((0.1, 0.5, 0.5, 0.2, 0.5, 0.1, 0.1, 0.1, 0.5))
    ]
    assert fired(told) == [15.0, 85.0]
    assert told[1] is not None
    assert told[1].text == 'About money: "He paid forty dollars. He owes the bank."'
    assert told[1].evidence[0].quote.startswith("He paid")


def test_what_its_words_have_told_is_not_told_by_its_meaning_too() -> None:
    watch = made("when someone talks about money")
    assert watch.heard(words("money", 12.0), 0.0) is not None
    assert watch.meant({"money": 0.9}, passage(10.0), 0.0) is None
    assert made("someone says money").meant({"money": 0.9}, passage(10.0), 0.0) is None


def test_silence_fires_once_for_each_stretch() -> None:
    watch = made("when nobody speaks for 10 seconds")
    assert fired([watch.quiet(5.0, now, now) for now in (10.0, 15.0, 16.0, 30.0)]) == [15.0]
    assert watch.quiet(40.0, 50.0, 50.0) is not None


def test_nothing_fires_within_the_cooldown() -> None:
    watch = made("someone says budget", cooldown=10.0)
    assert watch.heard(words("budget", 0.0), 0.0) is not None
    assert watch.heard(words("budget", 5.0), 5.0) is None
    assert watch.heard(words("budget", 11.0), 11.0) is not None
    assert watch.fired == 2


def test_the_beginning_of_speech_fires() -> None:
    assert made("when somebody starts talking").spoke(3.0, 3.0) is not None
    assert made("when a car appears").spoke(3.0, 3.0) is None
