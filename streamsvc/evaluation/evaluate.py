"""`streamsvc eval`: accuracy, honesty and latency of whole sessions on scenarios and published sets.

A scenario (scenario.py) is played in real time by the worker processes, which gives ages, or on a virtual
clock with a fixed duration for each call (session_run.py), which gives the same accuracy figures whenever
code, models and prompts are the same. Figures are defined in figures.py, verdicts and the measures of the
published sets in grade_answers.py; report.py prints them.
"""

from __future__ import annotations

import asyncio
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from streamsvc.core.clock import Threadless
from streamsvc.core.config import Settings
from streamsvc.core.errors import StreamsvcError
from streamsvc.evaluation import datasets, figures, grade_answers, pooling, session_run
from streamsvc.evaluation.datasets import DATASETS, ImageQuestion, Utterance
from streamsvc.evaluation.figures import Report
from streamsvc.evaluation.scenario import Scenario, load_scenarios
from streamsvc.service.engine_table import think_model
from streamsvc.service.service import Service

Progress = Callable[[str], None]
_WHOLE_RECORDING = {"start": 0.0, "end": 1e9}  # seconds: the sets do not tell when somebody speaks


@dataclass(frozen=True, slots=True)
class Plan:
    """What to evaluate.

    `sets`: name and folder of published ones. `live`: in real time. `most`: rows of a set, None: all.
    """

    scenarios: tuple[Scenario, ...]
    sets: tuple[tuple[str, Path], ...] = ()
    live: bool = False
    most: int | None = None
    language: str | None = None


def planned(
    targets: Sequence[str], *, live: bool = False, most: int | None = None, language: str | None = None
) -> Plan:
    """The plan for targets of the command line.

    A target is the path of a scenario (see load_scenarios) or NAME:FOLDER of a published set, NAME one of
    DATASETS.

    Raises:
        ConfigError: a path holds no scenario.
    """
    paths, sets = [], []
    for target in targets:
        name, _, folder = target.partition(":")
        if name in DATASETS and folder:
            sets.append((name, Path(folder)))
        else:
            paths.append(Path(target))
    return Plan(tuple(load_scenarios(paths)), tuple(sets), live, most, language)


def run(settings: Settings, plan: Plan, progress: Progress) -> Report:
    """Evaluate all scenarios and sets of a plan.

    Args:
        settings: of the service.
        plan: what to do.
        progress: takes one line of text.

    Returns:
        The report, of JSON values: "scenarios" (see figures.report), "all", "sets".

    Raises:
        SourceError: a recording cannot be read. ConfigError: a set is not of its format. ModelMissing,
            WorkerError: no models.
    """
    service = session_run.worker_service(settings) if plan.live else session_run.fixed_time_service(settings)
    with asyncio.Runner(loop_factory=None if plan.live else Threadless) as runner:
        report = runner.run(_run(service, plan, progress))
    models = {
        "hear": settings.hear.model,
        "detect": settings.see.detector,
        "tag": settings.see.tagger,
        "think": think_model(settings).name,
    }
    profile = settings.models.profile
    return {"speed": "1" if plan.live else "max", "profile": profile, "models": models, **report}


async def _run(opening: AbstractAsyncContextManager[Service], plan: Plan, progress: Progress) -> Report:
    reports: Report = {}
    sets: Report = {}
    async with opening as service:
        for scenario in plan.scenarios:
            progress(f"{scenario.name}: {len(scenario.truth.get('qa') or ())} questions")
            reports[scenario.name] = await _scenario(service, scenario, plan)
        for name, folder in plan.sets:
            rows = datasets.rows(name, folder, plan.most)
            if not rows:
                sets[name] = {"not_run": f"{folder} does not hold it"}
                continue
            progress(f"{name}: {len(rows)} rows")
            sets[name] = await _dataset(service, rows, plan)
    return {"scenarios": reports, "all": pooling.pooled(list(reports.values())), "sets": sets}


async def _scenario(service: Service, scenario: Scenario, plan: Plan) -> Report:
    run = await session_run.play(service, scenario, language=plan.language)
    report = figures.report(scenario.truth, run.events, run.asked, scenario.seconds)
    report |= {"seconds": round(run.seconds, 2), "slices": dict(scenario.slices), "cost": dict(run.cost)}
    if plan.live:
        report["kept"] = figures.within_budget(report, service.settings.budget.model_dump())
    return report


async def _dataset(service: Service, rows: Sequence[datasets.Row], plan: Plan) -> Report:
    """The measure that a set was published with, whole and by slice.

    Rows whose media is missing are counted as absent.
    """
    present = [row for row in rows if (row.audio if isinstance(row, Utterance) else row.image).is_file()]
    if not present:
        return {"not_run": f"none of the media of its {len(rows)} rows is there"}
    spoken = [row for row in present if isinstance(row, Utterance)]
    questions = [row for row in present if isinstance(row, ImageQuestion)]
    measured = await (_speech_set(service, spoken, plan) if spoken else _image_set(service, questions))
    return {"rows": len(present), "absent": len(rows) - len(present), **measured}


async def _speech_set(service: Service, rows: Sequence[Utterance], plan: Plan) -> Report:
    reports = []
    for row in rows:
        truth = {"transcript": row.text, "speech": [_WHOLE_RECORDING]}
        reports.append(await _scenario(service, Scenario(row.id, row.audio, truth, row.slices), plan))
    return {"measure": "WER %", "value": pooling.wer(reports), "slices": pooling.by_slice(reports)}


async def _image_set(service: Service, rows: Sequence[ImageQuestion]) -> Report:
    """Every row of one set has the same rule."""
    scores: list[float] = []
    declined = 0
    slices: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        image = encoded_image(row.image, service.settings.limits.image_bytes)
        answer = await session_run.ask_about_image(service, row.question, image)
        if grade_answers.is_refusal(answer):
            declined += 1
            score = 0.0
        else:
            score = grade_answers.RULES[row.rule](grade_answers.short_answer(answer["text"]), row.answers)
        scores.append(score)
        for name, value in row.slices.items():
            slices[f"{name}: {value}"].append(score)
    return {
        "measure": f"{rows[0].rule} %",
        "value": _percent(scores),
        "declined": declined,
        "slices": {
            name: {"rows": len(values), "value": _percent(values)} for name, values in sorted(slices.items())
        },
    }


def encoded_image(path: Path, max_bytes: int) -> bytes:
    """An image as it is sent with a question.

    The file itself, or a JPEG of it where it is too large or neither JPEG nor PNG.

    Raises:
        StreamsvcError: it is not an image.
    """
    data = path.read_bytes()
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if len(data) <= max_bytes and opened.format in ("JPEG", "PNG"):
                return data
            opened.thumbnail((2048, 2048))
            out = io.BytesIO()
            opened.convert("RGB").save(out, "JPEG", quality=90)
            return out.getvalue()
    except OSError:
        raise StreamsvcError(f"{path} is not an image") from None


def _percent(values: Sequence[float]) -> float:
    return round(100 * sum(values) / len(values), 2)
