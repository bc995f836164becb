"""Page, overlay and browser client in Chromium, against a small server of the event protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright

from tests.builders.browser import CAPTURE, CHROMIUM, FLAGS, Open, opening, serious, wait_for
from tests.fakes.page_server import SESSION, Fake, answer, final, furnish, partial, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: install Debian's package chromium"
    ),
]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as running:
        yield running


# One per test: Chromium keeps processes of closed pages for seconds, and the leak guard would wait for them.
@pytest.fixture
def browser(playwright: Playwright) -> Iterator[Browser]:
    running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
    yield running
    running.close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    with serving() as fake:
        yield fake


@pytest.fixture
def browser_with_camera(playwright: Playwright) -> Iterator[Browser]:
    """A browser of its own: capture starts helper processes that stay until the browser ends."""
    running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=[*FLAGS, *CAPTURE])
    yield running
    running.close()


@pytest.fixture
def open_page(browser: Browser, fake: Fake) -> Iterator[Open]:
    with opening(browser, fake.origin) as opened:
        yield opened


def watching(open_page: Open, fake: Fake, **options: Any) -> Page:
    page = open_page(f"/#session={SESSION}", **options)
    wait_for(page, lambda: len(fake.sockets) > 0)
    return page


def test_a_caption_is_shown_while_it_is_spoken_and_kept_in_the_transcript_once_closed(
    open_page: Open, fake: Fake
) -> None:
    page = watching(open_page, fake)
    partial(fake, "stone cutter lived near", 2)
    expect(page.locator("#captions .caption-words")).to_have_text("stone cutter lived")
    expect(page.locator("#captions .tentative")).to_have_text(" lived")
    expect(page.locator("#transcript li")).to_have_count(0)
    final(fake, "The stone cutter\nlived near a mountain.", 61.0)
    expect(page.locator("#transcript li")).to_have_text("1:01The stone cutter lived near a mountain.")
    expect(page.locator("#captions .tentative")).to_have_count(0)
    expect(page.locator("#said")).to_have_text("The stone cutter lived near a mountain.")


def test_markup_in_a_caption_a_scene_and_an_answer_is_shown_as_text(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    nasty = "<b>&amp;</b> <img src=x onerror=alert(1)>"
    partial(fake, nasty, 4)
    expect(page.locator("#captions")).to_have_text(nasty)
    final(fake, nasty)
    fake.send("keyframe.sampled", start=0.0, reason="first", url=f"/v1/sessions/{SESSION}/frames/0.jpg")
    fake.send("scene.caption", text=nasty, start=0.0, end=1.0, evidence=[])
    fake.send("answer.done", question_id="x", text=nasty, outcome="answer", supported=True, evidence=[])
    expect(page.locator("#transcript .words")).to_have_text(nasty)
    expect(page.locator("#scenes .scene-text")).to_have_text(nasty)
    expect(page.locator("#answers .reply")).to_have_text(nasty)
    assert (
        page.locator(
            "#transcript b, #scenes .scene-text *, #answers .reply *, #captions b, #captions img"
        ).count()
        == 0
    )


def test_what_the_model_says_of_a_scene_takes_the_place_of_the_rules_caption_and_says_that_it_is_the_models(
    open_page: Open, fake: Fake
) -> None:
    page = watching(open_page, fake)
    fake.send("keyframe.sampled", start=0.0, reason="first", url=f"/v1/sessions/{SESSION}/frames/0.jpg")
    fake.send("scene.caption", text="A cat.", start=0.0, end=0.0, evidence=[], by="rule")
    expect(page.locator("#scenes .scene-text")).to_have_text("A cat.")
    fake.send("scene.caption", text="A grey cat on a mat.", start=0.0, end=0.0, evidence=[], by="model")
    expect(page.locator("#scenes .scene-text")).to_have_text("A grey cat on a mat. by the model")


def test_a_scene_caption_by_the_model_grows_below_the_rules_and_is_text(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)

    def grow(index: int, text: str, scene: str = "scene_1", **more: Any) -> None:
        fake.send("scene.delta", durable=False, scene_id=scene, index=index, text=text, start=0.0, **more)

    fake.send("keyframe.sampled", start=0.0, reason="first", url=f"/v1/sessions/{SESSION}/frames/0.jpg")
    fake.send("scene.caption", text="A cat.", start=0.0, end=0.0, evidence=[], by="rule")
    growing, text = page.locator("#scenes .scene-growing"), page.locator("#scenes .scene-text")
    grow(0, "A <b>grey</b>")
    grow(1, " cat <img src=x onerror=alert(1)>")
    expect(growing).to_have_text("A <b>grey</b> cat <img src=x onerror=alert(1)>")
    expect(text).to_have_text("A cat.")
    assert page.locator("#scenes .scene-growing *").count() == 0
    whole: dict[str, Any] = {"text": "A grey cat.", "start": 0.0, "end": 0.0, "evidence": [], "by": "model"}
    fake.send("scene.caption", **whole, scene_id="scene_1")
    expect(text).to_have_text("A grey cat. by the model")
    expect(growing).to_have_text("")
    grow(0, "A dog", "scene_2")
    expect(growing).to_have_text("A dog")
    grow(1, "", "scene_2", withdrawn=True)
    expect(growing).to_have_text("")
    grow(0, "A bird", "scene_3")
    expect(growing).to_have_text("A bird")
    grow(2, " with a part lost", "scene_3")
    expect(growing).to_have_text("")
    grow(1, " and late", "scene_3")
    grow(0, "A horse", "scene_4")
    expect(growing).to_have_text("A horse")
    expect(text).to_have_text("A grey cat. by the model")


def test_a_typed_question_is_answered_with_evidence_that_leads_to_its_place(
    open_page: Open, fake: Fake
) -> None:
    page = watching(open_page, fake)
    furnish(fake)
    page.locator("body").press("/")
    expect(page.locator("#question")).to_be_focused()
    page.keyboard.type("What is the sentence?")
    page.keyboard.press("Enter")
    wait_for(page, lambda: bool(fake.asked))
    question = fake.asked[0]
    assert question["text"] == "What is the sentence?"
    expect(page.locator("#answers .pending")).to_have_count(1)
    fake.send("answer.delta", durable=False, question_id=question["id"], text="It is ")
    fake.send("answer.delta", durable=False, question_id=question["id"], text="number 1.")
    expect(page.locator("#answers .reply")).to_have_text("It is number 1.")
    answer(fake, question["id"], "It is number 1.")
    page.locator("#answers .supported .chip").click()
    expect(page.locator("#transcript .marked")).to_contain_text("sentence number 1")
    expect(page.locator("#scenes .marked")).to_contain_text("Quarterly results")
    page.keyboard.press("Escape")
    expect(page.locator(".marked")).to_have_count(0)


def test_an_answer_without_support_looks_different_and_says_so(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    page.locator("#question").fill("What music is playing?")
    page.locator("#ask-button").click()
    wait_for(page, lambda: bool(fake.asked))
    answer(fake, fake.asked[0]["id"], "I cannot tell from this stream.", "declined")
    verdict = page.locator("#answers .unsupported .verdict")
    expect(verdict).to_have_text("Not a thing that the models here can tell")
    expect(page.locator("#answers .chip")).to_have_count(0)
    answer(fake, "other", "It looks like a guitar.", supported=False, by="model")
    expect(verdict.first).to_have_text("The model's own word: nothing here can check it")


def test_a_session_that_has_ended_is_asked_by_http(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake, allowed=("503",))
    furnish(fake)
    fake.send("session.closed", reason="ended")
    expect(page.locator("#status")).to_have_attribute("data-state", "ended")
    page.locator("#question").fill("And?")
    page.locator("#ask-button").click()
    expect(page.locator("#answers .supported .reply")).to_have_text("After the end.")
    expect(page.locator("#answer-said")).to_have_text("After the end.")
    page.locator("#answers .chip").click()
    expect(page.locator("#transcript .marked")).to_contain_text("sentence number 1")
    page.locator("#question").fill("Too much?")
    page.locator("#ask-button").click()
    expect(page.locator("#answers .failed .reply")).to_have_text("No questions are taken now.")
    assert [question["text"] for question in fake.asked] == ["And?", "Too much?"]


def test_the_nearest_passage_is_shown_as_such_and_leads_to_its_place(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    furnish(fake)
    answer(fake, "q", "I found no answer. Nearest, at 0:20: sentence number 1", "closest", url="/x")
    row = page.locator("#answers .unsupported.closest")
    expect(row.locator(".reply")).to_have_text("Nearest: sentence number 1")
    expect(row.locator(".verdict")).to_contain_text("No answer found")
    row.locator(".chip").click()
    expect(page.locator("#transcript .marked")).to_contain_text("sentence number 1")


@pytest.mark.parametrize(
    ("reason", "words"), [("busy", "too much to do"), ("late", "time was up"), ("", "The worker died.")]
)
def test_a_question_that_fails_says_why_in_words_and_can_be_asked_again(
    open_page: Open, fake: Fake, reason: str, words: str
) -> None:
    page = watching(open_page, fake)
    page.locator("#question").fill("Who speaks?")
    page.locator("#ask-button").click()
    wait_for(page, lambda: bool(fake.asked))
    error = {"type": "server_error", "code": "x", "message": "the worker died", "retryable": True}
    more = {"reason": reason} if reason else {}
    body: dict[str, Any] = {"outcome": "declined", "supported": False, "evidence": [], "error": error}
    fake.send("answer.done", question_id=fake.asked[0]["id"], text="", **body | more)
    expect(page.locator("#answers .failed .reply")).to_contain_text(words)
    page.locator("#answers .failed button").click()
    wait_for(page, lambda: len(fake.asked) == 2)


def test_after_a_broken_connection_nothing_is_missing_and_nothing_is_twice(
    open_page: Open, fake: Fake
) -> None:
    page = watching(open_page, fake)
    for number in range(3):
        final(fake, f"before {number}", number)
    expect(page.locator("#transcript li")).to_have_count(3)
    fake.drop()
    wait_for(page, lambda: not fake.sockets)
    final(fake, "meanwhile", 3)
    wait_for(page, lambda: len(fake.sockets) == 1)
    final(fake, "afterwards", 4)
    expect(page.locator("#transcript .words")).to_have_text(
        ["before 0", "before 1", "before 2", "meanwhile", "afterwards"]
    )
    first, second = fake.connections
    assert second["query"] == {"client": first["query"]["client"], "epoch": "e1", "after": "3"}


def test_what_was_shown_is_thrown_away_when_the_log_begins_anew(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    final(fake, "old")
    expect(page.locator("#transcript .words")).to_have_text(["old"])
    fake.log.clear()
    fake.epoch = "e2"
    final(fake, "new")
    expect(page.locator("#transcript .words")).to_have_text(["new"])


def test_a_stall_and_a_loss_of_quality_and_the_end_are_told(open_page: Open, fake: Fake) -> None:
    page = watching(open_page, fake)
    status = page.locator("#status-text")
    fake.send("session.created", started_utc="2026-01-01T00:00:00Z", tracks=["main"])
    fake.send("session.stalled", reason="no media")
    expect(status).to_have_text("No picture or sound is coming")
    fake.send("session.resumed", reason="media")
    expect(status).to_have_text("Live")
    fake.send("session.degraded", level=2, reason="sound waits to be processed")
    expect(status).to_have_text("Live; captions are late: this machine is busy")
    fake.send("session.closed", reason="ended")
    expect(status).to_have_text("Ended")
    expect(page.locator("#stop")).to_have_text("New session")
    page.locator("#stop").click()
    expect(page.locator("#source")).to_be_visible()


def test_a_token_goes_as_a_subprotocol_and_never_in_an_address(open_page: Open, fake: Fake) -> None:
    fake.token = "aaa.bbb.ccc"
    page = open_page(f"/#session={SESSION}&token=aaa.bbb.ccc")
    final(fake, "hello")
    expect(page.locator("#transcript .words")).to_have_text(["hello"])
    assert fake.connections[0]["offered"] == ["streamsvc.v1", "streamsvc.token.aaa.bbb.ccc"]
    assert "aaa" not in json.dumps(fake.connections[0]["query"])
    assert "aaa" not in page.url


RESOURCES = [
    # Location, the address that answered, the address that was asked, where the publication is
    ("0.a/r", "http://a:1/whip/talk", "http://a:1/whip/talk", "http://a:1/whip/0.a/r"),
    ("whip/0.a/r", "http://a:1/whip", "http://a:1/whip", "http://a:1/whip/0.a/r"),
    # Another node has answered: behind one public name, and at an origin of its own.
    ("0.a/r", "https://a/node/2/whip/talk?ticket=t", "https://a/whip/talk", "https://a/node/2/whip/0.a/r"),
    ("0.a/r", "http://b:2/whip/talk?ticket=t", "http://a:1/whip/talk", "http://a:1/whip/0.a/r"),
    ("whip/0.a/r", "http://b:2/whip?ticket=t", "http://a:1/live/whip", "http://a:1/live/whip/0.a/r"),
    # The server gives a public address that it was not asked at.
    ("https://p/live/whip/0.a/r", "http://a:1/whip/talk", "http://a:1/whip/talk", "http://a:1/whip/0.a/r"),
]


def test_a_publication_is_changed_and_ended_at_the_origin_that_was_asked(open_page: Open) -> None:
    page = open_page()
    found = page.evaluate(
        """async (resources) => {
          const { resourceUrl } = await import("/web/whip.js");
          return resources.map(([given, answered, asked]) => resourceUrl(given, answered, new URL(asked)));
        }""",
        [list(row[:3]) for row in RESOURCES],
    )
    assert found == [row[3] for row in RESOURCES]


def test_a_missing_token_is_asked_for_and_not_tried_again_and_again(open_page: Open, fake: Fake) -> None:
    fake.token = "aaa.bbb.ccc"
    page = open_page(f"/#session={SESSION}", allowed=("401",))
    expect(page.locator("#error-text")).to_have_text("This session needs a token.")
    expect(page.locator("#token")).to_have_count(1)
    page.wait_for_timeout(1200)
    assert len(fake.connections) == 1


def test_a_description_that_comes_after_the_refusal_is_let_go(open_page: Open, fake: Fake) -> None:
    """The server's word on a session is still being read when its socket is refused."""
    fake.token = "aaa.bbb.ccc"
    page = open_page(allowed=("401",))
    page.add_init_script("""
        const read = Response.prototype.json;
        Response.prototype.json = async function () {
            await new Promise((resolve) => setTimeout(resolve, 400));
            window.read = true;
            return read.call(this);
        };""")
    page.goto("about:blank")
    page.goto(f"{fake.origin}/#session={SESSION}")
    expect(page.locator("#error-text")).to_have_text("This session needs a token.")
    wait_for(page, lambda: bool(page.evaluate("window.read")))
    page.wait_for_timeout(100)  # what is thrown after it is a fault of the page


def test_a_source_address_makes_a_session_and_a_refusal_is_shown(open_page: Open, fake: Fake) -> None:
    page = open_page(allowed=("403",))
    page.get_by_text("Address", exact=True).click()
    page.locator("#address").fill("file:/outside.mp4")
    page.locator("#start").click()
    expect(page.locator("#error-text")).to_have_text("That file may not be read.")
    page.locator("#address").fill("rtsp://camera/1")
    page.locator("#start").click()
    wait_for(page, lambda: len(fake.sockets) == 1)
    assert fake.created[-1] == {"source": "rtsp://camera/1"}
    assert page.locator("#overlay-url").input_value() == f"{fake.origin}/overlay/{SESSION}?lines=2"
    assert page.locator("#whip-url").input_value() == f"{fake.origin}/whip/{SESSION}"


def test_a_full_server_tells_when_to_come_back_and_the_camera_is_let_go(
    browser_with_camera: Browser, open_page: Open, fake: Fake
) -> None:
    page = open_page(allowed=("503",), using=browser_with_camera)
    page.locator("#start").click()
    expect(page.locator("#error-text")).to_have_text(
        "The server has no room for another stream now. Try again in 7 s."
    )
    method, path, offer = fake.requests[0]
    assert (method, path) == ("POST", "/whip")
    assert (
        offer.count("\nm=audio") == 1
        and offer.count("\nm=video") == 1
        and "opus" in offer
        and "a=sendonly" in offer
    )
    expect(page.locator("#source")).to_be_visible()
    assert page.evaluate("document.getElementById('preview').srcObject") is None


def test_the_overlay_shows_two_lines_then_nothing_after_silence(open_page: Open, fake: Fake) -> None:
    page = open_page(
        f"/overlay/{SESSION}?lines=2&clear=4&color=ffcc00&size=30", reduced_motion="reduce"
    )  # a still picture: lines glide otherwise
    wait_for(page, lambda: len(fake.sockets) == 1)
    for number in range(4):
        final(fake, f"line {number} is so long that no other fits in")
    last = page.locator(".caption-line", has_text="line 3")
    expect(last).to_be_visible()
    box, row = page.locator("#captions").bounding_box(), last.bounding_box()
    assert (
        box
        and row
        and abs(box["height"] - 2 * row["height"]) < 2
        and abs(box["y"] + box["height"] - row["y"] - row["height"]) < 2
    )
    assert (
        page.evaluate("getComputedStyle(document.querySelector('.caption-words')).color")
        == "rgb(255, 204, 0)"
    )
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgba(0, 0, 0, 0)"
    expect(page.locator(".caption-line")).to_have_count(0, timeout=15_000)


def test_the_overlay_comes_back_by_itself_and_takes_one_language_only(open_page: Open, fake: Fake) -> None:
    page = open_page(f"/overlay/{SESSION}?lang=de&clear=30")
    wait_for(page, lambda: len(fake.sockets) == 1)
    fake.drop()
    wait_for(page, lambda: len(fake.connections) == 2 and len(fake.sockets) == 1)
    final(fake, "hello")
    fake.send("caption.translation", of="e1.1", text="hallo", language="de")
    expect(page.locator("#captions")).to_have_text("hallo")


def test_the_overlay_goes_on_with_the_next_broadcast_of_its_name(open_page: Open, fake: Fake) -> None:
    page = open_page(f"/overlay/{SESSION}?clear=30")
    wait_for(page, lambda: len(fake.sockets) == 1)
    final(fake, "the last words")
    expect(page.locator("#captions")).to_have_text("the last words")
    fake.log.clear()
    fake.epoch = "e2"
    fake.drop(1000)
    wait_for(page, lambda: len(fake.connections) == 2 and len(fake.sockets) == 1)
    assert fake.connections[1]["query"]["epoch"] == "e1", (
        "the service tells a gap then, and begins with the first"
    )
    final(fake, "good evening")
    expect(page.locator("#captions")).to_have_text("good evening")


def test_the_overlay_shows_the_translation_alone_or_below_what_was_said_and_text_is_never_markup(
    open_page: Open, fake: Fake
) -> None:
    markup = "<img src=x onerror=alert(1)> & so on"

    def say(sockets: int) -> None:
        wait_for(page, lambda: len(fake.sockets) == sockets)
        fake.send(
            "caption.partial",
            durable=False,
            text="guten",
            words=[],
            stable=0,
            start=0.0,
            end=1.0,
            language="de",
        )
        of = fake.send("caption.final", text="guten Tag", words=[], start=0.0, end=1.0, language="de")
        fake.send("caption.translation", of=of, text=markup, language="en")

    page = open_page(f"/overlay/{SESSION}?lang=en&clear=60")
    say(1)
    expect(page.locator("#captions")).to_have_text(markup)
    assert page.locator("#translations").count() == 0
    page.close()
    page = open_page(f"/overlay/{SESSION}?lang=both&clear=60")
    wait_for(page, lambda: len(fake.connections) == 2)
    say(1)
    expect(page.locator("#captions")).to_have_text("guten Tag")
    expect(page.locator("#translations")).to_have_text(markup)
    assert page.locator("img").count() == 0
    above, below = page.locator("#captions").bounding_box(), page.locator("#translations").bounding_box()
    assert above and below and above["y"] + above["height"] <= below["y"]
    assert below["y"] + below["height"] <= page.evaluate("innerHeight")
    fake.send("caption.final", text="und auch", words=[], start=2.0, end=3.0, language="de")
    expect(page.locator("#captions")).to_contain_text("und auch")
    expect(page.locator("#translations")).to_have_text(markup)


def test_the_overlay_says_that_its_token_is_wrong_until_it_is_let_in(open_page: Open, fake: Fake) -> None:
    fake.token = "aaa.bbb.ccc"
    page = open_page(f"/overlay/{SESSION}#token=of.another.session")
    notice = page.locator("#notice")
    expect(notice).to_have_text("This session needs a token.")
    fake.token = ""
    wait_for(page, lambda: len(fake.sockets) == 1)
    final(fake, "hello")
    expect(page.locator("#captions")).to_have_text("hello")
    expect(notice).to_be_hidden()


def test_the_demo_of_the_overlay_needs_no_session(open_page: Open, fake: Fake) -> None:
    page = open_page("/overlay/none?demo=1")
    expect(page.locator(".tentative")).to_have_count(1)
    assert fake.connections == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(open_page: Open, fake: Fake, scheme: str, tmp_path: Path) -> None:
    page = watching(open_page, fake, color_scheme=scheme, viewport={"width": 1360, "height": 900})
    furnish(fake)
    page.locator("#question").fill("What was said?")
    page.locator("#ask-button").click()
    wait_for(page, lambda: bool(fake.asked))
    answer(fake, fake.asked[0]["id"], "You said: sentence number 1.")
    answer(fake, "other", "I cannot tell from this stream.", "declined")
    expect(page.locator("#answers li")).to_have_count(2)
    assert serious(page) == []
    page.screenshot(path=tmp_path / f"watching_{scheme}.png", full_page=True)
    idle = open_page(color_scheme=scheme, viewport={"width": 1360, "height": 900})
    for choice in ("File", "Address", "OBS", "Watch", "Screen", "Camera"):
        idle.locator("#source").get_by_text(choice, exact=True).first.click()
        assert serious(idle) == []
    idle.screenshot(path=tmp_path / f"idle_{scheme}.png", full_page=True)


@pytest.mark.parametrize("larger", [0, 5])
def test_a_narrow_window_needs_no_sideways_scrolling(
    open_page: Open, fake: Fake, larger: int, tmp_path: Path
) -> None:
    page = watching(open_page, fake, viewport={"width": 360, "height": 740})
    for _ in range(larger):
        if page.locator("#larger").is_enabled():
            page.locator("#larger").click()
    furnish(fake)
    expect(page.locator("#transcript li")).to_have_count(4)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.screenshot(path=tmp_path / f"narrow_{larger}.png", full_page=True)
