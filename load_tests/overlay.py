"""How calm the captions of the overlay are: its page in Chromium, looked at every 50 ms of a session.

    python -m load_tests.overlay talk.mp4                       # 40 s of a recording, on a virtual clock
    python -m load_tests.overlay talk.mp4 --record talk.jsonl   # ... and keep the caption events
    python -m load_tests.overlay talk.jsonl --live              # kept events, in real time
    python -m load_tests.overlay talk.jsonl --web OTHER/streamsvc/web   # another version of the overlay

The models are the real ones, a fixed time a call (session_run.fixed_time_service), so that a recording gives
the same events on every machine. Without `--live` the page gets 50 ms of events at a time and is looked at
after each, and its lines do not glide.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import itertools
import json
import mimetypes
import re
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Route, sync_playwright

from streamsvc.core import clock, config
from streamsvc.evaluation import session_run
from streamsvc.evaluation.scenario import Scenario

WEB = Path(__file__).resolve().parents[1] / "streamsvc" / "web"
CHROMIUM = "/usr/bin/chromium"
ORIGIN = "http://overlay.test"
TICK_MS = 50
MOVED_PIXELS = 1.5  # sideways; less is rounding
STOPS = (".", "!", "?", "…", "。", "！", "？")

Event = dict[str, Any]
Shown = tuple[str, float, float]  # a word, and its left edge and its top in pixels

# In the page: a socket that is fed by hand, what is shown, and the replay of events.
SCRIPT = """
(() => {
  const sockets = [];
  window.WebSocket = class {
    static OPEN = 1;
    constructor(url) {
      this.url = String(url);
      this.readyState = 1;
      sockets.push(this);
      queueMicrotask(() => this.onopen?.());
    }
    send() {}
    close() {}
  };
  const give = (event) => sockets.at(-1).onmessage({ data: JSON.stringify(event) });
  const shown = () => {
    const box = document.getElementById("captions");
    const frame = box.getBoundingClientRect();
    const found = [];
    for (const words of box.querySelectorAll(".caption-words")) {
      const chars = [];
      const walker = document.createTreeWalker(words, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const node = walker.currentNode;
        for (let at = 0; at < node.data.length; at += 1) chars.push([node, at, node.data[at]]);
      }
      let word = [];
      for (const char of [...chars, [null, 0, " "]]) {
        if (/\\S/.test(char[2])) {
          word.push(char);
          continue;
        }
        if (word.length) {
          const range = document.createRange();
          range.setStart(word[0][0], word[0][1]);
          range.setEnd(word.at(-1)[0], word.at(-1)[1] + 1);
          const { left, right, top, bottom } = range.getClientRects()[0];
          const rtl = getComputedStyle(words).direction === "rtl";
          const middle = (top + bottom) / 2;
          const text = word.map((each) => each[2]).join("");
          if (middle > frame.top && middle < frame.bottom) found.push([text, rtl ? right : left, top]);
        }
        word = [];
      }
    }
    return found;
  };
  window.replay = async (events, end, tick, live) => {
    const samples = [];
    const start = performance.now();
    let next = 0;
    for (let now = 0; now <= end; now = live ? performance.now() - start : now + tick) {
      while (next < events.length && events[next].received * 1000 <= now) give(events[next++]);
      samples.push([now / 1000, shown()]);
      if (live) await new Promise((done) => setTimeout(done, tick));
    }
    return samples;
  };
  window.give = give;
  window.shown = shown;
})();
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What stands in the box at a time, in reading order. `at`: seconds."""

    at: float
    words: list[Shown]


@dataclass(frozen=True, slots=True)
class Change:
    """What one change of the picture did to the words that were shown before it: their texts."""

    moved: list[str] = field(default_factory=list)  # sideways
    taken_back: list[str] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)  # that lost their full stop


def normalised(text: str) -> str:
    """A word without case and punctuation; of punctuation alone, the text itself."""
    return re.sub(r"[\W_]+", "", text.casefold()) or text


def change(before: Sequence[Shown], after: Sequence[Shown]) -> Change:
    """What happened to the words of a picture. Words that rolled off the top are none of it."""
    old = [normalised(text) for text, _, _ in before]
    new = [normalised(text) for text, _, _ in after]
    if not new:  # cleared
        return Change()
    rolled = max(range(len(old) + 1), key=lambda start: (_common(old[start:], new), -start))
    kept = _common(old[rolled:], new)
    if not kept:
        rolled = 0
    pairs = [(rolled + index, index) for index in range(kept)]
    matcher = difflib.SequenceMatcher(None, old[rolled + kept :], new[kept:], autojunk=False)
    for block in matcher.get_matching_blocks():
        pairs += [(rolled + kept + block.a + n, kept + block.b + n) for n in range(block.size)]
    matched = {one for one, _ in pairs}
    result = Change()
    for one, other in pairs:
        if abs(before[one][1] - after[other][1]) > MOVED_PIXELS:
            result.moved.append(before[one][0])
        if before[one][0].endswith(STOPS) and not after[other][0].endswith(STOPS):
            result.stops.append(before[one][0])
    for index in range(rolled, len(old)):
        if index not in matched:
            result.taken_back.append(before[index][0])
            if before[index][0].endswith(STOPS):
                result.stops.append(before[index][0])
    return result


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count


def lines(words: Sequence[Shown]) -> list[str]:
    """The words of a picture as lines."""
    found: list[list[str]] = []
    top: float | None = None
    for text, _, y in words:
        if top is None or abs(y - top) > 2:
            found.append([])
        found[-1].append(text)
        top = y
    return [" ".join(line) for line in found]


def said(events: Sequence[Event], at: float) -> list[str]:
    """All words that the events up to second `at` say, of the open cue those that may change too."""
    closed: list[str] = []
    opened: list[str] = []
    for event in events:
        if event["received"] > at:
            break
        if event["type"] == "caption.final":
            closed += event["text"].split()
            opened = []
        elif event["type"] == "caption.partial":
            opened = event["text"].split()
    return closed + opened


def within(words: Sequence[str], text: Sequence[str]) -> int:
    """Where words stand in a text, one after another, for the last time; -1: nowhere. Both normalised."""
    wanted = list(words)
    starts = range(len(text) - len(wanted), -1, -1)
    return next((start for start in starts if list(text[start : start + len(wanted)]) == wanted), -1)


def figures(samples: Sequence[Sample], events: Sequence[Event]) -> dict[str, Any]:
    """How calm a replay was.

    updates: changes of the picture; the next four: those that moved words sideways, words moved, words taken
    back, full stops that vanished. unsaid: pictures with words that the events do not say (any more).
    columns, lines: the most. late_p50, late_p95: seconds from a word's first event to its being shown for
    good. unseen: words of closed captions that were never shown.
    """
    changes = [
        change(one.words, other.words)
        for one, other in itertools.pairwise(samples)
        if one.words != other.words
    ]
    unsaid = sum(
        within(_normal(sample.words), [normalised(word) for word in said(events, sample.at)]) < 0
        for sample in samples
    )
    rows = [line for sample in samples for line in lines(sample.words)]
    late, unseen = _late(samples, events)
    return {
        "updates": len(changes),
        "moving": sum(bool(one.moved) for one in changes),
        "moved": sum(len(one.moved) for one in changes),
        "taken_back": sum(len(one.taken_back) for one in changes),
        "stops": sum(len(one.stops) for one in changes),
        "unsaid": unsaid,
        "columns": max(map(len, rows), default=0),
        "lines": max((len(lines(sample.words)) for sample in samples), default=0),
        "late_p50": round(statistics.median(late), 2) if late else None,
        "late_p95": round(sorted(late)[int(len(late) * 0.95)], 2) if late else None,
        "unseen": unseen,
    }


def _normal(words: Sequence[Shown]) -> list[str]:
    return [normalised(text) for text, _, _ in words]


def _late(samples: Sequence[Sample], events: Sequence[Event]) -> tuple[list[float], int]:
    """For each closed word, seconds from its first event to its being shown; how many were never shown."""
    final = [normalised(word) for word in said(events, float("inf"))]
    known: dict[int, float] = {}  # place in `final` -> seconds
    seen: dict[int, float] = {}
    for sample in samples:
        text = [normalised(word) for word in said(events, sample.at)]
        for place, word in enumerate(text[: len(final)]):
            if word == final[place]:
                known.setdefault(place, sample.at)
        shown = _normal(sample.words)
        start = within(shown, text)
        for place, word in enumerate(shown, start) if start >= 0 else ():
            if place < len(final) and word == final[place]:
                seen.setdefault(place, sample.at)
    return [seen[place] - known[place] for place in known if place in seen], len(final) - len(seen)


# --- events and page ----------------------------------------------------------------------------------------


async def recorded(recording: Path, seconds: float) -> list[Event]:
    """The caption events of a recording's first seconds. Requires a `clock.Threadless` loop."""
    with tempfile.TemporaryDirectory() as folder:
        settings = config.load(None, server={"data_dir": folder}, see={"ocr": False})
        async with session_run.fixed_time_service(settings) as service:
            scenario = Scenario(recording.stem, recording, {}, {}, seconds)
            run = await session_run.play(service, scenario)
    return [event for event in run.events if event["type"].startswith("caption.")]


def open_overlay(page: Page, query: str = "", web: Path = WEB, base: str = "") -> None:
    """Open the overlay with its socket in the hands of `replay`; `base`: the path that it is served below.

    Files come from `web`; anything else is answered with 404, which fails the page's scripts.
    """

    def serve(route: Route) -> None:
        path = route.request.url.removeprefix(ORIGIN + base).split("?")[0].split("#")[0]
        name = "overlay.html" if path.startswith("/overlay/") else path.removeprefix("/web/")
        file = web / name
        if file.parent != web or not file.is_file():
            route.fulfill(status=404, body="not here")
            return
        kind = mimetypes.guess_type(name)[0] or "text/plain"
        route.fulfill(status=200, body=file.read_bytes(), content_type=kind)

    page.route("**/*", serve)
    page.add_init_script(SCRIPT)
    page.goto(f"{ORIGIN}{base}/overlay/0.abc?{query}")


def replay(page: Page, events: Sequence[Event], *, live: bool = False) -> list[Sample]:
    """Give events to an opened overlay at their seconds; what it shows every TICK_MS."""
    end = max((event["received"] for event in events), default=0.0) * 1000 + 500
    body = [{"v": 1, "epoch": "e", **event} for event in events]
    samples = page.evaluate("(all) => replay(...all)", [body, end, TICK_MS, live])
    return [Sample(at, [(text, x, y) for text, x, y in words]) for at, words in samples]


def main() -> None:
    """Record or read events, replay them, print the figures."""
    parser = argparse.ArgumentParser(description="How calm the captions of the overlay are.")
    parser.add_argument("source", type=Path, help="a recording, or *.jsonl of kept events")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the recording")
    parser.add_argument("--record", type=Path, help="keep the caption events here")
    parser.add_argument("--web", type=Path, default=WEB, help="files of the overlay")
    parser.add_argument("--query", default="", help="options of the overlay, such as lines=3&size=60")
    parser.add_argument("--live", action="store_true", help="in real time")
    parser.add_argument("--picture", type=Path, help="*.png of the overlay at the end")
    chosen = parser.parse_args()
    if chosen.source.suffix == ".jsonl":
        events = [json.loads(line) for line in chosen.source.read_text(encoding="utf-8").splitlines()]
    else:
        with asyncio.Runner(loop_factory=clock.Threadless) as runner:
            events = runner.run(recorded(chosen.source, chosen.seconds))
    if chosen.record is not None:
        text = "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)
        chosen.record.write_text(text, encoding="utf-8")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        motion = "no-preference" if chosen.live else "reduce"
        page = browser.new_page(viewport={"width": 1920, "height": 1080}, reduced_motion=motion)  # type: ignore[arg-type]
        open_overlay(page, chosen.query, chosen.web.resolve())
        samples = replay(page, events, live=chosen.live)
        if chosen.picture is not None:
            page.screenshot(path=chosen.picture)
        browser.close()
    print(json.dumps({"events": len(events)} | figures(samples, events), indent=2))


if __name__ == "__main__":
    main()
