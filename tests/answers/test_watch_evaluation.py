"""Evaluation of watches: each check fires on its edge, once, and not within the cooldown."""

from __future__ import annotations

import numpy as np

from streamsvc.answers.topic_score import ON_TOPIC
from streamsvc.answers.watch_conditions import Able, checks_of
from streamsvc.answers.watch_evaluation import ABSENCE, Alert, Watch
from streamsvc.answers.watch_intents import Kind
from streamsvc.core.types import Box, Evidence, ScreenText, Sight, Tag, TextLine, Word
from tests.builders.votes import vote_for


def watch_for(when: str, kind: Kind = "seen", cooldown: float = 0.0) -> Watch:
    return Watch("w", when, checks_of(when, vote_for(kind), Able()), cooldown)


def sight(at: float, *labels: str, blank: bool = False) -> Sight:
    boxes = tuple(Box(label, 0.9, 0.1 * n, 0.1, 0.1, 0.5) for n, label in enumerate(labels))
    tags = (Tag("black", 1.0),) if blank else ()
    return Sight("s", "main", at, at, np.zeros(2, np.float32), tags, boxes, blank)


def page(at: float, *lines: str) -> ScreenText:
    text_lines = tuple(TextLine(line, 0.99, 0.1, 0.1 * n, 0.5, 0.05) for n, line in enumerate(lines))
    return ScreenText("s", "main", at, at, lines[0] if lines else None, text_lines, at)


def words(text: str, start: float = 0.0) -> list[Word]:
    return [Word(word, start + n, start + n + 0.5, 0.9) for n, word in enumerate(text.split())]


def fired(alerts: list[Alert | None]) -> list[float]:
    return [alert.at for alert in alerts if alert is not None]


def test_an_object_fires_when_it_appears_and_not_while_it_stays_or_flickers() -> None:
    watch = watch_for("when a car appears")
    sights = [
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
    alerts = [watch.on_sight(item) for item in sights]
    assert fired(alerts) == [1.0, 9.0]
    first = alerts[1]
    assert first is not None
    assert first.text == "A car is shown."
    assert (first.evidence[0].kind, first.evidence[0].frame) == ("sight", 1.0)
    assert watch.fired == 2


def test_a_count_fires_when_it_is_reached() -> None:
    watch = watch_for("when there are more than one person")
    assert fired([watch.on_sight(sight(float(n), *["person"] * n)) for n in (1, 2, 3)]) == [2.0]


def test_an_exact_count_is_exact() -> None:
    watch = watch_for("when exactly two people are in the picture")
    assert fired([watch.on_sight(sight(float(n), *["person"] * n)) for n in (1, 3)]) == []
    assert fired([watch.on_sight(sight(float(n), *["person"] * 2)) for n in (4, 5)]) == [4.0]


def test_every_check_is_updated_with_every_sight() -> None:
    watch = watch_for("when a cat or a dog appears")
    assert fired([watch.on_sight(sight(1.0, "cat", "dog")), watch.on_sight(sight(2.0, "cat", "dog"))]) == [
        1.0
    ]


def test_gone_fires_after_two_misses_of_an_object_that_was_present() -> None:
    watch = watch_for("when the car leaves", "gone")
    assert fired([watch.on_sight(sight(at)) for at in (0.0, 1.0, 2.0, 3.0, 9.0)]) == []
    assert watch.on_sight(sight(10.0, "car")) is None
    assert watch.on_sight(sight(11.0)) is None, "a single miss is debounced"
    alert = watch.on_sight(sight(10.0 + ABSENCE))
    assert alert is not None
    assert alert.text == "No car is shown any more."
    assert alert.evidence[0].start == 10.0


def test_gone_fires_where_the_picture_stands_still_after_one_miss() -> None:
    watch = watch_for("when the car leaves", "gone")
    for item in (sight(0.0, "car"), sight(10.0)):
        watch.on_sight(item)
    stood = [watch.on_still(now, 99.0) for now in (10.5, 12.0, 10.0 + ABSENCE, 14.0)]
    assert [n for n, alert in enumerate(stood) if alert is not None] == [2]
    alert = stood[2]
    assert alert is not None
    assert (alert.at, alert.arrived, alert.text) == (10.0, 99.0, "No car is shown any more.")
    assert (alert.evidence[0].start, alert.evidence[0].end) == (0.0, 10.0)


def test_what_is_seen_before_a_still_picture_is_long_enough_is_not_gone() -> None:
    watch = watch_for("when the car leaves", "gone")
    for item in (sight(0.0, "car"), sight(10.0), sight(11.0, "car")):
        watch.on_sight(item)
    assert watch.on_still(20.0, 0.0) is None
    assert watch_for("when the car leaves", "gone").on_still(20.0, 0.0) is None


def test_an_object_that_a_still_picture_lacked_appears_again() -> None:
    watch = watch_for("when a car appears")
    alerts = [watch.on_sight(sight(0.0, "car")), watch.on_sight(sight(10.0))]
    alerts += [watch.on_still(13.0, 0.0), watch.on_sight(sight(20.0, "car"))]
    assert fired(alerts) == [0.0, 20.0]


def test_a_black_picture_fires() -> None:
    watch = watch_for("when the picture goes black", "blank")
    alerts = [watch.on_sight(sight(0.0, "car")), watch.on_sight(sight(1.0, blank=True))]
    assert fired(alerts) == [1.0]
    assert alerts[1] is not None
    assert alerts[1].text == "The picture is black."


def test_another_slide_fires_and_a_changed_line_does_not() -> None:
    watch = watch_for("when the slide changes", "slide")
    pages = [
        page(0.0, "Agenda", "one two three four"),
        page(1.0, "Agenda", "one two three five"),
        page(2.0, "Budget 2026", "costs and income"),
    ]
    assert fired([watch.on_screen_text(item) for item in (*pages, page(3.0))]) == [2.0]


def test_words_on_the_screen_fire_once_while_they_are_shown() -> None:
    watch = watch_for("when 'total due' is on the screen", "written")
    alerts = [
        watch.on_screen_text(page(at, "Invoice", *lines))
        for at, lines in ((0.0, ["Due"]), (1.0, ["Total due: 3"]), (2.0, ["Total due: 4"]))
    ]
    assert fired(alerts) == [1.0]
    assert alerts[1] is not None
    assert alerts[1].text == 'On the screen: "Total due: 3"'
    assert watch.on_screen_text(page(3.0)) is None
    assert watch.on_screen_text(page(4.0, "Total due: 3")) is not None


def test_said_words_fire_when_all_of_them_are_near_each_other() -> None:
    watch = watch_for('when somebody says "interest rates"', "said")
    assert (
        watch.on_words(
            words("we have no interest in that, they rated it; and much later all of it was about the rates"),
            0.0,
        )
        is None
    )
    alert = watch.on_words(words("now the interest", 50.0), 0.0) or watch.on_words(
        words("rates rise", 53.0), 60.0
    )
    assert alert is not None
    assert alert.text.endswith('interest rates"')
    assert (alert.evidence[0].kind, alert.evidence[0].end, alert.arrived) == ("speech", 53.5, 60.0)
    assert watch.on_words(words("rise", 55.0), 0.0) is None, "the same words fire once"


def test_a_compound_is_said_in_whatever_way_it_is_written_down() -> None:
    for said in ("a tomb stone fell", "two tombstones fell"):
        alert = watch_for("when tombstones are mentioned", "said").on_words(words(said), 0.0)
        assert alert is not None, said
    assert watch_for("when tombstones are mentioned", "said").on_words(words("stone tomb"), 0.0) is None


def test_a_long_phrase_is_said_where_its_letters_are_nearly_these() -> None:
    watch = watch_for("when 'woollen blankets' are mentioned", "said")
    alert = watch.on_words(words("he bought wool and blankets"), 0.0)
    assert alert is not None
    assert alert.text == 'Said: "wool and blankets"'
    for other in ("he bought cotton blankets", "woollen things", "blankets woollen"):
        assert watch_for("'yellow blankets' are mentioned", "said").on_words(words(other), 0.0) is None


def test_short_words_are_said_as_they_are_written() -> None:
    watch = watch_for("when they mention the word cart", "said")
    assert watch.on_words(words("let us start with the chart of that part"), 0.0) is None


def test_what_the_rules_have_told_the_model_does_not_tell_again() -> None:
    watch = watch_for("when they mention rivers", "said")
    told = watch.on_words(words("the rivers rose", 10.0), 0.0)
    assert told is not None
    of_it = Alert("Rivers.", 12.5, 0.0, (Evidence(9.0, 12.5, "speech", "the rivers rose"),), "model")
    assert watch.on_model(True, of_it) is None
    later = Alert("Rivers.", 42.5, 0.0, (Evidence(40.0, 42.5, "speech", "they flood"),), "model")
    assert watch.on_model(False, later) is None
    assert watch.on_model(True, later) is not None


def passage(start: float) -> Evidence:
    return Evidence(start, start + 5.0, "speech", "He paid forty dollars. He owes the bank.")


def test_a_topic_fires_when_it_comes_up_and_not_while_it_lasts() -> None:
    watch = watch_for("when someone talks about money", "topic")
    alerts = [
        watch.on_topic({"money": ON_TOPIC + above}, passage(10.0 * n), 0.0)
        for n, above in enumerate((-0.2, 0.1, 0.0, -0.1, 0.1, -0.2, -0.2, -0.2, 0.1))
    ]
    assert fired(alerts) == [15.0, 85.0]
    assert alerts[1] is not None
    assert alerts[1].text == 'About money: "He paid forty dollars. He owes the bank."'
    assert alerts[1].evidence[0].quote.startswith("He paid")


def test_a_passage_that_fired_by_words_does_not_fire_by_topic() -> None:
    watch = watch_for("when someone talks about money", "topic")
    assert watch.on_words(words("money", 12.0), 0.0) is not None
    assert watch.on_topic({"money": 0.9}, passage(10.0), 0.0) is None
    assert watch_for("someone says money", "said").on_topic({"money": 0.9}, passage(10.0), 0.0) is None


def test_each_silence_fires_once() -> None:
    watch = watch_for("when nobody speaks for 10 seconds", "silence")
    assert fired([watch.on_silence(5.0, now, now) for now in (10.0, 15.0, 16.0, 30.0)]) == [15.0]
    assert watch.on_silence(40.0, 50.0, 50.0) is not None


def test_nothing_fires_within_the_cooldown() -> None:
    watch = watch_for("someone says budget", "said", cooldown=10.0)
    assert watch.on_words(words("budget", 0.0), 0.0) is not None
    assert watch.on_words(words("budget", 5.0), 5.0) is None
    assert watch.on_words(words("budget", 11.0), 11.0) is not None
    assert watch.fired == 2


def test_the_start_of_speech_fires() -> None:
    assert watch_for("when somebody starts talking", "speech").on_speech(3.0, 3.0) is not None
    assert watch_for("when a car appears").on_speech(3.0, 3.0) is None


def test_an_alert_that_is_taken_back_may_come_again_with_the_next_look() -> None:
    watch = watch_for("when a car appears", cooldown=60.0)
    first = watch.on_sight(sight(1.0, "car"))
    assert first is not None
    watch.take_back(first)
    assert watch.fired == 0
    assert fired([watch.on_sight(sight(2.0, "car")), watch.on_sight(sight(3.0, "car"))]) == [2.0]
