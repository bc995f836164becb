"""A question set about the recordings of ../shared/media; figures of a run over it.

    python -m load_tests.question_set make OUT [--media DIR]      one truth (scenario.py) for each recording
    streamsvc eval OUT --json > REPORT.json                       on a virtual clock
    python -m load_tests.question_set show REPORT.json [--failures FILE] [--half tune|held]

The templates use the manifest's words, times and descriptions and the slides' titles, and nothing of the
answer rules. Kinds: speech, screen, time, object; attribute, sound and unknown (an object that no model here
can name), which are to be declined; never (what was never said or shown, near misses included), where
declining, or "no" to a yes/no question, is right. Each question belongs to one half: rules are tuned on
"tune" and judged on "held". A seed fixes the set.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from load_tests import question_facts as facts
from load_tests.question_templates import Sheet, lecture, never, photos, talk
from load_tests.question_words import span_of, words_of
from streamsvc.evaluation import figures
from streamsvc.evaluation.markdown import markdown_table

ROOT = Path(__file__).resolve().parents[1]
SEED = 20
LONGEST = 110.0  # seconds of a talk that are played


# --- all of them --------------------------------------------------------------------------------------------


def sheets(media: Path) -> list[Sheet]:
    """All questions, each with its half."""
    entries = {
        Path(entry["path"]).stem: entry
        for entry in json.loads((media / "manifest.json").read_text())["files"]
    }
    rng = random.Random(SEED)
    made = []
    for name, share in facts.TALKS.items():
        entry = entries[name]
        seconds = min(LONGEST, entry["duration_s"])
        keys = ("transcript", "words") if seconds == entry["duration_s"] else ("words",)
        speech = entry.get("segments") or [{"start": 0.0, "end": entry["duration_s"]}]
        sheet = Sheet(
            name, media / entry["path"], seconds, {"speech": speech, **{key: entry.get(key) for key in keys}}
        )
        if entry.get("words"):
            talk(sheet, rng, share)
        words = words_of(sheet.truth, seconds)
        for question, keywords, quote in facts.SAID.get(name, ()):
            sheet.ask("speech", question, keywords[0], keywords, span_of(quote, words, seconds))
        made.append(sheet)
    for name in ("lecture_stone_cutter", "scenes_photos"):
        truth = json.loads((media / "scenarios" / f"{name}.json").read_text())
        fields = {key: truth[key] for key in ("intervals", "transcript", "words", "speech")}
        sheet = Sheet(name, media / "scenarios" / truth["file"], truth["duration_s"], fields)
        (lecture if name.startswith("lecture") else photos)(sheet, truth, rng)
        made.append(sheet)
    for name, clip in facts.CLIPS.items():
        entry = entries[name]
        sheet = Sheet(name, media / entry["path"], entry["duration_s"], {})
        for question, answer, keywords in clip.get("object", ()):
            sheet.ask("object", question, answer, keywords)
        for question, answer, keywords in clip.get("screen", ()):
            sheet.ask("screen", question, answer, keywords)
        made.append(sheet)
    by_name = {sheet.name: sheet for sheet in made}
    for kind in ("attribute", "sound", "unknown"):
        for name, questions in getattr(facts, kind.upper()).items():
            for question in questions:
                by_name[name].ask(kind, question, "cannot be known here")
    never(by_name, rng)
    halve(made, rng)
    return made


def halve(made: Sequence[Sheet], rng: random.Random) -> None:
    """Assign the halves: alternately within each kind and recording, in shuffled order."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for sheet in made:
        for question in sheet.asked:
            groups[question["kind"], sheet.name].append(question)
    turn = 0
    for _, group in sorted(groups.items()):
        rng.shuffle(group)
        for question in group:
            question["half"] = ("tune", "held")[turn % 2]
            turn += 1


def write(made: Sequence[Sheet], out: Path) -> None:
    """Write a truth for each recording; it names its media by a relative path."""
    out.mkdir(parents=True, exist_ok=True)
    for sheet in made:
        file = os.path.relpath(sheet.media.resolve(), out.resolve())
        body = {
            "file": file,
            "duration_s": sheet.seconds,
            "play_s": sheet.seconds,
            **sheet.truth,
            "qa": sheet.asked,
        }
        (out / f"{sheet.name}.json").write_text(
            json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


# --- a run over them ----------------------------------------------------------------------------------------


def answered(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All graded questions of a report of `streamsvc eval`, with the name of their recording."""
    for name, scenario in report["scenarios"].items():
        for row in scenario["answers"].get("each") or ():
            yield {"recording": name, **row}


def good(row: dict[str, Any]) -> bool:
    """Whether a question counts as good: right; of kind "never": not affirmed."""
    return bool(row["honest"] if row["kind"] == "never" else row["verdict"] == "right")


def show(rows: Sequence[dict[str, Any]]) -> str:
    """Figures by kind for both halves."""
    lines = []
    for kind in [name for name in figures.KINDS if any(row["kind"] == name for row in rows)]:
        cells = [kind]
        for half in ("tune", "held"):
            asked = [row for row in rows if row["kind"] == kind and row["half"] == half]
            counts = Counter(row["verdict"] for row in asked)
            good_count = sum(map(good, asked))
            cells += [f"{good_count} of {len(asked)}", f"{100 * good_count / max(1, len(asked)):.0f}"]
            cells.append(
                " / ".join(str(counts[v]) for v in ("declined", "wrong", "hallucinated", "unanswered"))
            )
        lines.append(tuple(cells))
    heads = (
        "kind",
        "tune: good",
        "%",
        "declined / wrong / invented / unanswered",
        "held: good",
        "%",
        "declined / wrong / invented / unanswered",
    )
    right = [row for row in rows if row["verdict"] == "right" and row["answerable"]]
    cited = sum(row["cited"] for row in right)
    return f"{markdown_table(heads, lines)}\n\nright ones that are cited: {cited} of {len(right)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("do", choices=("make", "show"))
    parser.add_argument(
        "path", type=Path, help="make: the folder to write; show: a report of `streamsvc eval --json`"
    )
    parser.add_argument("--media", type=Path, default=ROOT.parent / "shared" / "media", help="(%(default)s)")
    parser.add_argument(
        "--failures", type=Path, help="show: where the questions that were not answered well go, as JSON"
    )
    parser.add_argument("--half", choices=("tune", "held"), help="show: only the failures of one half")
    chosen = parser.parse_args()
    if chosen.do == "make":
        made = sheets(chosen.media.resolve())
        write(made, chosen.path)
        counts = Counter((question["kind"], question["half"]) for sheet in made for question in sheet.asked)
        for kind in figures.KINDS:
            print(f"{kind:10} {counts[kind, 'tune']:3} tune {counts[kind, 'held']:3} held")
        return
    rows = list(answered(json.loads(chosen.path.read_text())))
    print(show(rows))
    if chosen.failures is not None:
        failed = [row for row in rows if not good(row) and chosen.half in (None, row["half"])]
        chosen.failures.write_text(json.dumps(failed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
