r"""Streaming recognisers compared on the same recordings, through ../shared/bench/streambench.py.

    make="python ../shared/bench/make_ref.py --out REF"       # 1,525 words of four readers in 428 s
    $make speech/crimson_26_motikatika.flac --end 353.9       # cut in a pause: few seconds for many words
    for file in two_cities harvard jfk_inaugural_excerpt; do $make speech/$file.flac; done
    weights=MODELS/whisper-tiny.en bench=../shared/bench
    python -m load_tests.captions_beside REF --out OUT --runs 3 --model $weights \
        --worker "ours=python -m load_tests.streambench_worker" \
        --worker "ours, many sessions=python -m load_tests.streambench_worker --hear step=1.4" \
        --worker "5 s chunks=python $bench/worker_chunks.py --model $weights" \
        --worker "WhisperLive=PEER/bin/python $bench/peers/worker_whisperlive.py --model $weights"

Each worker gets each recording in real time, `--runs` times. Workers take turns, so that other load on the
machine affects all alike. A finished cell in OUT is not run again, so an interrupted command can be repeated;
`--table` runs nothing. Commands run in the project's folder. Run nothing else meanwhile.

The figures are streambench's, pooled over runs and recordings (score_captions.py has the same definitions).
WER is compared with offline faster-whisper, beam 1, of the weights in `--model`, by paired bootstrap on the
mean errors of the runs. Memory is PSS, of the largest process of a worker and of all of them (clients of the
peers included), from the first second on. CPU is what streambench counts: of a peer, its server alone. The
gap is the longest time without a change of the screen during speech; gap and flush are the worst of all runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from streamsvc.core import clock
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.caption_bench import offline_decoder
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import read, truth_of
from streamsvc.evaluation.score_captions import Reference, norm

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT.parent / "shared" / "bench" / "streambench.py"
WEIGH = 1.0  # seconds between two looks at the memory
FEW = 1500  # words pooled, below which a word error rate says little


@dataclass(frozen=True, slots=True)
class Recording:
    """A reference of make_ref.py and the WAV beside it. `seconds`: duration."""

    name: str
    wav: Path
    ref: Path
    reference: Reference
    seconds: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of one worker on one recording, and the file of its result. `run` counts from 1."""

    worker: str
    command: tuple[str, ...]
    recording: Recording
    run: int
    file: Path


def recordings(folder: Path) -> list[Recording]:
    """The recordings of a folder, by name.

    Raises:
        SystemExit: there are none. ConfigError: a reference cannot be read.
    """
    loaded = []
    for ref in sorted(folder.glob("*.ref.json")):
        truth, fields = truth_of(ref, ref), json.loads(ref.read_text(encoding="utf-8"))
        assert truth is not None  # a file was given
        name = ref.name.removesuffix(".ref.json")
        loaded.append(
            Recording(
                name,
                ref.with_name(fields["audio"]),
                ref,
                Reference(truth.words, truth.ends or ()),
                float(fields["duration"]),
            )
        )
    if not loaded:
        raise SystemExit(f"no *.ref.json in {folder}: make them by make_ref.py")
    return loaded


def cells(
    workers: Mapping[str, Sequence[str]], of: Sequence[Recording], runs: int, out: Path
) -> Iterator[Cell]:
    """The cells in the order in which they are run: workers take turns, in rotating order."""
    order = list(workers.items())
    for run in range(1, runs + 1):
        for recording in of:
            for name, command in order:
                folder = re.sub(r"\W+", "_", name)
                yield Cell(
                    name, tuple(command), recording, run, out / folder / f"{recording.name}.{run}.json"
                )
            order = [*order[1:], order[0]]


def done(cell: Cell) -> dict[str, Any] | None:
    """The result of a cell; None: not run yet.

    Raises:
        SystemExit: it is that of another command or recording: the table would mix two things.
    """
    try:
        result: dict[str, Any] = json.loads(cell.file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if result["cmd"] != list(cell.command) or result["stream_s"] < cell.recording.seconds:
        raise SystemExit(
            f"{cell.file} is the result of another command: {shlex.join(result['cmd'])}; "
            "choose another --out, or remove it"
        )
    return result


def measure(cell: Cell, harness: Path) -> bool:
    """Run one cell; its file appears when it is complete. False: the worker failed."""
    cell.file.parent.mkdir(parents=True, exist_ok=True)
    part = cell.file.with_suffix(".part")
    options = (
        "--name",
        cell.worker,
        "--audio",
        str(cell.recording.wav),
        "--ref",
        str(cell.recording.ref),
        "--out",
        str(part),
    )
    command = [sys.executable, str(harness), "run", *options, "--", *cell.command]
    looks: list[tuple[float, list[int]]] = []
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            looks.append((clock.now(), memory(process.pid)))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(WEIGH)
    finally:
        end(
            process
        )  # cut off: the harness gave the worker a session of its own, where no signal of ours comes
    if process.returncode or not part.is_file():
        return False
    result = json.loads(part.read_text(encoding="utf-8"))
    began = clock.now() - result["stream_s"]  # or a little after the first sample: loading does not count
    sizes = [pss for at, pss in looks if at >= began and pss] or [[0]]
    result["pss"] = {"largest": max(max(pss) for pss in sizes), "all": max(sum(pss) for pss in sizes)}
    part.write_text(json.dumps(result), encoding="utf-8")
    part.rename(cell.file)
    return True


def memory(pid: int) -> list[int]:
    """PSS in bytes of each process below `pid`."""
    sizes = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                sizes.append(int(process.memory_full_info().pss))
    return sizes


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all its descendants, and wait until they are gone."""
    if process.poll() is None:
        below = psutil.Process(process.pid).children(recursive=True)
        for descendant in below:
            with contextlib.suppress(psutil.Error):
                descendant.kill()
        process.kill()
        process.wait()
        psutil.wait_procs(below, timeout=5.0)


# --- report ---------------------------------------------------------------------------------------------


def decoded(of: Sequence[Recording], model: Path, out: Path) -> dict[str, list[str]]:
    """The words of offline decoding by recording, cached in OUT."""
    file = out / f"offline_{model.name}.json"
    cached: dict[str, list[str]] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if missing := [recording for recording in of if recording.name not in cached]:
        decode = offline_decoder(model, "en")
        cached |= {recording.name: decode(read(recording.wav)) for recording in missing}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(cached), encoding="utf-8")
    return cached


def figures(
    results: Sequence[tuple[Recording, dict[str, Any]]], theirs: Mapping[str, list[str]] | None
) -> dict[str, Any]:
    """The figures of one worker, its runs pooled (see the module). At least one run."""
    scores: list[score_captions.Score] = []
    edits: dict[str, tuple[Sequence[str], list[score_captions.Counts]]] = {}
    for recording, result in results:
        shown = [(at, committed, tentative) for at, committed, tentative in result["events"]]
        scores.append(score_captions.score(shown, recording.reference))
        final = norm(shown[-1][1]) if shown else []
        edits.setdefault(recording.name, (recording.reference.words, []))[1].append(
            score_captions.errors(recording.reference.words, final)
        )
    seconds = sum(result["stream_s"] for _, result in results)
    table: dict[str, Any] = {
        "runs": len(results),
        "unfinished": sum(not result["finished"] for _, result in results),
        **score_captions.figures(score_captions.pool(scores)),
        "cpu_per_audio_s": round(sum(result["cpu_s"] for _, result in results) / seconds, 3),
        "other_cpu_per_audio_s": round(
            sum(result["machine_busy_s"] - result["cpu_s"] for _, result in results) / seconds, 3
        ),
        "pss_largest_mb": round(max(result["pss"]["largest"] for _, result in results) / 1e6),
        "pss_all_mb": round(max(result["pss"]["all"] for _, result in results) / 1e6),
        "rss_mb": round(max(result["rss_mb"] for _, result in results) * 2**20 / 1e6),
        "flush_s": round(max(result["flush_s"] for _, result in results), 2),
        "late_feed_s": round(max(result["late_feed_s"] for _, result in results), 3),
        "wer_of_runs": [round(one.edits / max(1, one.words), 4) for one in scores],
    }
    if theirs is not None:
        ours = np.concatenate(
            [score_captions.pieces(np.mean(counts, axis=0)) for _, counts in edits.values()]
        )
        gap = score_captions.compare(
            ours,
            np.concatenate(
                [
                    score_captions.pieces(score_captions.errors(words, theirs[name]))
                    for name, (words, _) in edits.items()
                ]
            ),
        )
        assert gap is not None  # there is at least one run
        table["offline"] = {
            "difference": round(gap.points, 4),
            "upper_95": round(gap.upper, 4),
            "pieces": gap.pieces,
        }
    return table


HEADS = (
    *(
        "worker",
        "runs",
        "WER %",
        "points to offline (upper 95 %)",
        "first p50/p95 s",
        "committed p50/p95/max s",
        "erasure",
        "revised",
    ),
    *("CPU s/s", "PSS largest/all MB", "longest gap s", "flush s", "other CPU s/s"),
)


def row(name: str, of: Mapping[str, Any]) -> tuple[str, ...]:
    """One worker's line of the table."""

    def times(*keys: str) -> str:
        return " / ".join("-" if of[key] is None else f"{of[key]:.2f}" for key in keys)

    gap = of.get("offline")
    return (
        name,
        f"{of['runs']}" + (f" ({of['unfinished']} unfinished)" if of["unfinished"] else ""),
        "-" if of["wer"] is None else f"{100 * of['wer']:.1f}",
        f"{100 * gap['difference']:+.1f} ({100 * gap['upper_95']:+.1f})" if gap else "-",
        times("first_p50", "first_p95"),
        times("commit_p50", "commit_p95", "commit_max"),
        f"{of['erasure']:.2f}",
        f"{of['commit_erased']}",
        f"{of['cpu_per_audio_s']:.3f}",
        f"{of['pss_largest_mb']} / {of['pss_all_mb']}",
        f"{of['longest_gap_s']:.1f}",
        f"{of['flush_s']:.2f}",
        f"{of['other_cpu_per_audio_s']:.2f}",
    )


def report(
    every: Sequence[Cell], of: Sequence[Recording], model: Path | None, out: Path
) -> tuple[str, dict[str, Any]]:
    """The table with its remarks, and its data, of the cells run so far."""
    theirs = decoded(of, model, out) if model is not None else None
    words, seconds = sum(len(one.reference.words) for one in of), sum(one.seconds for one in of)
    data: dict[str, Any] = {
        "words": words,
        "seconds": round(seconds, 1),
        "recordings": [one.name for one in of],
        "workers": {},
    }
    for name in dict.fromkeys(cell.worker for cell in every):
        results = [
            (cell.recording, result)
            for cell in every
            if cell.worker == name and (result := done(cell)) is not None
        ]
        if results:
            data["workers"][name] = {
                **figures(results, theirs),
                "of": sum(cell.worker == name for cell in every),
            }
    lines = [markdown_table(HEADS, [row(name, one) for name, one in data["workers"].items()]), ""]
    lines.append(
        f"{len(of)} recordings, {words} words, {seconds:.0f} s"
        + (f"; fewer than {FEW} words say little." if words < FEW else ".")
    )
    if model is not None and theirs is not None:
        data["offline_wer"] = (
            sum(int(score_captions.errors(one.reference.words, theirs[one.name]).sum()) for one in of) / words
        )
        lines.append(f"Offline faster-whisper, beam 1, {model.name}: WER {100 * data['offline_wer']:.1f} %.")
    for name, one in data["workers"].items():
        if one["runs"] < one["of"]:
            lines.append(f"{name}: {one['runs']} of {one['of']} runs so far; its figures are of those alone.")
        if one["late_feed_s"] > 0.1:
            lines.append(
                f"{name}: audio was fed up to {one['late_feed_s']:.2f} s late; the machine was not quiet."
            )
    return "\n".join(lines), data


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("references", type=Path, help="folder with the *.ref.json and *.wav of make_ref.py")
    parser.add_argument(
        "--worker",
        action="append",
        required=True,
        metavar="NAME=COMMAND",
        help="a worker of streambench (repeatable)",
    )
    parser.add_argument("--out", type=Path, required=True, help="where the runs and table.json go")
    parser.add_argument(
        "--runs", type=int, default=3, help="of each worker over each recording (%(default)s)"
    )
    parser.add_argument("--model", type=Path, help="folder of the weights, for offline decoding")
    parser.add_argument("--table", action="store_true", help="run nothing; the table of what is there")
    parser.add_argument("--harness", type=Path, default=HARNESS, help="streambench.py (%(default)s)")
    chosen = parser.parse_args()
    if wrong := [pair for pair in chosen.worker if "=" not in pair]:
        parser.error(f"--worker wants NAME=COMMAND, not {wrong[0]!r}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `measure` ends what it started
    workers = {
        name: shlex.split(command) for name, _, command in (pair.partition("=") for pair in chosen.worker)
    }
    of, out = recordings(chosen.references.resolve()), chosen.out.resolve()
    every = list(cells(workers, of, chosen.runs, out))
    failed = []
    for number, cell in enumerate(every, 1):
        if chosen.table or done(cell) is not None:
            continue
        print(
            f"{number} of {len(every)}: {cell.worker}, {cell.recording.name}, run {cell.run}",
            file=sys.stderr,
            flush=True,
        )
        if not measure(cell, chosen.harness.resolve()):
            failed.append(cell)
    table, data = report(every, of, chosen.model, out)
    (out / "table.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
    print(table)
    for cell in failed:
        print(
            f"{cell.worker}, {cell.recording.name}, run {cell.run}: "
            f"failed, see {cell.file.with_suffix('.part.stderr')}"
        )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
