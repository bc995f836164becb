"""Memory, disk and answers of a session of one hour, with questions about its first minutes.

    python -m load_tests.long_session [--minutes 60] [--longest 110] [--media ../shared/media]
                                      [--recorded DIR] [--json FILE]

One session, as under `serve`, on a virtual clock (session_run.fixed_time_service): a talk with slides and a
story first, then other recordings for ever, each round in another order, with the scenarios' pictures. The
same questions about the first minutes are asked right after these and at the end.

What the models answered to the same samples or picture is not computed again but read from a cache
(`--recorded`: kept for the next run of the same code). Decoding steps fall in one of four phases of a
recording, so it takes some rounds until everything is cached: ten minutes of stream take about three on two
cores, or one from the cache. VAD, decoding of media, keyframes, the timeline, the log and the store run for
every second.

The models run in worker processes (worker_models.py), and all media is in memory before the session begins,
so that only the session grows in this process. Memory is the anonymous memory of each process: PSS jumped by
25 MB when an unrelated process that had mapped the same libraries ended. Growth is the least squares slope
after SETTLED minutes. Exit status 1 if a limit is exceeded.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from load_tests import question_words, report
from load_tests.long_session_figures import SERVING, Result, sample, table, verdict
from load_tests.question_words import distinctive, span_of, spread_out, words_of
from load_tests.worker_models import CachedRole, WorkerProcesses
from streamsvc.__main__ import tend_memory
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock, config, malloc
from streamsvc.core.config import Settings
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, EncodedFrame, MediaTrack
from streamsvc.evaluation import grade_answers, session_run
from streamsvc.evaluation.recordings import Samples, read
from streamsvc.ingest.container import choose, open_file
from streamsvc.ingest.source_policy import Place
from streamsvc.service.compat.audio_session import AudioFormat
from streamsvc.service.service import Service
from streamsvc.service.session import Session

ROOT = Path(__file__).resolve().parents[1]
LECTURE = "scenarios/lecture_stone_cutter.mp4"
STORY = "speech/crimson_30_the_crab_and_the_monkey.flac"
PICTURES = (LECTURE, "scenarios/scenes_photos.mp4")
OTHERS = (
    "speech/crimson_26_motikatika.flac",
    "speech/ivr_prompts_telephone.flac",
    "speech/two_cities.flac",
    "speech/az_en.flac",
    "speech/harvard.flac",
)
SEED = 60
PAUSE = 3.0  # seconds of silence after each recording
PACKET = 320  # samples: 20 ms
# Samples: a multiple of a packet and of a decoding step, so that a repeated recording gives the same
# payloads.
ALIGNED = 10_240
EARLY = 110.0  # seconds of the story that are asked about; default of --longest
EVERY = 30.0  # seconds between two samples
ASKER = "examiner"
Pictures = list[tuple[float, EncodedFrame]]  # (due second, frame)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the session: its sound and its pictures, as paths below the media folder."""

    heard: str
    shown: str


def program() -> Iterator[Part]:
    """The talk, the story, and then the other recordings for ever, each round in another order."""
    chance = random.Random(SEED)
    yield Part(LECTURE, LECTURE)
    yield Part(STORY, PICTURES[1])
    turn = 0
    while True:
        for heard in chance.sample(OTHERS, len(OTHERS)):
            yield Part(heard, PICTURES[turn % len(PICTURES)])
            turn += 1


# --- the questions ------------------------------------------------------------------------------------------


def questions(media: Path, story_at: float) -> list[dict[str, Any]]:
    """The questions in the format of grade_answers: of the scenario, and our own about the story.

    Of the scenario's, those about one moment of the talk; ours are about the first EARLY seconds of the
    story.

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
    rare = [word for word in distinctive(words) if word.bare[:5] not in before]
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
        for text, keywords, quote in question_words.STORY
    ]
    for number, question in enumerate(mine):
        question["evidence_s"] = [at + story_at for at in question["evidence_s"]]
        asked.append({"id": f"story-{number + 1}", "modality": "speech", **question})
    return asked


async def examine(session: Session, asked: Sequence[Mapping[str, Any]], when: str) -> list[dict[str, Any]]:
    """Ask the questions one after the other; id, verdict, text and seconds of each answer."""
    answers = session.log.subscribe(["answer.done"], ASKER)
    rows = []
    try:
        for question in asked:
            began = clock.now()
            number = session.answering.queue.ask(
                QuestionRequest(question["question"], question_id=f"{when}-{question['id']}", client=ASKER)
            ).id
            answer = await _answer(answers, number)
            verdict = grade_answers.verdict(question, answer)
            rows.append(
                {
                    "id": question["id"],
                    "verdict": verdict,
                    "text": answer["text"],
                    "seconds": round(clock.now() - began, 3),
                }
            )
    finally:
        session.log.unsubscribe(answers)
    return rows


async def _answer(answers: Any, number: str) -> dict[str, Any]:
    while (batch := await answers.next()) is not None:
        for _, text in batch:
            event: dict[str, Any] = json.loads(text)
            if event["question_id"] == number:
                return event
    return {"text": "", "supported": False, "evidence": []}


# --- the session --------------------------------------------------------------------------------------------


def padded(samples: Samples) -> bytes:
    """Samples as 16-bit PCM, padded with PAUSE or more of silence to a multiple of ALIGNED."""
    size = -(-(len(samples) + int(PAUSE * SAMPLE_RATE)) // ALIGNED) * ALIGNED
    whole = np.zeros(size, np.float32)
    whole[: len(samples)] = samples
    return (np.clip(whole, -1, 1) * 32767).astype("<i2").tobytes()


def pictures(clip: Path) -> Pictures:
    """All encoded pictures of a clip with their due times, in order. Raises SourceError."""
    with session_run.open_recording(clip) as (_, frames):
        return [pair for pair in frames if pair[1].kind == "video"]


@contextlib.contextmanager
def decodable(clip: Path) -> Iterator[list[MediaTrack]]:
    """The video track of a clip for one decoder.

    The file is opened again each time the clip is played, its packets are not read again.
    """
    with contextlib.ExitStack() as stack:
        _, tracks = choose(open_file(Place("file", clip.name, clip), stack), clip.name)
        yield [track for track in tracks if track.kind == "video"]


async def send(
    session: Session, tracks: Sequence[MediaTrack], heard: bytes, shown: Pictures, start: float
) -> float:
    """Play one part from session second `start` on; return the second at which it ends.

    tracks: of the sound (PCM), then of the pictures.
    """
    left = iter(shown)
    due, frame = next(left, (math.inf, None))
    session.media.attach(session_run.RecordingPublisher(tuple(tracks)))
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
class Recordings:
    """All media in memory. `sounds`: 16-bit PCM by path; `pictures`: encoded, by path."""

    media: Path
    sounds: Mapping[str, bytes]
    pictures: Mapping[str, Pictures]


async def run(media: Path, minutes: float, longest: float, folder: Path, recorded: Path) -> Result:
    """Run the whole session.

    Args:
        media: folder of the recordings.
        minutes: of the stream; it goes on to the end of a recording.
        longest: seconds of each recording but the talk.
        folder: of what the session stores.
        recorded: cache of the models' answers.
    """
    defaults = config.load(None)
    server = defaults.server.model_copy(update={"data_dir": folder})
    settings: Settings = defaults.model_copy(update={"server": server})
    counts: Counter[str] = Counter()
    result = Result()
    sounds = {
        path: padded(read(media / path, None if path == LECTURE else longest))
        for path in (LECTURE, STORY, *OTHERS)
    }
    played = Recordings(media, sounds, {path: pictures(media / path) for path in PICTURES})
    with WorkerProcesses() as workers:
        async with session_run.fixed_time_service(settings, workers.load) as service:
            roles = service.roles
            hear: Role | Any = CachedRole(roles.hear, recorded, counts)
            see: Role | Any = CachedRole(roles.see, recorded, counts)
            service.use_roles(replace(roles, hear=hear, see=see))
            record = functools.partial(_record, workers, folder, result)
            await _run(service, played, minutes, record, result)
    result.calls = dict(counts)
    return result


async def _run(
    service: Service,
    played: Recordings,
    minutes: float,
    record: Callable[[float], None],
    result: Result,
) -> None:
    asked = questions(played.media, len(played.sounds[LECTURE]) / 2 / SAMPLE_RATE)
    session = await service.sessions.create()
    sound = AudioFormat("pcm_s16le", SAMPLE_RATE).track()

    async def sampling() -> None:
        while True:
            await clock.sleep(EVERY)
            record(session.clock.position() / 60)

    background = [
        asyncio.create_task(sampling()),
        asyncio.create_task(tend_memory()),
    ]  # the latter as in `serve`
    at = 0.0
    early: asyncio.Task[list[dict[str, Any]]] | None = None
    for number, part in enumerate(program(), 1):
        heard, shown = played.sounds[part.heard], played.pictures[part.shown]
        with decodable(played.media / part.shown) as tracks:
            at = await send(session, [sound, *tracks], heard, shown, at)
        if number <= len(played.sounds):
            result.known = at / 60
        if part.heard == STORY:
            early = asyncio.create_task(examine(session, asked, "early"))
        if early is not None and at >= 60 * minutes:
            break
    await session.speech.flush(ASKER)
    result.early = await early if early is not None else []
    result.late = await examine(session, asked, "late")
    for task in background:
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
    record(at / 60)


def _record(workers: WorkerProcesses, folder: Path, result: Result, minute: float) -> None:
    measured = sample(minute, {name: worker.pid for name, worker in workers.workers.items()}, folder)
    result.weights.append(measured)
    if len(result.weights) % 10 == 0:
        parts = ", ".join(f"{name} {measured.part(name):.1f}" for name in (SERVING, *measured.models))
        print(
            f"{minute:.0f} min: {parts} MB of memory, {measured.disk:.1f} MB on the disk",
            file=sys.stderr,
            flush=True,
        )


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--media", type=Path, default=ROOT.parent / "shared" / "media", help="(%(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the stream (%(default)s)")
    parser.add_argument(
        "--longest", type=float, default=EARLY, help="seconds of each recording but the talk (%(default)s)"
    )
    parser.add_argument(
        "--recorded",
        type=Path,
        help="folder of the models' answers, kept for the next run; default: a temporary one",
    )
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
    report.finish(table(result), result, verdict(result), chosen.json)


if __name__ == "__main__":
    main()
