"""Measures the vision models on this machine: `streamsvc bench vision`.

The encoder of every session's keyframes in every runtime at batches of 1, 8 and 32, one thread each, as in
the see worker; and the CPU time of one op `look` of a session (JPEG in; tags, boxes and embedding out). At
one keyframe a second that is the session's share of a core, without OCR, which runs only where text is likely
and has changed (engines/README.md).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines import encoder, tagger, vision
from engines.fetch import folder_of
from engines.plot import Panel, svg
from streamsvc.core.errors import StreamsvcError

BATCHES = (1, 8, 32)
TIMES = 7  # timed batches, of which the fastest counts
LOOKS = 12  # pictures for the op `look`
SIZE = (1280, 720)  # pixels of those pictures


@dataclass(frozen=True, slots=True)
class Row:
    """One runtime at one batch size.

    `ms`, `cpu_ms`: wall and CPU milliseconds per picture. `latency_ms`: wall milliseconds per batch.
    `cosine`: the least of a vector to ONNX Runtime's. `why`: the reason if it was not run.
    """

    runtime: str
    batch: int
    ms: float = 0.0
    cpu_ms: float = 0.0
    latency_ms: float = 0.0
    cosine: float = 0.0
    why: str = ""

    @property
    def frames_per_second(self) -> float:
        """Pictures per second, on one thread or on the GPU."""
        return 1000 / self.ms if self.ms else 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """All results. `chosen`: the runtime that serves sessions here. `share`: of one core, per session."""

    model: str
    chosen: str
    rows: tuple[Row, ...]
    share: float


def measured(
    models: Path, options: Mapping[str, Any], tell: Callable[[str], None], batches: Sequence[int] = BATCHES
) -> Report:
    """Run the benchmark; half a minute of one core.

    Args:
        models: the folder of models.
        options: of `vision.load`, as passed to the see worker.
        tell: called with progress messages.
        batches: batch sizes.

    Raises:
        ModelMissing: weights are missing; the message names the command that installs them.
    """
    name = str(options.get("tagger", vision.TAGGER))
    tell(f"loading {name}")
    served = tagger.Tagger(folder_of(name, models)).encoder
    rows = compared(tagger.source_of(folder_of(name, models) / tagger.MODEL), tell, batches)
    tell("timing the op look")
    return Report(name, str(served.choice), tuple(rows), share(options))


def compared(source: encoder.Source, tell: Callable[[str], None], batches: Sequence[int]) -> list[Row]:
    """A row for each runtime and batch size."""
    pixels = {count: encoder.trial(source, count) for count in batches}
    reference = encoder.onnxruntime(source)
    expected = {count: reference(pixels[count]) for count in batches}
    rows: list[Row] = []
    for name, make in encoder.RUNTIMES.items():
        tell(f"timing {name}")
        try:
            encode = make(source)
        except StreamsvcError as error:
            rows += [Row(name, count, why=error.message) for count in batches]
            continue
        for count in batches:
            similarity = encoder.cosine(encode(pixels[count]), expected[count])
            wall, cpu = (1000 * seconds for seconds in encoder.timed(encode, pixels[count], TIMES))
            rows.append(Row(name, count, wall / count, cpu / count, wall, similarity))
    return rows


def share(options: Mapping[str, Any]) -> float:
    """CPU seconds of one op `look`, all threads: a session's share of a core at one keyframe a second."""
    look = vision.load({**options, "ocr": False}).ops["look"]
    random = np.random.default_rng(0)
    pictures = [jpeg(random) for _ in range(LOOKS)]
    look.run([{"jpeg": pictures[0]}])  # type: ignore[arg-type]
    began = time.process_time()
    for picture in pictures:
        (result,) = look.run([{"jpeg": picture}])  # type: ignore[arg-type]
        if isinstance(result, StreamsvcError):
            raise result
    return (time.process_time() - began) / LOOKS


def jpeg(random: np.random.Generator) -> Any:
    """A JPEG of soft shapes: costs as much to decode and analyse as a photo, and is never blank."""
    small = Image.fromarray(random.integers(0, 256, (18, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=85)
    return np.frombuffer(buffer.getvalue(), np.uint8)


# --- output -------------------------------------------------------------------------------------------------


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON. A row that was not run has `why` and no figures."""
    rows: list[dict[str, Any]] = []
    for row in report.rows:
        if row.why:
            rows.append({"runtime": row.runtime, "batch": row.batch, "why": row.why})
        else:
            figures = {
                "ms": row.ms,
                "cpu_ms": row.cpu_ms,
                "latency_ms": row.latency_ms,
                "frames_per_second": row.frames_per_second,
                "cosine": row.cosine,
            }
            rounded = {name: round(value, 4) for name, value in figures.items()}
            rows.append({"runtime": row.runtime, "batch": row.batch, **rounded})
    return {**asdict(report), "rows": rows, "share": round(report.share, 4)}


def table(report: Report) -> str:
    """The report as text."""
    lines = [f"{report.model}, one thread; the fastest of several runs", ""]
    columns = ("batch", "ms/frame", "CPU ms", "frames/s", "ms/batch", "cosine")
    lines += [f"{'runtime':<13} " + " ".join(f"{column:>9}" for column in columns)]
    skipped: set[str] = set()
    for row in report.rows:
        if not row.why:
            figures = f"{row.batch:>9} {row.ms:>9.2f} {row.cpu_ms:>9.2f} {row.frames_per_second:>9.1f}"
            lines.append(f"{row.runtime:<13} {figures} {row.latency_ms:>9.1f} {row.cosine:>9.5f}")
        elif row.runtime not in skipped:
            skipped.add(row.runtime)
            lines.append(f"{row.runtime:<13} not run: {row.why}")
    lines += ["", f"serves sessions on this machine: {report.chosen}"]
    lines += [
        f"a session at one keyframe a second: {report.share:.1%} of one core (tags, boxes, embedding; no OCR)"
    ]
    return "\n".join(lines)


def plot(report: Report) -> str:
    """An SVG plot of frames per second and ms per batch over the batch size, one line per runtime."""
    rows = sorted((row for row in report.rows if not row.why), key=lambda row: row.batch)
    ticks = [f"batch {batch}" for batch in sorted({row.batch for row in report.rows})]
    ran = list(dict.fromkeys(row.runtime for row in report.rows if not row.why))

    def panel(title: str, value: Callable[[Row], float]) -> Panel:
        lines = {runtime: [value(row) for row in rows if row.runtime == runtime] for runtime in ran}
        return Panel(f"{report.model}: {title}", ticks, lines)

    return svg(
        [
            panel("frames a second", lambda row: row.frames_per_second),
            panel("ms a batch", lambda row: row.latency_ms),
        ]
    )
