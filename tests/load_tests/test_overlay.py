"""The overlay in Chromium on a recorded session: words stay where they are; and the probe that says so.

fixtures/caption_events.jsonl: 40 s of The Crab and the Monkey (The Crimson Fairy Book, LibriVox; public
domain), by `python -m load_tests.overlay --record`, without what the overlay does not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from load_tests import overlay
from load_tests.overlay import Event, Sample, Shown, change, figures, open_overlay, replay
from tests.builders.browser import CHROMIUM, FLAGS

RECORDED = Path(__file__).resolve().parents[1] / "fixtures" / "caption_events.jsonl"

in_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
    ),
]


# --- the probe ---


def row(*words: tuple[str, float], top: float = 0.0) -> list[Shown]:
    return [(text, left, top) for text, left in words]


def test_words_that_move_sideways_and_words_that_are_taken_back_are_counted() -> None:
    before = row(("a", 0), ("stone.", 10), ("cutter", 50))
    assert change(before, row(("a", 0), ("stone.", 10), ("cutter", 50), ("lived", 90))) == overlay.Change()
    assert change(before, row(("a", 5), ("stone.", 15), ("cutter", 55))).moved == ["a", "stone.", "cutter"]
    assert change(before, row(("a", 0), ("stony", 10), ("cutter", 45))) == overlay.Change(
        ["cutter"], ["stone."], ["stone."]
    )
    assert change(before, row(("a", 0), ("stone", 10), ("cutter", 50))).stops == ["stone."]
    assert change(before, row(("a", 0), ("stone.", 10))).taken_back == ["cutter"]
    assert change(before, row(("b", 0))).taken_back == ["a", "stone.", "cutter"]


def test_words_that_roll_off_the_top_or_are_cleared_are_not_taken_back() -> None:
    before = [*row(("the", 0), ("old", 40)), *row(("mill", 0), ("of", 50), top=60)]
    after = [*row(("mill", 0), ("of", 50)), *row(("the", 0), ("man", 40), top=60)]
    assert change(before, after) == overlay.Change()
    assert change(before, []) == overlay.Change()


def test_the_figures_of_a_replay_tell_what_was_shown_late_or_never_or_is_not_said() -> None:
    events: list[Event] = [
        {"type": "caption.partial", "received": 0.0, "text": "the mill"},
        {"type": "caption.partial", "received": 1.0, "text": "the mile"},
        {"type": "caption.final", "received": 2.0, "text": "the mile goes"},
    ]
    samples = [
        Sample(0.0, row(("the", 0), ("mill", 40))),
        Sample(1.0, row(("the", 0), ("mill", 40))),
        Sample(1.5, [*row(("the", 0)), *row(("mile", 0), top=60)]),
        Sample(2.0, [*row(("the", 0)), *row(("mile", 0), top=60)]),
    ]
    assert figures(samples, events) == {
        "updates": 1,
        "moving": 0,
        "moved": 0,
        "taken_back": 1,
        "stops": 0,
        "unsaid": 1,
        "columns": 8,
        "lines": 2,
        "late_p50": 0.25,
        "late_p95": 0.5,
        "unseen": 1,
    }


# --- the overlay ---


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield running
        running.close()


def opened(
    browser: Browser, query: str = "", *, width: int = 1920, height: int = 1080, base: str = ""
) -> Page:
    """The overlay, fed by hand. Fails on errors of its scripts."""
    page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    open_overlay(page, query, base=base)
    page.wait_for_function("window.give !== undefined")
    return page


def spoken(text: str, *, language: str = "en", blank: str = " ", settled: int = 2) -> list[Event]:
    """Events of one cue that grows by a word each 50 ms; all but the last `settled` words are stable."""
    words = text.split()
    events = [
        _event(words[:count], max(0, count - settled), 0.05 * count, language, blank)
        for count in range(1, len(words) + 1)
    ]
    return [*events, _event(words, None, 0.05 * (len(words) + 1), language, blank)]


def _event(words: Sequence[str], stable: int | None, at: float, language: str, blank: str) -> Event:
    body: dict[str, Any] = {
        "type": "caption.partial" if stable is not None else "caption.final",
        "received": at,
        "text": blank.join(words),
        "words": [{"text": word, "start": 0.0, "end": 1.0, "probability": 0.9} for word in words],
        "start": 0.0,
        "end": 1.0,
        "language": language,
    }
    return body | ({"stable": stable} if stable is not None else {})


def text_shown(page: Page, box: str = "#captions") -> str:
    return " ".join(page.locator(box).inner_text().split())


def recorded_events() -> list[Event]:
    return [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


class TestInChromium:
    pytestmark = in_chromium

    @pytest.mark.parametrize(
        ("query", "width", "height"),
        [("", 1920, 1080), ("lines=3&size=30&align=left&position=top", 1280, 720), ("size=22", 640, 360)],
    )
    def test_on_a_recorded_session_no_word_moves_sideways_and_none_is_shown_that_is_not_said(
        self, browser: Browser, query: str, width: int, height: int
    ) -> None:
        events = recorded_events()
        partials = [event for event in events if event["type"] == "caption.partial"]
        guessed = [event for event in partials if event["text"].endswith(overlay.STOPS)]
        assert len(partials) > 60 and len(guessed) > 10, "the recording has nothing that could jitter"
        found = figures(replay(opened(browser, query, width=width, height=height), events), events)
        assert found["updates"] > 60
        assert {
            name: found[name] for name in ("moving", "moved", "stops", "unsaid", "unseen")
        } == dict.fromkeys(("moving", "moved", "stops", "unsaid", "unseen"), 0)
        assert 20 < found["columns"] <= 42
        assert found["lines"] == (3 if "lines=3" in query else 2)

    def test_a_guess_that_changes_or_loses_its_full_stop_moves_nothing(self, browser: Browser) -> None:
        hypotheses = [
            ("the mill. Stood by", 1),
            ("the miller stood by the", 1),
            ("the mill", 1),
            ("the miller, stood by the sea.", 3),
            ("the miller, stood by the sea side.", 5),
        ]
        events = [
            _event(text.split(), stable, 0.1 * number, "en", " ")
            for number, (text, stable) in enumerate(hypotheses)
        ]
        events.append(_event(hypotheses[-1][0].split(), None, 0.6, "en", " "))
        page = opened(browser)
        found = figures(replay(page, events), events)
        assert {name: found[name] for name in ("moved", "stops", "unsaid")} == dict.fromkeys(
            ("moved", "stops", "unsaid"), 0
        )
        assert found["taken_back"] > 0  # as the events have it
        assert text_shown(page) == hypotheses[-1][0]

    def test_right_to_left_spaceless_and_endless_words_keep_their_edge_and_their_width(
        self, browser: Browser
    ) -> None:
        arabic = "كان قاطع الحجارة يعيش قرب جبل عظيم وكان يذهب كل يوم إلى عمله ويقطع الحجارة للناس"
        page = opened(browser)
        samples = replay(page, spoken(arabic, language="ar"))
        assert figures(samples, spoken(arabic, language="ar"))["moved"] == 0
        first, last = samples[2].words[0], samples[-1].words[0]
        edge = page.locator("#captions").bounding_box()
        assert edge is not None
        assert abs(first[1] - last[1]) < 2 and edge["x"] + edge["width"] - first[1] < 44

        japanese = "石 切り 職人 は 大きな 山 の 近く に 住んで いました 。 毎日 彼 は 仕事 に 出かけ 、"
        japanese += " 石 を 切りました 。"
        page = opened(browser)
        samples = replay(page, spoken(japanese, language="ja", blank=""))
        assert page.locator(".caption-line").count() == 2
        rows = page.locator(".caption-words").all_inner_texts()
        assert all(len(text) <= 21 and text[0] not in "。、" for text in rows)
        assert "".join(rows) in japanese.replace(" ", "") and japanese.replace(" ", "").endswith(rows[-1])

        endless = "x" * 100
        page = opened(browser, "lines=6")
        replay(page, spoken(f"so {endless} it is"))
        assert page.locator(".caption-words").all_inner_texts() == [
            "so",
            "x" * 42,
            "x" * 42,
            "x" * 16 + " it is",
        ]

    def test_a_cue_that_is_missed_or_interrupted_leaves_no_word_twice(self, browser: Browser) -> None:
        page = opened(browser, "lang=both&clear=1")
        cue = spoken("one two three four five six")
        replay(
            page, [*cue[:4], {**cue[0], "type": "caption.translation", "text": "eins zwei", "received": 0.3}]
        )
        assert text_shown(page) == "one two three"
        assert text_shown(page, "#translations") == "eins zwei"
        page.wait_for_function("document.querySelectorAll('.caption-line').length === 0")
        replay(page, cue[4:])
        assert text_shown(page) == "three four five six"
        later = spoken("two other words")  # ... and of the cue after it the end never came
        replay(page, later[:3])
        replay(page, spoken("quite another"))
        assert text_shown(page) == "three four five six two quite another"

        page = opened(browser, "lang=en")
        cue = spoken("one two three four")
        translated = {**cue[0], "type": "caption.translation", "text": "(translated)", "received": 0.17}
        replay(page, [*cue[:3], translated, *cue[3:]])
        assert text_shown(page) == "one (translated) two three four"

    def test_the_options_place_the_lines_and_a_path_before_the_overlay_changes_nothing(
        self, browser: Browser
    ) -> None:
        for query, base, across, down in (
            ("", "", "center", "bottom"),
            ("position=top&align=left", "/deep/below", "left", "top"),
            ("position=middle&align=right&width=30", "", "right", "middle"),
        ):
            page = opened(browser, query, base=base)
            replay(page, spoken("settled words"))
            box = page.locator("#captions").bounding_box()
            assert box is not None
            left, above = box["x"], box["y"]
            right, below = 1920 - left - box["width"], 1080 - above - box["height"]
            edges = {"left": left - 77, "right": right - 77, "center": left - right}
            levels = {"top": above - 54, "bottom": below - 54, "middle": above - below}
            assert abs(edges[across]) < 2 and abs(levels[down]) < 2
            assert "width" not in query or abs(box["width"] - 576) < 1
        page = opened(browser, "outline=3&size=30&font=serif&background=0000")
        replay(page, spoken("settled words"))
        style = "(name) => getComputedStyle(document.querySelector('.caption-words'))[name]"
        assert [
            page.evaluate(style, name) for name in ("webkitTextStrokeWidth", "fontSize", "fontFamily")
        ] == [
            "6px",
            "30px",
            "serif",
        ]
        assert page.evaluate(style, "backgroundColor") == "rgba(0, 0, 0, 0)"

    def test_a_translation_that_comes_whole_is_seen_whole(self, browser: Browser) -> None:
        page = opened(browser, "lang=de")
        first, second = "eins zwei drei vier fünf sechs", "sieben " * 11 + "acht"
        for text in (first, second):
            event = {"type": "caption.translation", "text": text, "language": "de", "received": 0.0}
            replay(page, [event])
        assert text_shown(page) == second

    def test_after_a_pause_words_begin_a_line(self, browser: Browser) -> None:
        page = opened(browser)
        replay(page, [{**event, "end": 2.0} for event in spoken("before it")])
        replay(page, [{**event, "start": 4.5, "end": 5.0} for event in spoken("after it")])
        assert page.locator(".caption-words").all_inner_texts() == ["before it", "after it"]
