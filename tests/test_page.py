"""The page in Chromium: layout, state, following, questions, watches, search, sessions, keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.builders.browser import CAPTURE, CHROMIUM, FLAGS, Open, opening, serious, wait_for
from tests.fakes.page_server import CITED, SESSION, Fake, answer, final, furnish, partial, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
    ),
]
SIZES = [(1440, 900), (1024, 768), (390, 844)]  # pixels


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


# One per test: Chromium keeps processes of closed pages for seconds, and the leak guard would wait for them.
@pytest.fixture
def browser(playwright: Playwright) -> Iterator[Browser]:
    running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *CAPTURE])
    yield running
    running.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def open_page(browser: Browser, fake: Fake) -> Iterator[Open]:
    with opening(browser, fake.origin) as opened:
        yield opened


def sized(size: tuple[int, int]) -> dict[str, Any]:
    return {"viewport": {"width": size[0], "height": size[1]}}


def watching(open_page: Open, fake: Fake, path: str = "/", **options: Any) -> Page:
    page = open_page(f"{path}#session={SESSION}", **options)
    wait_for(page, lambda: len(fake.sockets) > 0)
    return page


def ask(page: Page, fake: Fake, text: str) -> str:
    """Ask a question; returns its id."""
    before = len(fake.asked)
    page.locator("#question").fill(text)
    page.locator("#ask-button").click()
    wait_for(page, lambda: len(fake.asked) > before)
    return str(fake.asked[-1]["id"])


def keyframe(
    fake: Fake, at: float, reason: str, labels: list[str], title: str = "", same: float | None = None
) -> str:
    """A keyframe and what is seen and read on it; returns its id. Its picture is that of second `same`."""
    if same is not None:
        fake.pictures[str(at)] = str(same)
    url = f"/v1/sessions/{SESSION}/frames/{at}.jpg"
    of = fake.send("keyframe.sampled", start=at, reason=reason, url=url)
    tags = [{"label": label, "score": 0.9} for label in labels] + [{"label": "doubtful", "score": 0.31}]
    fake.send("sight.ready", start=at, of=of, tags=tags, boxes=[])
    if title:
        lines = [{"text": title, "x": 0, "y": 0, "w": 1, "h": 1}]
        fake.send("screen.text", start=at, of=of, title=title, lines=lines, first_seen=at)
    return of


def tell(page: Page, name: str) -> None:
    """Choose the tab, where the panel is not beside the tabs."""
    if page.locator(f"#tab-{name}").is_visible():
        page.locator(f"#tab-{name}").click()


# --- questions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["question_id", "id", "nothing"])
def test_a_refused_question_says_so_at_its_place_and_can_be_asked_again(
    open_page: Open, fake: Fake, named: str
) -> None:
    page = watching(open_page, fake)
    question = ask(page, fake, "Who speaks?")
    if named != "nothing":
        ask(page, fake, "And who listens?")
    waiting = len(fake.asked)
    about = {"question_id": {"question_id": question}, "id": {"id": question}, "nothing": {}}[named]
    error = {"type": "rate_limit_error", "code": "too_many", "message": "Five questions wait already."}
    fake.send("error", durable=False, error=error, **about)
    expect(page.locator("#answers .failed .reply")).to_have_text("Five questions wait already.")
    expect(page.locator("#answers .failed .question")).to_have_text("Who speaks?")
    expect(page.locator("#answers .pending")).to_have_count(waiting - 1)
    expect(page.locator("#error")).to_be_hidden()
    page.get_by_role("button", name="Ask again").click()
    wait_for(page, lambda: len(fake.asked) == waiting + 1)
    expect(page.locator("#question")).to_be_focused()


def test_a_machine_that_is_too_busy_for_questions_says_so_in_plain_words(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    error = {"code": "capacity", "message": "no questions are taken now: sound waits to be processed"}
    fake.send("error", durable=False, error=error, question_id=ask(page, fake, "Who speaks?"))
    expect(page.locator("#answers .failed .reply")).to_have_text(
        "No questions are taken just now: this machine is busy."
    )


def test_a_refusal_that_names_no_question_is_shown_above_where_several_wait(
    open_page: Open, fake: Fake
) -> None:
    page = watching(open_page, fake)
    for text in ("One?", "Two?"):
        ask(page, fake, text)
    fake.send("error", durable=False, error={"type": "x", "code": "x", "message": "That was no message."})
    expect(page.locator("#error-text")).to_have_text("That was no message.")
    expect(page.locator("#answers .pending")).to_have_count(2)


def test_evidence_scenes_and_search_show_names_without_scores(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    furnish(fake)
    seen = [
        {"start": 0.0, "end": 0.0, "kind": "sight", "quote": "cup 0.97, cup 0.9, tank top 0.31"},
        {"start": 1.0, "end": 1.0, "kind": "sight", "quote": "theater curtain 0.34"},
    ]
    answer(fake, ask(page, fake, "What is there?"), "Two cups.", evidence=[CITED, *seen])
    chips = page.locator("#answers .chip")
    expect(chips).to_have_text(
        ["0:20–0:22 heard “sentence number 1”", "0:00 seen 2 × cup", "0:01 seen perhaps theater curtain"]
    )
    page.locator("#search-text").fill("cup")
    page.keyboard.press("Enter")
    expect(page.locator("#found-list li")).to_have_text(["0:20sentence number 1heard", "0:40cupseen"])
    shown = page.locator("main:visible").inner_text()
    assert "0.9" not in shown and "0.3" not in shown and "doubtful" not in shown


# --- layout -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_ten_answers_clip_no_row_and_push_no_panel_away(
    open_page: Open, fake: Fake, size: tuple[int, int], tmp_path: Path
) -> None:
    page = watching(open_page, fake, **sized(size))
    furnish(fake)
    for number in range(40):
        final(
            fake, f"Line {number} is long enough to fill more than one row of the transcript.", 60.0 + number
        )
        if number % 4 == 0:
            keyframe(fake, 60.0 + number, "scene", [f"thing {number}"])
    tell(page, "ask")
    for number in range(10):
        question = ask(page, fake, f"What is said about the results of quarter {number}, and who says it?")
        answer(fake, question, "The results of the quarter are better than last year. " * 2)
    expect(page.locator("#answers .supported")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollHeight") <= size[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.screenshot(path=tmp_path / f"answers_{size[0]}.png")
    for name, box in (("ask", "answers-box"), ("transcript", "transcript-box"), ("scenes", "scenes-box")):
        tell(page, name)
        panel, scroll = (page.locator(f"#{i}").bounding_box() for i in (f"{name}-panel", box))
        assert panel and scroll and scroll["height"] >= 120, (name, scroll)
        assert panel["y"] + panel["height"] <= size[1] and panel["x"] + panel["width"] <= size[0]
        assert scroll["y"] + scroll["height"] <= panel["y"] + panel["height"] + 1
        # No row is cut off inside itself, and all of them can be reached by scrolling.
        clipped = page.evaluate(
            """(box) => [...document.querySelectorAll(`#${box} li`)].filter((row) =>
              row.scrollHeight > row.clientHeight + 1 || row.scrollWidth > row.clientWidth + 1).length""",
            box,
        )
        assert clipped == 0
        assert page.evaluate("(box) => document.getElementById(box).scrollWidth", box) <= scroll["width"] + 1
    visible = page.evaluate(
        """() => [...document.querySelectorAll('.panel:not([hidden]), .stage, header')]
          .map((each) => each.getBoundingClientRect())
          .map(({x, y, right, bottom}) => [x, y, right, bottom])"""
    )
    for n, one in enumerate(visible):
        for other in visible[n + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


def test_on_a_phone_the_parts_are_tabs_that_arrows_move_through(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[2]))
    furnish(fake)
    tabs = page.get_by_role("tab")
    expect(tabs).to_have_text(["Transcript", "Ask", "Scenes", "Watches", "Session"])
    strip = page.locator("#tabs").bounding_box()
    last = tabs.last.bounding_box()
    assert strip and last and last["x"] + last["width"] <= strip["x"] + strip["width"]  # all can be seen
    expect(page.locator(".panel:visible")).to_have_count(1)
    tabs.first.click()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-ask")).to_be_focused()
    expect(page.locator("#ask-panel")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#session-panel")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#transcript-panel")).to_be_visible()
    page.locator("#tab-ask").click()
    answer(fake, ask(page, fake, "What?"), "It is number 1.")
    page.locator("#answers .chip").click()  # leads to where it can be seen
    expect(page.locator("#transcript .marked")).to_be_in_viewport()


# --- following --------------------------------------------------------------------------------------------


def away(page: Page, box: str = "transcript-box") -> float:
    """Pixels from the end of a scrolled box."""
    end = "b.scrollHeight - b.scrollTop - b.clientHeight"
    return float(page.evaluate(f"(id) => {{ const b = document.getElementById(id); return {end}; }}", box))


def test_the_transcript_follows_through_translations_and_comes_back_by_a_button(
    open_page: Open, fake: Fake
) -> None:
    page = watching(open_page, fake, **sized(SIZES[1]))
    live = page.locator("#transcript-live")
    for number in range(30):
        of = fake.send("caption.final", text=f"Satz {number}.", words=[], start=number, end=number + 1)
        fake.send("caption.translation", of=of, text=f"Sentence {number}, {'long ' * 30}", language="en")
    expect(page.locator("#transcript .translation")).to_have_count(30)
    wait_for(page, lambda: away(page) < 2)
    expect(live).to_be_hidden()

    page.locator("#transcript-box").hover()
    page.mouse.wheel(0, -900)
    expect(live).to_be_visible()
    before = page.evaluate("document.getElementById('transcript-box').scrollTop")
    final(fake, "A new line.", 31)
    expect(page.locator("#transcript li")).to_have_count(31)
    assert page.evaluate("document.getElementById('transcript-box').scrollTop") == before  # it is being read
    live.click()
    wait_for(page, lambda: away(page) < 2)
    expect(live).to_be_hidden()
    expect(page.locator("#transcript-box")).to_be_focused()

    answer(fake, ask(page, fake, "What?"), "It.", evidence=[CITED | {"start": 2.0, "end": 2.5}])
    page.locator("#answers .chip").click()
    expect(page.locator("#transcript .marked")).to_be_in_viewport()
    expect(live).to_be_visible()
    page.keyboard.press("Escape")
    expect(live).to_be_hidden()
    final(fake, "Another new line.", 32)
    expect(page.locator("#transcript li").last).to_be_in_viewport()
    for _ in range(3):
        page.locator("#larger").click()
    wait_for(page, lambda: away(page) < 2)  # larger text is no reason to stop


def test_the_oldest_lines_leave_the_page_and_the_newest_stays_in_view(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[1]))
    for number in range(430):
        final(fake, f"Line {number}.", number)
    lines = page.locator("#transcript .words")
    expect(lines.last).to_have_text("Line 429.")
    expect(lines).to_have_count(400)
    expect(lines.last).to_be_in_viewport()
    expect(page.locator("#transcript-live")).to_be_hidden()


def test_the_newest_scene_stays_on_top_until_somebody_scrolls(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    for number in range(20):
        keyframe(fake, 10.0 * number, "scene", [f"thing {number}"])
    expect(page.locator("#scenes > li")).to_have_count(20)
    expect(page.locator("#scenes > li").first).to_be_in_viewport()
    page.locator("#scenes-box").hover()
    page.mouse.wheel(0, 700)
    expect(page.locator("#scenes-live")).to_be_visible()
    page.locator("#scenes-live").click()
    expect(page.locator("#scenes > li").first).to_be_in_viewport()


# --- scenes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "same"),
    [
        ([["cup", "espresso"]] * 4, None),  # it is panned over
        ([[], [], [], []], 0.0),  # nothing on it has a name
        ([["cup", "espresso"], ["cup"], ["plate"], ["tray", "mug"]], 0.0),  # the detector wavers
    ],
)
def test_the_keyframes_of_one_photo_are_one_row_and_say_nothing_of_new_text(
    open_page: Open, fake: Fake, labels: list[list[str]], same: float | None
) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    keyframe(fake, 0.0, "first", labels[0])
    fake.send("scene.caption", text="A cup.", start=0.0, end=0.0, evidence=[], by="rule")
    for at, reason, seen in zip((3.0, 6.0, 9.0), ("text", "interval", "scene"), labels[1:], strict=True):
        keyframe(fake, at, reason, seen, same=same)
    keyframe(fake, 12.0, "scene", ["cat"])
    fake.send("scene.caption", text="A cat.", start=12.0, end=12.0, evidence=[], by="rule")
    rows = page.locator("#scenes > li")
    expect(rows.locator(".scene-text")).to_have_text(["A cat.", "A cup."])
    expect(rows.locator(".at")).to_have_text(["0:12", "0:00–0:12"])
    if labels[0]:
        expect(rows.locator(".tags")).to_have_text(["", "espresso"])  # what the caption does not say already
    assert "new text" not in page.locator("#scenes").inner_text().lower()


def test_each_slide_is_a_row_and_a_misread_letter_makes_none(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    keyframe(fake, 0.0, "first", ["web site"], "Plan for the spring")
    keyframe(fake, 5.0, "text", ["web site"], "Plan for the sprlng")
    keyframe(fake, 9.0, "text", ["web site"], "Revenue by quarter")
    keyframe(fake, 14.0, "scene", ["web site"], "Thank you")
    titles = page.locator("#scenes .scene-title")
    expect(titles).to_have_text(["Thank you", "Revenue by quarter", "Plan for the sprlng"])


def test_the_title_of_a_slide_that_stands_in_its_caption_is_shown_once(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    keyframe(fake, 0.0, "first", [], "Plan for the spring")
    title = page.locator("#scenes .scene-title")
    expect(title).to_be_visible()
    text = "Slide \u201cPlan for the spring\u201d."
    fake.send("scene.caption", text=text, start=0.0, end=0.0, evidence=[], by="rule")
    expect(page.locator("#scenes .scene-text")).to_have_text([text])
    expect(title).to_be_hidden()


def test_slides_that_nobody_has_read_are_told_apart_by_their_pictures(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    for at, reason in ((0.0, "first"), (5.0, "text"), (10.0, "scene"), (15.0, "interval")):
        keyframe(fake, at, reason, [], same=10.0 if at == 15.0 else None)
    expect(page.locator("#scenes .at")).to_have_text(["0:10–0:15", "0:05–0:10", "0:00–0:05"])


# --- state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "reason", "words"),
    [
        (5, "speech waits for recognition", "Live; captions are late: this machine is busy"),
        (1, "sound waits to be processed", "Live; captions are late: this machine is busy"),
        (2, "pictures wait to be looked at", "Live; pictures are described late: this machine is busy"),
        (4, "questions wait to be answered", "Live; answers are late: this machine is busy"),
        (6, "sound waits to be processed", "Live; questions must wait: this machine is busy"),
        (7, "sound waits to be processed", "Live; captions only: this machine is busy"),
        (3, "recovering", "Live; less is looked at: this machine is busy"),
        (
            3,
            "other sessions keep the models busy",
            "Live; less is looked at: other sessions keep this machine busy",
        ),
        (0, "recovered", "Live"),
    ],
)
def test_a_busy_machine_is_told_in_plain_words(
    open_page: Open, fake: Fake, level: int, reason: str, words: str
) -> None:
    page = watching(open_page, fake)
    fake.send("session.created", started_utc="2026-01-01T00:00:00Z", tracks=["audio"])
    fake.send("session.degraded", level=level, reason=reason, message="For now, this is reduced.")
    fake.send("latency.report", durable=False, ages={}, coverage=0.5, backlog=0.0, level=level)
    expect(page.locator("#figures-note")).to_contain_text("50%")
    expect(page.locator("#status-text")).to_have_text(words)
    expect(page.locator("#load-note")).to_have_text("For now, this is reduced." if level else "")


def started(open_page: Open, fake: Fake, **options: Any) -> Page:
    """A session that the page has made itself."""
    page = open_page(**options)
    page.get_by_text("Address", exact=True).click()
    page.locator("#address").fill("rtsp://camera/1")
    page.locator("#start").click()
    wait_for(page, lambda: len(fake.sockets) == 1)
    fake.send("session.created", started_utc="2026-01-01T00:00:00Z", tracks=["audio", "video"])
    return page


def test_stop_says_so_takes_the_caption_away_and_shows_the_last_picture(open_page: Open, fake: Fake) -> None:
    page = started(open_page, fake)
    keyframe(fake, 0.0, "first", ["cup"])
    partial(fake, "these words hang over the picture", 3)
    expect(page.locator("#captions .caption-line")).to_have_count(1)
    page.locator("#stop").click()
    expect(page.locator("#status-text")).to_contain_text("Stopping")
    expect(page.locator("#captions .caption-line")).to_have_count(0)
    wait_for(page, lambda: ("DELETE", f"/v1/sessions/{SESSION}", None) in fake.calls)
    fake.send("session.stalled", reason="unpublished")
    final(fake, "The last words.", 4)
    expect(page.locator("#transcript .words")).to_have_text(["The last words."])
    expect(page.locator("#captions .caption-line")).to_have_count(0)
    expect(page.locator("#still")).to_be_visible()
    fake.send("session.closed", reason="deleted")
    expect(page.locator("#status-text")).to_have_text("Ended")
    expect(page.locator("#hint")).to_contain_text("Stopped. You can still read, search, ask and download")


@pytest.mark.parametrize("how", ["told", "closed", "gone"])
def test_a_session_that_ended_while_the_server_was_away_is_not_live(
    open_page: Open, fake: Fake, how: str
) -> None:
    page = watching(open_page, fake, allowed=("404", "403", "WebSocket"))
    fake.send("session.created", started_utc="2026-01-01T00:00:00Z", tracks=["audio"])
    final(fake, "Said before the server was restarted.")
    expect(page.locator("#status-text")).to_have_text("Live")
    expect(page.locator("#transcript li")).to_have_count(1)
    fake.state = {"told": "ended", "closed": "live", "gone": None}[how]
    fake.drop(1000 if how == "closed" else 1011)
    expect(page.locator("#status-text")).to_have_text("Ended")
    message = "no longer has this session" if how == "gone" else "The session has ended."
    expect(page.locator("#hint")).to_contain_text(message)
    expect(page.locator("#transcript .words")).to_have_text(["Said before the server was restarted."])
    page.wait_for_timeout(700)
    expect(page.locator("#status-text")).to_have_text("Ended")


def test_focus_is_never_lost(open_page: Open, fake: Fake) -> None:
    page = started(open_page, fake, allowed=("403",))
    expect(page.locator("#session-name")).to_be_focused()
    page.locator("#stop").focus()
    page.keyboard.press("Enter")
    wait_for(page, lambda: bool(fake.calls))
    fake.send("session.closed", reason="deleted")
    expect(page.locator("#stop")).to_have_text("New session")
    expect(page.locator("#stop")).to_be_focused()
    page.locator("#stop").click()
    expect(page.locator("#start")).to_be_focused()
    page.locator("#address").fill("file:/outside.mp4")
    page.locator("#start").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#error-text")).to_have_text("That file may not be read.")
    expect(page.locator("#start")).to_be_focused()
    page.get_by_role("button", name="Dismiss").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#start")).to_be_focused()


# --- before the start -------------------------------------------------------------------------------------


def test_options_are_sent_with_the_session_and_said_beside_the_closed_panel(
    open_page: Open, fake: Fake
) -> None:
    page = open_page()
    page.get_by_text("OBS", exact=True).click()
    page.locator("#options summary").click()
    page.locator("#language").select_option(label="German")
    page.locator("#name").fill("team-1")
    page.locator("#vocabulary").fill("Kubernetes, Dr. Okonkwo ,")
    page.locator("#replace").fill("cuban eddies = Kubernetes\nnonsense")
    page.get_by_label("Translate captions to English").check()
    page.get_by_label("Do not keep anything").check()
    page.locator("#start").click()
    expect(page.locator("#error-text")).to_contain_text("“nonsense” is no replacement")
    page.locator("#replace").fill("cuban eddies = Kubernetes")
    page.locator("#options summary").click()
    expect(page.locator("#options-said")).to_have_text(
        ": team-1, German, translated, 2 words, replacements, not kept"
    )
    page.locator("#start").click()
    wait_for(page, lambda: len(fake.sockets) == 1)
    assert fake.created == [
        {
            "name": "team-1",
            "language": "de",
            "vocabulary": ["Kubernetes", "Dr. Okonkwo"],
            "replace": {"cuban eddies": "Kubernetes"},
            "translate": True,
            "no_store": True,
        }
    ]
    expect(page.locator("#whip-url")).to_be_visible()  # OBS needs the address first


def test_a_camera_with_options_publishes_into_the_session_that_they_made(open_page: Open, fake: Fake) -> None:
    page = open_page(allowed=("503",))
    page.locator("#options summary").click()
    page.locator("#language").select_option("fr")
    page.locator("#start").click()
    wait_for(page, lambda: bool(fake.requests))
    assert fake.created == [{"language": "fr"}]
    assert fake.requests[0][:2] == ("POST", f"/whip/{SESSION}")
    expect(page.locator("#start")).to_be_focused()


def test_sessions_are_listed_with_pictures_opened_and_deleted_after_asking(
    open_page: Open, fake: Fake
) -> None:
    fake.sessions = [
        {"id": f"0.s{n}", "state": "ended" if n else "stalled", "tracks": ["audio", "video"]}
        | {
            "started_utc": "2026-01-01T00:00:00Z",
            "title": "Plan <b>B</b>" if n == 0 else None,
            "seconds": 75.2,
        }
        for n in range(20)
    ]
    page = open_page()
    rows = page.locator("#sessions > li")
    expect(rows).to_have_count(12)
    expect(rows.first).to_contain_text("Plan <b>B</b>")
    expect(rows.first.locator("img")).to_be_visible()
    expect(rows.first.locator(".note")).to_contain_text("nothing is coming · ")
    expect(rows.first.locator(".note")).to_contain_text(" · 1:15")
    page.get_by_role("button", name="Show more").click()
    expect(rows).to_have_count(20)
    page.get_by_label("Which sessions").select_option(label="Running")
    expect(rows).to_have_count(1)
    page.get_by_label("Which sessions").select_option("")
    delete = page.get_by_role("button", name="Delete 0.s2", exact=True)
    delete.click()
    expect(page.locator("#sure-text")).to_contain_text("0.s2")
    assert serious(page) == []
    page.keyboard.press("Escape")
    assert fake.calls == []
    delete.click()
    page.locator("#sure").get_by_role("button", name="Delete").click()
    wait_for(page, lambda: fake.calls == [("DELETE", "/v1/sessions/0.s2?purge=1", None)])
    expect(delete).to_have_count(0)
    page.get_by_role("button", name="0.s3", exact=True).click()
    wait_for(page, lambda: len(fake.sockets) == 1)
    assert page.url.endswith("#session=0.s3")


def test_without_a_token_the_list_asks_for_one_and_then_shows(open_page: Open, fake: Fake) -> None:
    fake.token = "aaa.bbb.ccc"
    fake.sessions = [{"id": SESSION, "state": "ended", "tracks": [], "started_utc": "2026-01-01T00:00:00Z"}]
    page = open_page(allowed=("401",))
    expect(page.locator("#sessions-empty")).to_contain_text("access token")
    page.get_by_text("Access token", exact=True).click()
    page.locator("#token").fill(fake.token)
    page.keyboard.press("Tab")
    expect(page.locator("#sessions > li")).to_have_count(1)


# --- search, downloads, addresses, watches ----------------------------------------------------------------


def test_search_leads_to_the_place(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, **sized(SIZES[0]))
    furnish(fake)
    page.locator("#search-text").fill("sentence")
    page.keyboard.press("Enter")
    expect(page.locator("#found-said")).to_have_text("2 places, the best first")
    page.locator("#found-list button").first.click()
    expect(page.locator("#transcript .marked")).to_contain_text("sentence number 1")
    page.locator("#search-text").fill("nothing")
    page.keyboard.press("Enter")
    expect(page.locator("#found-said")).to_have_text("Nothing like it was said or shown.")
    page.get_by_role("button", name="Close search").click()
    expect(page.locator("#search-text")).to_be_focused()
    expect(page.locator("#found")).to_be_hidden()


def test_captions_and_notes_are_downloaded_and_a_refusal_is_shown(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, allowed=("404",))
    tell(page, "session")
    for button, name in (("Notes", "md"), ("WebVTT", "vtt"), ("SubRip", "srt")):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=button, exact=True).click()
        assert waiting.value.suggested_filename == f"{SESSION}.{name}"
        assert waiting.value.path().read_text().startswith("the file ")
    page.get_by_role("button", name="JSON", exact=True).click()
    expect(page.locator("#error-text")).to_have_text("There is no such session.")


def test_addresses_are_copied_with_a_token_that_says_how_long_it_lives(open_page: Open, fake: Fake) -> None:
    fake.token = "aaa.bbb.ccc"
    page = open_page(
        f"/#session={SESSION}&token=aaa.bbb.ccc", permissions=["clipboard-read", "clipboard-write"]
    )
    wait_for(page, lambda: len(fake.sockets) == 1)
    tell(page, "session")
    expect(page.locator("#copied")).to_contain_text("hold no token")
    assert page.locator("#overlay-url").input_value() == f"{fake.origin}/overlay/{SESSION}?lines=2"
    page.get_by_label("Tokens in these addresses").select_option(label="for 8 hours")
    expect(page.locator("#whip-token")).to_have_value("for.publish")
    expect(page.locator("#copied")).to_contain_text("can watch and ask until")
    assert [call[2] for call in fake.calls] == [
        {"session": SESSION, "may": ["subscribe", "ask"], "expires_in": 28_800},
        {"session": SESSION, "may": ["publish"], "expires_in": 28_800},
    ]
    page.locator("[data-copy=overlay-url]").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"{fake.origin}/overlay/{SESSION}?lines=2#token=for.subscribe.ask"
    assert "aaa" not in copied


def test_a_watch_is_a_chip_that_counts_its_alerts_and_can_be_taken_away(open_page: Open, fake: Fake) -> None:
    fake.watches = [{"id": "w_0", "when": "a dog appears", "fired": 2, "cooldown_s": 10}]
    page = watching(open_page, fake, allowed=("400",))
    page.wait_for_timeout(1700)  # until the history is over
    answer(fake, "none", "so that the page has a place to come from")
    tell(page, "watches")
    expect(page.locator("#watches li")).to_have_text(["a dog appears2×"])
    page.locator("#watch-when").fill("something red")
    page.keyboard.press("Enter")
    expect(page.locator("#watch-problem")).to_have_text("No model here can tell colours.")
    page.locator("#watch-when").fill("someone says <b>budget</b>")
    page.keyboard.press("Enter")
    expect(page.locator("#watches li")).to_have_count(2)
    expect(page.locator("#watch-problem")).to_be_hidden()
    tell(page, "ask")
    final(fake, "This is sentence number 1.", 20.0)
    evidence = [CITED, {"start": 20.0, "end": 20.0, "kind": "sight", "quote": "dog 0.88"}]
    fake.send("alert.fired", start=20.0, watch_id="w_0", text="A dog appeared.", evidence=evidence)
    expect(page.locator("#hint")).to_have_text("A dog appeared.")
    expect(page.locator("#alert-count")).to_have_text("1")
    tell(page, "watches")
    expect(page.locator("#alert-count")).to_have_text("")
    expect(page.locator("#watches li").first.locator(".count")).to_have_text("3")
    expect(page.locator("#alerts li")).to_contain_text("A dog appeared.")
    page.locator("#alerts .chip").first.click()
    expect(page.locator("#transcript .marked")).to_have_count(1)
    page.get_by_role("button", name="Remove the watch: a dog appears").click()
    expect(page.locator("#watches li")).to_have_text(["someone says <b>budget</b>×"])
    expect(page.locator("#watch-when")).to_be_focused()
    assert fake.calls[-1][:2] == ("DELETE", f"/v1/sessions/{SESSION}/watches/w_0")


def test_old_alerts_are_listed_but_are_no_news(open_page: Open, fake: Fake) -> None:
    open_page()
    fake.send("alert.fired", start=1.0, watch_id="w_9", text="Long ago.", evidence=[])
    page = watching(open_page, fake)
    expect(page.locator("#alerts li")).to_have_count(1)
    expect(page.locator("#hint")).to_be_hidden()
    expect(page.locator("#alert-count")).to_have_text("")


def test_the_language_is_changed_while_the_stream_runs(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    tell(page, "session")
    page.locator("#live-language").select_option("de")
    expect(page.locator("#hint")).to_have_text("The spoken language is changed.")
    assert fake.calls == [("PATCH", f"/v1/sessions/{SESSION}", {"language": "de"})]


# --- everywhere -------------------------------------------------------------------------------------------


def test_below_a_sub_path_everything_stays_below_it(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, "/below/here/", **sized(SIZES[0]))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    furnish(fake)
    expect(page.locator("#scenes img:visible")).to_have_count(3)  # the events name them without the sub-path
    page.locator("#search-text").fill("sentence")
    page.keyboard.press("Enter")
    expect(page.locator("#found-list li")).to_have_count(2)
    fake.send("session.closed", reason="ended")
    answer_of = page.locator("#answers .supported .reply")
    page.locator("#question").fill("And?")
    page.keyboard.press("Enter")
    expect(answer_of).to_have_text("After the end.")
    assert page.locator("#overlay-url").input_value().startswith(f"{fake.origin}/below/here/overlay/")
    assert page.locator("#whip-url").input_value() == f"{fake.origin}/below/here/whip/{SESSION}"
    assert page.locator("#page-url").input_value() == f"{fake.origin}/below/here/#session={SESSION}"
    assert asked and [url for url in asked if not url.startswith(f"{fake.origin}/below/here/")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_nothing_serious_in_any_part(
    open_page: Open, fake: Fake, scheme: str, size: tuple[int, int], tmp_path: Path
) -> None:
    fake.watches = [{"id": "w_0", "when": "a dog appears", "fired": 2, "cooldown_s": 10}]
    fake.sessions = [
        {"id": SESSION, "state": "live", "tracks": ["video"], "started_utc": "2026-01-01T00:00:00Z"}
    ]
    page = open_page(color_scheme=scheme, **sized(size))
    page.locator("#options summary").click()
    expect(page.locator("#sessions img")).to_be_visible()
    assert serious(page) == []
    page.screenshot(path=tmp_path / "idle.png")
    page.locator("#sessions .link").click()
    wait_for(page, lambda: len(fake.sockets) == 1)
    furnish(fake)
    fake.send("session.degraded", level=5, reason="sound waits to be processed")
    tell(page, "ask")
    answer(fake, ask(page, fake, "What?"), "Number 1.")
    answer(fake, "other", "I cannot tell from this stream.", "declined")
    fake.send("error", durable=False, error={"message": "refused"}, question_id=ask(page, fake, "Too much?"))
    ask(page, fake, "Still waiting?")
    fake.send("alert.fired", start=20.0, watch_id="w_0", text="A dog appeared.", evidence=[CITED])
    for name in ("transcript", "ask", "scenes", "watches", "session"):
        tell(page, name)
        assert serious(page) == [], name
        page.screenshot(path=tmp_path / f"{name}.png")


def test_a_session_is_made_asked_searched_and_left_by_the_keyboard_alone(open_page: Open, fake: Fake) -> None:
    page = open_page(**sized(SIZES[1]))

    def to(target: str) -> None:
        """Tab until the control has the focus."""
        for _ in range(40):
            if page.evaluate("(css) => document.activeElement.matches(css)", target):
                return
            page.keyboard.press("Tab")
            name = page.evaluate("document.activeElement.outerHTML.slice(0, 80)")
            outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            radio = page.evaluate("document.activeElement.matches('[type=radio], [type=file], body')")
            assert outline != "none" or radio, f"the focus cannot be seen on {name}"
        raise AssertionError(f"{target} is not reached")

    to("[name=kind]")
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    to("#start")
    expect(page.locator("#start")).to_have_text("Make a session")
    page.keyboard.press("Enter")
    wait_for(page, lambda: len(fake.sockets) == 1)
    furnish(fake)
    page.keyboard.press("/")
    page.keyboard.type("What is the sentence?")
    page.keyboard.press("Enter")
    wait_for(page, lambda: bool(fake.asked))
    answer(fake, fake.asked[0]["id"], "It is number 1.")
    to("#answers .chip")
    page.keyboard.press("Enter")
    expect(page.locator("#transcript .marked")).to_contain_text("sentence number 1")
    page.keyboard.press("Escape")
    expect(page.locator(".marked")).to_have_count(0)
    page.keyboard.press("Shift+Tab")
    page.locator("#tab-ask").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    to("#watch-when")
    page.keyboard.type("a dog appears")
    page.keyboard.press("Enter")
    expect(page.locator("#watches li")).to_have_count(1)
    to("#watches .close")
    page.keyboard.press("Enter")
    expect(page.locator("#watch-when")).to_be_focused()
    page.locator("#session-name").focus()
    to("#stop")
    page.keyboard.press("Enter")
    wait_for(page, lambda: any(call[0] == "DELETE" and call[1].endswith(SESSION) for call in fake.calls))
    fake.send("session.closed", reason="deleted")
    expect(page.locator("#status-text")).to_have_text("Ended")
    to("#stop")
    page.keyboard.press("Enter")
    expect(page.locator("#start")).to_be_focused()
