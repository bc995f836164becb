"""Real recordings, in real time, through a running `streamsvc serve`: what it heard, read and answered, how late, at what cost.

    python -m load_tests.scenario [--only NAME] [--out DIR] [--json] [--media DIR] [--url URL [--pid PID]]

Starts a service of its own on a private port and data folder unless `--url` names one (then `--pid` names the process
that is weighed). Each recording of `scenarios/` becomes a session by POST /v1/sessions; the questions of its truth are
asked over the event socket at their times. All events go to OUT/NAME.jsonl, the figures to OUT/NAME.report.json.
Run nothing else meanwhile: latency figures are those of the whole machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from websockets.asyncio.client import connect

from load_tests import score

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 180.0  # until the service is ready
TAIL_SECONDS = 20.0  # after the recording's end, for the last events
WEIGH_SECONDS = 2.0  # between two looks at memory and CPU


class Meter:
    """Memory (PSS, the highest sum) and CPU seconds of a process and all its children."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.pss_max = 0
        self.pss_at_max: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self.cpu_first: dict[int, float] = {}
        self.cpu_last: dict[int, float] = {}

    def look(self) -> None:
        """Weigh everything now."""
        pss: dict[str, int] = {}
        with contextlib.suppress(psutil.Error):
            for process in [self.root, *self.root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    name = self.names.setdefault(process.pid, self._name(process))
                    pss[name] = process.memory_full_info().pss
                    times = process.cpu_times()
                    spent = times.user + times.system
                    # A child born during the run is counted from its birth.
                    self.cpu_first.setdefault(process.pid, spent if not self.cpu_last else 0.0)
                    self.cpu_last[process.pid] = spent
        if sum(pss.values()) > self.pss_max:
            self.pss_max, self.pss_at_max = sum(pss.values()), pss

    def _name(self, process: psutil.Process) -> str:
        if process.pid == self.root.pid:
            return "serve"
        words = " ".join(process.cmdline())
        role = next((part for part in ("hear", "see", "think", "embed", "resource_tracker", "forkserver") if part in words), process.name())
        return f"{role} {process.pid}"

    def report(self, seconds: float) -> dict[str, Any]:
        """The figures of a run of `seconds`."""
        cpu = {self.names[pid]: (self.cpu_last[pid] - self.cpu_first[pid]) / seconds for pid in self.cpu_last}
        return {
            "pss_max_mb": round(self.pss_max / 1e6),
            "pss_mb": {name: round(size / 1e6) for name, size in self.pss_at_max.items()},
            "cpu_s_per_stream_s": {name: round(share, 3) for name, share in cpu.items()},
            "cpu_s_per_stream_s_all": round(sum(cpu.values()), 3),
        }

    async def watch(self) -> None:
        """Look again and again until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(WEIGH_SECONDS)


def request(url: str, body: Any = None, method: str | None = None) -> Any:
    """One HTTP call with a JSON body; the JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    call = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(call, timeout=30) as answer:
            text = answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.code} {error.read().decode(errors='replace')[:300]}") from None
    return json.loads(text) if text[:1] in (b"{", b"[") else text


@contextlib.contextmanager
def service(media: Path, log: Path) -> Iterator[tuple[str, int]]:
    """A service of our own: its address and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as data, log.open("wb") as out:
        command = [
            sys.executable,
            "-m",
            "streamsvc",
            "serve",
            "--port",
            str(port),
            "--sources",
            str(media),
            "--data-dir",
            data,
            "--log-json",
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when /readyz says 200."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the service ended with status {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        time.sleep(0.2)
    raise SystemExit(f"the service was not ready in {START_SECONDS:.0f} s, see {log}")


class Run:
    """One recording through the service."""

    def __init__(self, url: str, truth: dict[str, Any], recording: Path) -> None:
        self.url = url
        self.truth = truth
        self.recording = recording
        self.events: list[dict[str, Any]] = []
        self.asked: dict[str, float] = {}
        self.zero = datetime.now(UTC)  # of the session's time; corrected by its events

    def now(self) -> float:
        """Session seconds."""
        return (datetime.now(UTC) - self.zero).total_seconds()

    async def go(self) -> None:
        """Play the recording, ask, and collect everything."""
        body = {"source": f"file:{self.recording}", "speed": 1}
        session = await asyncio.to_thread(request, f"{self.url}/v1/sessions", body)
        self.zero = datetime.fromisoformat(session["started_utc"])
        path = session["events_url"]
        address = path if "://" in path else self.url + path
        seconds = self.truth["duration_s"] + TAIL_SECONDS
        async with connect(address.replace("http", "ws", 1), max_size=1 << 22, compression=None) as events:
            asking = asyncio.create_task(self.ask(events))
            try:
                async with asyncio.timeout(seconds + 10):
                    async for text in events:
                        event = json.loads(text)
                        if event["type"] in ("session.created", "session.updated") and "started_utc" in event:
                            self.zero = datetime.fromisoformat(event["started_utc"])
                        self.events.append({"received": round(self.now(), 3), **event})
                        if event["type"] == "session.closed":
                            break
            except TimeoutError:
                print(f"{self.recording.name}: no session.closed {TAIL_SECONDS + 10:.0f} s after the recording's end", file=sys.stderr)
            finally:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asking
        await asyncio.to_thread(request, f"{self.url}/v1/sessions/{session['id']}", None, "DELETE")

    async def ask(self, events: Any) -> None:
        """Send each question at its time."""
        for question in sorted(self.truth["qa"], key=lambda item: item["ask_at_s"]):
            while (left := question["ask_at_s"] - self.now()) > 0:  # noqa: ASYNC110 - nothing tells of a time that comes
                await asyncio.sleep(min(left, 0.5))  # the zero may still be corrected
            await events.send(json.dumps({"type": "question.ask", "id": question["id"], "text": question["question"]}))
            self.asked[question["id"]] = self.now()


async def measure(run: Run, pid: int | None) -> dict[str, Any]:
    """Run, weigh, and tell the cost."""
    meter = Meter(pid) if pid else None
    watching = asyncio.create_task(meter.watch()) if meter else None
    await run.go()
    if meter is None or watching is None:
        return {}
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    meter.look()
    return meter.report(run.truth["duration_s"])


def load_grader(media: Path) -> Any:
    """The module `bench/grade.py` that lies beside the media."""
    path = media.parent / "bench" / "grade.py"
    spec = importlib.util.spec_from_file_location("grade", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"the grader {path} is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def show(name: str, report: dict[str, Any]) -> None:
    """The figures, for people."""
    speech, replies = report["speech"], report["answers"]
    print(f"\n=== {name}")
    print(f"WER {speech['wer_percent']}%  words {speech['words_published']} of {speech['words_spoken']}, right {speech['words_right']}")
    print(f"stable after the word's end, s: {speech['stable_after_word_s']}   gaps {speech['gaps_s']} s")
    print(f"captions without speech: {len(speech['captions_without_speech'])} {speech['captions_without_speech'] or ''}")
    for kind, row in report["ages_ms"].items():
        print(f"  age ms {kind:18} {row}")
    print(f"slides: {report['slides_found']}")
    for row in report["slides"]:
        print(f"  {row}")
    print(f"speech + screen + time right: {replies['speech_screen_time_right']}   unanswered: {replies['unanswered']}")
    for kind, counts in replies["by_kind"].items():
        print(f"  {kind:10} {counts}")
    print(f"first delta s {replies['first_delta_s']}   done s {replies['done_s']}")
    for row in replies["each"]:
        cited = "cited" if row["cited"] else ""
        print(f"  {row['id']:4} {row['kind']:9} {row['verdict']:7} {cited:5} {row['question']}  ->  {row['answer']}")
    print(f"errors {report['errors']}   degraded {report['degraded']}   events {report['events']}")
    if "cost" in report:
        print(f"cost {report['cost']}")


def main() -> None:
    """Entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--media", type=Path, default=ROOT.parent / "shared" / "media", help="folder with scenarios/ (%(default)s)")
    parser.add_argument("--only", help="one scenario, by the name of its file")
    parser.add_argument("--out", type=Path, default=Path("scenario-runs"), help="where events and reports go (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    parser.add_argument("--url", help="a service that runs already; it must allow the media folder as a source")
    parser.add_argument("--pid", type=int, help="with --url: the process that is weighed")
    parser.add_argument("--rescore", action="store_true", help="score the events already in OUT again; run nothing")
    chosen = parser.parse_args()

    media = chosen.media.resolve()
    recordings = [path for path in sorted((media / "scenarios").glob("*.mp4")) if chosen.only in (None, path.stem, path.name)]
    if not recordings:
        raise SystemExit(
            f"no recording {chosen.only or ''} in {media / 'scenarios'}: real recordings are not part of the project (--media DIR)"
        )
    grader = load_grader(media)
    chosen.out.mkdir(parents=True, exist_ok=True)

    with contextlib.ExitStack() as stack:
        if chosen.rescore:
            url, pid = "", None
        else:
            url, pid = (chosen.url.rstrip("/"), chosen.pid) if chosen.url else stack.enter_context(service(media, chosen.out / "serve.log"))
        for recording in recordings:
            truth = json.loads(recording.with_suffix(".json").read_text())
            events_path, report_path = chosen.out / f"{recording.stem}.jsonl", chosen.out / f"{recording.stem}.report.json"
            if chosen.rescore:
                events = [json.loads(line) for line in events_path.read_text().splitlines()]
                before = json.loads(report_path.read_text())
                asked, cost = before["asked"], before.get("cost", {})
            else:
                run = Run(url, truth, recording)
                cost = asyncio.run(measure(run, pid))
                events, asked = run.events, run.asked
                events_path.write_text("".join(json.dumps(event) + "\n" for event in events))
                report_path.write_text(json.dumps({"asked": asked, "cost": cost}))  # a fault in the scoring loses no run
            report = {**score.report(truth, events, asked, grader), "asked": asked, "cost": cost}
            report_path.write_text(json.dumps(report, indent=1))
            if chosen.json:
                print(json.dumps({recording.stem: report}))
            else:
                show(recording.stem, report)


if __name__ == "__main__":
    main()
