"""`streamsvc bench captions`: recordings through the speech pipeline, measured as a viewer sees the captions.

In real time (`live`) the samples come in pieces when they are due, and the models run in the hear worker
process, as under `serve`. Otherwise a virtual clock gives the times, the models run in this process, and
their CPU time advances the clock: an hour of talk takes minutes, and other load on the machine hardly
matters. Figures are defined in score_captions.py, printed by caption_report.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear, Settings
from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, Gap
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.recordings import Clip, Samples, read, truth_of
from streamsvc.evaluation.score_captions import Counts, Reference, Score, norm
from streamsvc.evaluation.transcriber_run import PACKET, Cost, Meter, hear_worker, local_role, play
from streamsvc.evaluation.word_ends import reference_of
from streamsvc.workers.supervisor import Worker

TAIL = 2.0  # seconds of silence after a recording, so that its last words become stable as in a longer stream


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    `chunk`: samples in a piece of audio. `live`: in real time. `offline`: compare with offline decoding.
    """

    recordings: tuple[Path, ...]
    truth: Path | None = None
    runs: int = 1
    seconds: float | None = None
    chunk: int = 5 * PACKET
    live: bool = True
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One run of one recording.

    `seconds`: of audio, tail included. `ends_from`: origin of the word ends, "truth" or "decode". `flush`,
    `late`: see TranscriberRun. `lost`: seconds of audio that were never decoded. `edits`: at each word of the
    reference.
    """

    name: str
    run: int
    seconds: float
    ends_from: str
    reference: Reference
    score: Score
    cost: Cost
    flush: float
    late: float
    lost: float
    edits: Counts


@dataclass(frozen=True, slots=True)
class Offline:
    """faster-whisper on the whole recordings, same weights: its word error rate, and ours minus its."""

    wer: float
    difference: score_captions.Difference


def captions(
    settings: Settings, plan: Plan, engine: str, progress: Callable[[str], None]
) -> tuple[list[Row], Offline | None]:
    """Measure all recordings.

    Args:
        settings: its hear group is what is measured.
        plan: what to do.
        engine: dotted name of the hear role's engine module.
        progress: takes one line of text.

    Raises:
        ConfigError: a recording or a truth cannot be read. ModelMissing: no weights. WorkerError: the worker
            died during a run.
    """
    clips = [_clip(path, plan) for path in plan.recordings]
    if plan.live:
        rows = asyncio.run(_with_worker(clips, plan, settings, engine, progress))
    else:
        role = local_role(settings, engine)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            rows = runner.run(_rows(clips, plan, settings.hear, role, None, progress))
    return rows, _offline(clips, rows, settings, progress) if plan.offline else None


def _clip(path: Path, plan: Plan) -> Clip:
    truth = truth_of(path, plan.truth)
    samples = read(path, plan.seconds)
    cut = plan.seconds is not None
    if truth is not None and cut:
        truth = truth.until(len(samples) / SAMPLE_RATE)
    return Clip(path, samples, truth, cut)


async def _with_worker(
    clips: Sequence[Clip], plan: Plan, settings: Settings, engine: str, progress: Callable[[str], None]
) -> list[Row]:
    async with hear_worker(settings, engine) as worker:
        return await _rows(clips, plan, settings.hear, worker.role("hear"), worker, progress)


async def _rows(
    clips: Sequence[Clip],
    plan: Plan,
    settings: Hear,
    hear: Role,
    worker: Worker | None,
    progress: Callable[[str], None],
) -> list[Row]:
    rows = []
    language = settings.language or ("en" if settings.model.endswith(".en") else None)
    for clip in clips:
        reference, ends_from = await reference_of(clip, hear, language)
        samples = np.concatenate([clip.samples, np.zeros(int(TAIL * SAMPLE_RATE), np.float32)])
        for number in range(1, plan.runs + 1):
            progress(f"{clip.path.name}: {clip.seconds:.0f} s, run {number} of {plan.runs}")
            pid = worker.pid if worker is not None else None
            async with _metered(pid) as meter:
                run = await play(samples, hear, settings, chunk=plan.chunk)
            if worker is not None and worker.pid != pid:
                raise WorkerError("the hear worker died during the run; its figures are discarded")
            spans = [(word.start, word.end) for word in run.stable]
            heard = [piece for word in run.stable for piece in norm(word.text)]
            rows.append(
                Row(
                    name=clip.path.stem,
                    run=number,
                    seconds=len(samples) / SAMPLE_RATE,
                    ends_from=ends_from,
                    reference=reference,
                    score=score_captions.score(run.shown, reference, spans),
                    cost=meter.cost(),
                    flush=run.flush,
                    late=run.late,
                    lost=sum(unit.end - unit.start for _, unit in run.units if isinstance(unit, Gap)),
                    edits=score_captions.errors(reference.words, heard),
                )
            )
    return rows


@contextlib.asynccontextmanager
async def _metered(pid: int | None) -> AsyncIterator[Meter]:
    """A meter of this process and the worker `pid`; with a worker, memory is sampled in the background."""
    meter = Meter(pid)
    sampling = asyncio.create_task(meter.watch()) if pid is not None else None
    try:
        yield meter
    finally:
        if sampling is not None:
            sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sampling


def offline_decoder(folder: Path, language: str | None) -> Callable[[Samples], list[str]]:
    """faster-whisper on whole recordings by the weights in a folder: int8, beam 1, one thread.

    `language` None: detected.

    Returns:
        A function: samples at SAMPLE_RATE, shape (n,) -> the words as `score_captions.norm` gives them.
    """
    from faster_whisper import WhisperModel  # imported here: slow, and not needed without --offline

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def decode(samples: Samples) -> list[str]:
        segments, _ = model.transcribe(
            samples, language=language, beam_size=1, condition_on_previous_text=False
        )
        return norm(" ".join(segment.text for segment in segments))

    return decode


def _offline(
    clips: Sequence[Clip], rows: Sequence[Row], settings: Settings, progress: Callable[[str], None]
) -> Offline | None:
    """Decode the recordings that have a truth as a whole, beam 1; None: no recording has one."""
    decode = offline_decoder(settings.models.dir / "models" / settings.hear.model, settings.hear.language)
    ours, theirs = [], []
    runs = len(rows) // max(1, len(clips))
    for index, clip in enumerate(clips):
        clip_rows = rows[index * runs : (index + 1) * runs]
        reference = clip_rows[0].reference
        if not reference.true or not reference.words:
            continue
        progress(f"{clip.path.name}: offline")
        ours.append(score_captions.pieces(np.mean([row.edits for row in clip_rows], axis=0)))
        theirs.append(score_captions.pieces(score_captions.errors(reference.words, decode(clip.samples))))
    if not ours:
        return None
    difference = score_captions.compare(np.concatenate(ours), np.concatenate(theirs))
    if difference is None:
        return None
    edits, words = np.concatenate(theirs).sum(axis=0)
    return Offline(float(edits / words), difference)
