"""What a session still knows after an hour, and what it costs to keep: questions about its first minutes, memory, disk.

    python -m load_tests.long_session [--minutes 60] [--longest 110] [--media ../shared/media] [--recorded DIR] [--json FILE]

One session, as under `serve`: a talk with slides and a story are heard first, then other recordings again and again, in another order
each time, with the scenarios' pictures; on a clock that jumps (rehearsal.steady). The same questions about the first minutes are asked
when these are just over and at the end. What the models have said to the very same samples or picture is not computed twice: it is
recorded in a folder and read from there (`--recorded`: kept for the next run of the same code). Steps fall in one of four places of a
recording, so it is known after some rounds only: ten minutes of stream take about three on two cores, or one if all is known. Voice
activity, decoding, keyframes, the time line, the log and the store run for every second. The models run in worker processes of their own
(apart.py), and all that is played is in memory before the session begins: so what grows in this process is the session. Memory is the
anonymous memory of each process: PSS has leapt by 25 MB here when a neighbour that had mapped the same libraries ended. The slope is that
of the least squares after SETTLED minutes.
Exit status 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import math
import os
import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from load_tests import question_facts as facts
from load_tests.apart import REMEMBERED, Apart, Recorded
from load_tests.question_set import ROOT, span_of, spread_out, telling, words_of
from streamsvc.__main__ import tidy
from streamsvc.answers.question_queue import NewQuestion
from streamsvc.core import clock, config, malloc
from streamsvc.core.config import Settings
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, EncodedFrame, MediaTrack
from streamsvc.evaluation import grade_answers, session_run
from streamsvc.evaluation.caption_bench import markdown
from streamsvc.evaluation.recordings import Samples, read
from streamsvc.ingest.container import choose, open_file
from streamsvc.ingest.source_policy import Place
from streamsvc.service.compat.audio_session import Format
from streamsvc.service.service import Service
from streamsvc.service.session import Session

LECTURE, STORY = "scenarios/lecture_stone_cutter.mp4", "speech/crimson_30_the_crab_and_the_monkey.flac"
PICTURES = (LECTURE, "scenarios/scenes_photos.mp4")
OTHERS = (
    "speech/crimson_26_motikatika.flac",
    "speech/ivr_prompts_telephone.flac",
    "speech/two_cities.flac",
    "speech/az_en.flac",
    "speech/harvard.flac",
)
SEED = 60
PAUSE = 3.0  # seconds of nothing after each recording
PACKET = 320  # samples: 20 ms
ALIGNED = 10_240  # samples: packets and steps (transcriber.TICK) begin together with each recording, so that it is heard as the last time
EARLY = 110.0  # seconds of the story that are asked about; and of each recording but the talk that are played, unless more are wished for
SETTLED = 10.0  # minutes after which memory must not grow
EVERY = 30.0  # seconds between two weighings
GROWTH, DISK = 2.0, 100.0  # MB an hour
LOST = 1  # questions that may be answered worse at the end
ASKER = "examiner"
SERVING = "serving"
Pictures = list[tuple[float, EncodedFrame]]  # each with the second at which it is due


@dataclass(frozen=True, slots=True)
class Part:
    """What is heard and what is shown meanwhile: paths below the media."""

    heard: str
    shown: str


def program() -> Iterator[Part]:
    """The talk, the story, and then the others again and again, each time round in an order of its own."""
    chance = random.Random(SEED)
    yield Part(LECTURE, LECTURE)
    yield Part(STORY, PICTURES[1])
    turn = 0
    while True:
        for heard in chance.sample(OTHERS, len(OTHERS)):
            yield Part(heard, PICTURES[turn % len(PICTURES)])
            turn += 1


# --- the questions ------------------------------------------------------------------------------------------------


def questions(media: Path, story_at: float) -> list[dict[str, Any]]:
    """What is asked, as grade.py reads it: the scenario's own about a moment of the talk, and ours about the story's beginning.

    Args:
        media: folder of the recordings.
        story_at: session seconds at which the story begins.
    """
    truth = json.loads((media / LECTURE).with_suffix(".json").read_text(encoding="utf-8"))
    asked = [
        question for question in truth["qa"] if question["evidence_s"][1] - question["evidence_s"][0] < 60.0
    ]
    manifest = json.loads((media / "manifest.json").read_text(encoding="utf-8"))["files"]
    story = next(entry for entry in manifest if entry["path"] == STORY)
    words = words_of(story, EARLY)
    before = {word.bare[:5] for word in words_of({"words": truth["words"]}, 1e9)}
    rare = [word for word in telling(words) if word.bare[:5] not in before]
    mine: list[dict[str, Any]] = [
        {
            "type": "when",
            "question": f'When was "{word.bare}" mentioned?',
            "answer": "",
            "keywords": [],
            "evidence_s": [word.start, word.end],
        }
        for word in spread_out(random.Random(SEED), rare, 6)
    ]
    mine += [
        {
            "type": "open",
            "question": text,
            "answer": keywords[0],
            "keywords": keywords,
            "evidence_s": span_of(quote, words, EARLY),
        }
        for text, keywords, quote in facts.SAID[Path(STORY).stem]
    ]
    for number, question in enumerate(mine):
        question["evidence_s"] = [at + story_at for at in question["evidence_s"]]
        asked.append({"id": f"story-{number + 1}", "modality": "speech", **question})
    return asked


async def examine(session: Session, asked: Sequence[Mapping[str, Any]], when: str) -> list[dict[str, Any]]:
    """Ask one after the other and grade what comes."""
    answers = session.log.subscribe(["answer.done"], ASKER)
    told = []
    try:
        for question in asked:
            began = clock.now()
            number = session.answering.queue.ask(
                NewQuestion(question["question"], number=f"{when}-{question['id']}", client=ASKER)
            ).id
            answer = await _answer(answers, number)
            verdict = grade_answers.verdict(question, answer)
            told.append(
                {
                    "id": question["id"],
                    "verdict": verdict,
                    "text": answer["text"],
                    "seconds": round(clock.now() - began, 3),
                }
            )
    finally:
        session.log.unsubscribe(answers)
    return told


async def _answer(answers: Any, number: str) -> dict[str, Any]:
    while (batch := await answers.next()) is not None:
        for _, text in batch:
            event: dict[str, Any] = json.loads(text)
            if event["question_id"] == number:
                return event
    return {"text": "", "supported": False, "evidence": []}


# --- the session --------------------------------------------------------------------------------------------------


@dataclass
class _Publisher:
    tracks: tuple[MediaTrack, ...]

    def stats(self) -> dict[str, float]:
        return {}

    def request_keyframe(self) -> None:
        return None

    async def close(self) -> None:
        """See types.Publisher."""


def padded(samples: Samples) -> bytes:
    """Samples as 16-bit PCM, with a pause behind them that makes their length one of ALIGNED."""
    size = -(-(len(samples) + int(PAUSE * SAMPLE_RATE)) // ALIGNED) * ALIGNED
    whole = np.zeros(size, np.float32)
    whole[: len(samples)] = samples
    return (np.clip(whole, -1, 1) * 32767).astype("<i2").tobytes()


def pictures(clip: Path) -> Pictures:
    """All encoded pictures of a clip, by time. Raises SourceError."""
    with session_run.recorded(clip) as (_, frames):
        return [pair for pair in frames if pair[1].kind == "video"]


@contextlib.contextmanager
def decodable(clip: Path) -> Iterator[list[MediaTrack]]:
    """The track of a clip's pictures, for one decoder: it is opened anew each time it is played, but nothing of it is read again."""
    with contextlib.ExitStack() as stack:
        _, tracks = choose(open_file(Place("file", clip.name, clip), stack), clip.name)
        yield [track for track in tracks if track.kind == "video"]


async def send(
    session: Session, tracks: Sequence[MediaTrack], heard: bytes, shown: Pictures, start: float
) -> float:
    """One part at its times, from session second `start` on; the second at which it ends. tracks: of sound (PCM) and pictures."""
    left = iter(shown)
    due, frame = next(left, (math.inf, None))
    session.media.attach(_Publisher(tuple(tracks)))
    for first in range(0, len(heard), 2 * PACKET):
        at = first / 2 / SAMPLE_RATE
        await clock.sleep(session.clock.zero + start + at + PACKET / SAMPLE_RATE - clock.now())
        while frame is not None and due <= at:
            session.media.tap(replace(frame, session=session.id, at=start + frame.at, arrived=clock.now()))
            due, frame = next(left, (math.inf, None))
        piece = heard[first : first + 2 * PACKET]
        session.media.tap(
            EncodedFrame(session.id, "main", start + at, clock.now(), "audio", piece, tracks[0].codec, True)
        )
    session.media.detach("next part")
    return start + len(heard) / 2 / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Weight:
    """At one minute of the stream, in MB: memory of the serving process and of the models' by name, and what lies on the disk."""

    minute: float
    serving: float
    models: Mapping[str, float]
    disk: float

    def part(self, name: str) -> float:
        """Memory of a worker process, or of the serving one: "serving"; 0 before it has begun."""
        return self.serving if name == SERVING else self.models.get(name, 0.0)


def weighed(minute: float, workers: Mapping[str, int | None], folder: Path) -> Weight:
    """Weigh now. workers: the ids of their processes; folder: of what is stored."""
    models = {name: anonymous(pid) for name, pid in workers.items() if pid is not None}
    return Weight(round(minute, 2), anonymous(os.getpid()), models, round(stored(folder) / 1e6, 2))


def anonymous(pid: int) -> float:
    """MB of memory that a process has to itself, files that it has mapped left out. Linux only."""
    told = re.search(
        r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE
    )
    assert told is not None
    return round(int(told[1]) * 1024 / 1e6, 2)


@dataclass(slots=True)
class Result:
    """What came of it. `weights`: one every EVERY seconds. `early`, `late`: see `examine`.

    `known`: minute at which every recording had been played once.
    """

    minutes: float = 0.0
    weights: list[Weight] = field(default_factory=list)
    early: list[dict[str, Any]] = field(default_factory=list)
    late: list[dict[str, Any]] = field(default_factory=list)
    held: dict[str, int] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    known: float = 0.0


async def run(media: Path, minutes: float, longest: float, folder: Path, recorded: Path) -> Result:
    """The whole session.

    Args:
        media: folder of the recordings.
        minutes: of the stream; it goes on to the end of a recording.
        longest: seconds of each recording but the talk.
        folder: of what the session stores.
        recorded: folder of the models' answers.
    """
    made = config.load(None)
    settings: Settings = made.model_copy(
        update={"server": made.server.model_copy(update={"data_dir": folder})}
    )
    counts: Counter[str] = Counter()
    result = Result()
    sounds = {
        path: padded(read(media / path, None if path == LECTURE else longest))
        for path in (LECTURE, STORY, *OTHERS)
    }
    shown = {media / path: pictures(media / path) for path in PICTURES}
    with Apart() as apart:
        async with session_run.steady(settings, apart.load) as service:
            roles = service.roles
            hear: Role | Any = Recorded(roles.hear, recorded, counts)
            service.roles = replace(roles, hear=hear, see=Recorded(roles.see, recorded, counts))  # type: ignore[arg-type]
            weigh = functools.partial(_weigh, apart, folder, result)
            await _run(service, media, sounds, shown, minutes, weigh, result)
    result.calls = dict(counts)
    return result


async def _run(
    service: Service,
    media: Path,
    sounds: Mapping[str, bytes],
    shown: Mapping[Path, Pictures],
    minutes: float,
    weigh: Callable[[float], None],
    result: Result,
) -> None:
    asked = questions(media, len(sounds[LECTURE]) / 2 / SAMPLE_RATE)
    session = await service.sessions.create()
    sound = Format("pcm_s16le", SAMPLE_RATE).track()

    async def weighing() -> None:
        while True:
            await clock.sleep(EVERY)
            weigh(session.clock.position() / 60)

    beside = [asyncio.create_task(weighing()), asyncio.create_task(tidy())]  # the latter as `serve` does
    at = 0.0
    early: asyncio.Task[list[dict[str, Any]]] | None = None
    for number, part in enumerate(program(), 1):
        with decodable(media / part.shown) as tracks:
            at = await send(session, [sound, *tracks], sounds[part.heard], shown[media / part.shown], at)
        result.known = at / 60 if number <= len(sounds) else result.known
        if part.heard == STORY:
            early = asyncio.create_task(examine(session, asked, "early"))
        if early is not None and at >= 60 * minutes:
            break
    await session.speech.flush(ASKER)
    result.early = await early if early is not None else []
    result.late = await examine(session, asked, "late")
    for task in beside:
        task.cancel()
    result.minutes = at / 60
    line = session.timeline
    result.held = {
        "sentences": len(line.sentences),
        "pictures": len(line.shown),
        "screens": len(line.screens),
        **line.dropped,
    }
    session.end("examined")
    await session.over.wait()
    weigh(at / 60)


def _weigh(apart: Apart, folder: Path, result: Result, minute: float) -> None:
    weight = weighed(minute, {name: worker.pid for name, worker in apart.workers.items()}, folder)
    result.weights.append(weight)
    if len(result.weights) % 10 == 0:
        parts = ", ".join(f"{name} {weight.part(name):.1f}" for name in (SERVING, *weight.models))
        print(
            f"{minute:.0f} min: {parts} MB of memory, {weight.disk:.1f} MB on the disk",
            file=sys.stderr,
            flush=True,
        )


def stored(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- told ---------------------------------------------------------------------------------------------------------


def slope(points: Sequence[tuple[float, float]], after: float) -> float | None:
    """By how much a value grows in an hour, by the least squares over (minute, value) from minute `after` on; None: fewer than three."""
    late = np.array([point for point in points if point[0] >= after])
    return None if len(late) < 3 else float(np.polyfit(late[:, 0] / 60, late[:, 1], 1)[0])


def parts_of(result: Result) -> list[str]:
    """The processes that were weighed: the serving one and the models'."""
    return [SERVING, *result.weights[-1].models] if result.weights else []


def growth(result: Result, name: str, after: float) -> float | None:
    """MB an hour by which a process grew from minute `after` on; None: it cannot be told."""
    return slope(
        [(weight.minute, weight.part(name)) for weight in result.weights if weight.part(name)], after
    )


def _grown(result: Result, name: str, after: float) -> str:
    each = growth(result, name, after)
    return "-" if each is None else f"{each:+.1f} MB an hour"


def right(rows: Sequence[Mapping[str, Any]]) -> int:
    """How many answers are right."""
    return sum(row["verdict"] == "right" for row in rows)


def table(result: Result) -> str:
    """As markdown: the figures, and what was answered worse at the end."""
    disk = result.weights[-1].disk / max(result.minutes, 1e-9) * 60 if result.weights else 0.0
    spans = (SETTLED, result.known)
    memory = [
        (
            f"memory of {name}: most; growth after {spans[0]:.0f} / after {spans[1]:.0f} minutes",
            f"{max(weight.part(name) for weight in result.weights):.0f} MB; "
            + " / ".join(_grown(result, name, after) for after in spans),
            f"{GROWTH:g} MB an hour",
        )
        for name in parts_of(result)
    ]
    calls = ", ".join(
        f"{op} {result.calls.get(f'{op} recorded', 0)} of {result.calls.get(op, 0)}" for op in REMEMBERED
    )
    rows = [
        ("minutes of stream", f"{result.minutes:.1f}", ""),
        ("questions right when just heard", f"{right(result.early)} of {len(result.early)}", ""),
        (
            "questions right at the end",
            f"{right(result.late)} of {len(result.late)}",
            f"at most {LOST} fewer",
        ),
        *memory,
        ("disk", f"{disk:.1f} MB an hour", f"{DISK:g} MB an hour"),
        ("held in the time line", ", ".join(f"{count} {name}" for name, count in result.held.items()), ""),
        ("calls answered from the record", calls, ""),
    ]
    before = {row["id"]: row["verdict"] for row in result.early}
    worse = [
        f"- {row['id']}: {before[row['id']]}, then {row['verdict']}"
        for row in result.late
        if row["verdict"] != before[row["id"]]
    ]
    return "\n".join((markdown(("what", "measured", "limit"), rows), "", *worse))


def verdict(result: Result) -> list[str]:
    """What is wrong: nothing, if the limits are kept."""
    wrong = []
    if right(result.late) < right(result.early) - LOST:
        wrong.append(
            f"{right(result.early)} questions were answered right when just heard, {right(result.late)} at the end"
        )
    for name in parts_of(result):
        memory = growth(result, name, SETTLED)
        if memory is not None and memory > GROWTH:
            wrong.append(f"the memory of {name} grew by {memory:.1f} MB an hour")
    if result.weights and result.weights[-1].disk / result.minutes * 60 > DISK:
        wrong.append(f"{result.weights[-1].disk:.0f} MB were stored in {result.minutes:.0f} minutes")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--media", type=Path, default=ROOT.parent / "shared" / "media", help="(%(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the stream (%(default)s)")
    parser.add_argument(
        "--longest", type=float, default=EARLY, help="seconds of each recording but the talk (%(default)s)"
    )
    parser.add_argument(
        "--recorded",
        type=Path,
        help="folder that keeps what the models said for the next run; none: forgotten",
    )
    parser.add_argument("--json", type=Path, help="where all figures go")
    chosen = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    malloc.fix_mmap_threshold()  # as `serve` does
    with tempfile.TemporaryDirectory() as folder:
        recorded = chosen.recorded or Path(folder) / "recorded"
        recorded.mkdir(parents=True, exist_ok=True)
        with asyncio.Runner(loop_factory=clock.Threadless) as runner:
            result = runner.run(
                run(
                    chosen.media.resolve(),
                    chosen.minutes,
                    chosen.longest,
                    Path(folder) / "sessions",
                    recorded,
                )
            )
    print(table(result))
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=1), encoding="utf-8")
    wrong = verdict(result)
    print("\n".join(["", *(f"Wrong: {line}." for line in wrong)]) if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
