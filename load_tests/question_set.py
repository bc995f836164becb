"""Questions of our own about the recordings of ../shared/media, made by templates from their truth, and the figures of a run over them.

    python -m load_tests.question_set make OUT [--media DIR]      one truth (scenario.py) for each recording used
    streamsvc eval OUT --json > REPORT.json                       on a clock that jumps
    python -m load_tests.question_set show REPORT.json [--failures FILE] [--half tune|held]

The templates know the manifest's words, times and descriptions, and the slides' titles; nothing of our rules. Kinds:
speech, screen, time, object; attribute, sound and unknown (a thing that is shown and that no model here knows), which are
to be declined; never (what was never said or shown, near-misses included), where declining, or "no" to a yes/no question, is right.
Each question belongs to one half: rules are tuned on "tune" and judged on "held". A seed makes the same questions for ever.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests import question_facts as facts
from streamsvc.evaluation import figures
from streamsvc.evaluation.caption_bench import markdown

ROOT = Path(__file__).resolve().parents[1]
SEED = 20
LONGEST = 110.0  # seconds of a talk that are played
LONG = 18  # words of a sentence
_COMMON = """
"about above after again against always another around because before began being below better between could declared either every
everything first found great having himself indeed instead itself large little might nearly never nothing other others perfectly
quite rather scarcely seemed shall should since still suddenly their there therefore these thing things think those though thought
through under until wanted where whether which while whole whose without would yourself certainly myself themselves something
across already almost became become brought called cannot given going likely looked make making takes taking times upon using what
with this that some were when have then them been from they will your only more must such than said into over does doing here just
like
"""
COMMON = frozenset(_COMMON.split())


@dataclass(frozen=True, slots=True)
class Said:
    """A word of a talk: as it is written, bare, its times in seconds, and the number of its sentence."""

    text: str
    bare: str
    start: float
    end: float
    sentence: int


@dataclass
class Sheet:
    """The questions about one recording."""

    name: str
    media: Path
    seconds: float  # that are played
    truth: dict[str, Any]
    asked: list[dict[str, Any]] = field(default_factory=list)

    def ask(
        self,
        kind: str,
        question: str,
        answer: str,
        keywords: Sequence[str] = (),
        span: tuple[float, float] | None = None,
        *,
        form: str = "",
    ) -> None:
        """Add a question. `span`: seconds of its evidence, None: anywhere. `form`: "open" unless said; yes and no make it yes/no."""
        never = kind in ("attribute", "sound", "unknown") or (kind == "never" and answer != "no")
        form = form or ("yes/no" if answer in ("yes", "no") else "open")
        entry: dict[str, Any] = {
            "id": f"{self.name}-{len(self.asked) + 1}",
            "kind": kind,
            "type": form,
            "question": question,
            "answer": answer,
        }
        entry |= {"keywords": list(keywords) or [answer], "evidence_s": list(span or (0.0, self.seconds))}
        modality = {"speech": "speech", "screen": "ocr", "sound": "audio"}.get(kind, "vision")
        entry |= {"modality": modality, "ask_at_s": self.seconds + 1.0}
        self.asked.append(entry | ({"answerable": False} if never else {}))


# --- what is said -------------------------------------------------------------------------------------------------


def words_of(truth: dict[str, Any], until: float) -> list[Said]:
    """The words of a talk and their sentences, which end with a full stop, a semicolon and the like; behind LONG words with a comma too."""
    found: list[Said] = []
    sentence, first = 0, 0
    for item in truth.get("words") or ():
        if item["end"] > until:
            break
        found.append(
            Said(item["w"], re.sub(r"[^a-z-]", "", item["w"].lower()), item["start"], item["end"], sentence)
        )
        if re.search(r"[.!?;]\W*$" if len(found) - first < LONG else r"[.!?;,]\W*$", item["w"]):
            sentence, first = sentence + 1, len(found)
    return found


def telling(words: Sequence[Said]) -> list[Said]:
    """Words of five letters or more that are said once and are not common ones."""
    counts = Counter(word.bare[:5] for word in words)
    return [
        word
        for word in words
        if len(word.bare) >= 5
        and counts[word.bare[:5]] == 1
        and word.bare not in COMMON
        and "-" not in word.bare
    ]


def nouns(words: Sequence[Said]) -> list[Said]:
    """Telling words right behind an article, and followed by no word that they may describe: mostly nouns."""
    closing = {
        "of",
        "in",
        "on",
        "was",
        "and",
        "that",
        "which",
        "to",
        "with",
        "from",
        "at",
        "for",
        "had",
        "when",
        "who",
        "were",
        "is",
    }
    found = []
    rare = {id(word) for word in telling(words)}
    for before, word, after in zip(words, words[1:], words[2:], strict=False):
        ends = bool(re.search(r"\W$", word.text)) or after.bare in closing
        if id(word) in rare and before.bare in ("the", "a", "an", "his", "her") and ends:
            found.append(word)
    return found


def spread_out(chance: random.Random, items: Sequence[Any], count: int) -> list[Any]:
    """So many items, in their order, one out of each of as many equal parts."""
    parts = [items[n * len(items) // count : (n + 1) * len(items) // count] for n in range(count)]
    return [chance.choice(part) for part in parts if part]


def told_times(at: float) -> str:
    """A time as people write it: 1:05."""
    return f"{int(at // 60)}:{int(at % 60):02d}"


def talk(sheet: Sheet, chance: random.Random, share: float) -> None:
    """The templates of speech and time; `share`: of the full number."""
    words = words_of(sheet.truth, sheet.seconds)
    rare = telling(words)

    def sentence(word: Said) -> tuple[list[str], tuple[float, float]]:
        of = [each for each in words if each.sentence == word.sentence]
        return [each.bare for each in of if len(each.bare) >= 4 and each.bare not in COMMON], (
            of[0].start,
            of[-1].end,
        )

    def some(full: int) -> int:
        return max(1, round(full * share))

    for word in spread_out(chance, rare, some(5)):
        sheet.ask(
            "time",
            f'When was "{word.bare}" mentioned?',
            told_times(word.start),
            (),
            (word.start, word.end),
            form="when",
        )
    for word in spread_out(chance, rare, some(4)):
        form = chance.choice(
            ('Did the speaker mention "{}"?', 'Was the word "{}" said?', 'Has anyone said "{}"?')
        )
        sheet.ask("speech", form.format(word.bare), "yes", ("yes",), sentence(word)[1])
    for word in spread_out(chance, nouns(words), some(4)):
        content, span = sentence(word)
        around = [each for each in content if each[:5] != word.bare[:5]][:8]
        if len(around) >= 3:
            form = chance.choice(
                (
                    "What was said about the {}?",
                    "What did the speaker say about the {}?",
                    "What do you know about the {}?",
                )
            )
            sheet.ask("speech", form.format(word.bare), " ".join(around), around, span)
    for word in spread_out(chance, [each for each in rare if each.start > 3], some(2)):
        content, span = sentence(word)
        sheet.ask(
            "speech", f"What was said at {told_times(word.start + 0.5)}?", " ".join(content), content, span
        )
    for first, second in zip(
        spread_out(chance, rare, some(3)), spread_out(chance, rare[len(rare) // 2 :], some(3)), strict=False
    ):
        if second.start - first.start > 3:
            pair = chance.sample([first.bare, second.bare], 2)
            sheet.ask(
                "speech",
                f'Which was mentioned first, "{pair[0]}" or "{pair[1]}"?',
                first.bare,
                (first.bare,),
                (first.start, second.end),
            )
    for word in spread_out(chance, words[4:-6], some(2)):
        place = words.index(word)
        before, behind = words[place - 3 : place + 1], words[place + 1 : place + 4]
        quoted, next_words = " ".join(each.text for each in before), " ".join(each.bare for each in behind)
        span = (before[0].start, behind[-1].end)
        sheet.ask(
            "speech",
            f'What did the speaker say right after "{quoted.strip(",.;:!?‘’")}"?',
            next_words,
            (next_words,),
            span,
        )
    opening = " ".join(each.bare for each in words[:3])
    sheet.ask(
        "speech",
        chance.choice(("How does the talk begin?", "What were the first words?")),
        opening,
        (opening,),
        (0.0, words[9].end),
    )


def span_of(quote: str, words: Sequence[Said], seconds: float) -> tuple[float, float]:
    """When a quotation's sentence was said; anywhere where nobody wrote down when."""
    if not words:
        return 0.0, seconds
    wanted = [re.sub(r"[^a-z-]", "", word) for word in quote.lower().split()]
    for place in range(len(words) - len(wanted) + 1):
        if [word.bare for word in words[place : place + len(wanted)]] == wanted:
            of = [word for word in words if word.sentence == words[place].sentence]
            return of[0].start, of[-1].end
    raise ValueError(f"{quote!r} is not said in the part that is played")


# --- all of them --------------------------------------------------------------------------------------------------


def sheets(media: Path) -> list[Sheet]:
    """All questions, in halves."""
    entries = {
        Path(entry["path"]).stem: entry
        for entry in json.loads((media / "manifest.json").read_text())["files"]
    }
    chance = random.Random(SEED)
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
            talk(sheet, chance, share)
        words = words_of(sheet.truth, seconds)
        for question, keywords, quote in facts.SAID.get(name, ()):
            sheet.ask("speech", question, keywords[0], keywords, span_of(quote, words, seconds))
        made.append(sheet)
    for name in ("lecture_stone_cutter", "scenes_photos"):
        truth = json.loads((media / "scenarios" / f"{name}.json").read_text())
        kept = {key: truth[key] for key in ("intervals", "transcript", "words", "speech")}
        sheet = Sheet(name, media / "scenarios" / truth["file"], truth["duration_s"], kept)
        (lecture if name.startswith("lecture") else photos)(sheet, truth, chance)
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
    never(by_name, chance)
    halve(made, chance)
    return made


def lecture(sheet: Sheet, truth: dict[str, Any], chance: random.Random) -> None:
    """Questions about slides: titles, times, order, lines."""
    slides = truth["intervals"]
    for number, slide in enumerate(slides, 1):
        span = (slide["start"], slide["end"])
        if number % 2:
            form = chance.choice(
                (
                    "What is the title of slide {}?",
                    "What was the heading of slide {}?",
                    "What was slide {} called?",
                )
            )
            sheet.ask("screen", form.format(number), slide["title"], (slide["title"],), span)
        else:
            form = chance.choice(
                (
                    'When did the slide "{}" appear?',
                    'At what time was the slide "{}" shown?',
                    'When did "{}" come on the screen?',
                )
            )
            sheet.ask("time", form.format(slide["title"]), told_times(slide["start"]), (), span, form="when")
        line = chance.choice(slide["text"].split("\n")[1:-1])
        if number % 3 == 0:
            sheet.ask(
                "screen",
                f'Which slide says "{line}"?',
                slide["title"],
                (slide["title"], f"slide {number}"),
                span,
            )
        elif number % 3 == 1:
            sheet.ask(
                "screen",
                f"What was on the screen at {told_times(slide['start'] + 8)}?",
                slide["title"],
                (slide["title"],),
                span,
            )
        else:
            sheet.ask("screen", f'Was "{line}" on the screen?', "yes", ("yes",), span)
    for first, second in ((0, 4), (6, 2)):
        early, late = slides[first], slides[second]
        answer = "yes" if first < second else "no"
        span = (min(early["start"], late["start"]), max(early["end"], late["end"]))
        sheet.ask(
            "screen",
            f'Was the slide "{early["title"]}" shown before "{late["title"]}"?',
            answer,
            (answer,),
            span,
        )


def photos(sheet: Sheet, truth: dict[str, Any], chance: random.Random) -> None:
    """Questions about what was shown when."""
    spans = {
        part["label"]: (part["start"], part["end"]) for part in reversed(truth["intervals"])
    }  # the first of two
    for label, names in facts.PHOTOS.items():
        span = spans[label]
        form = chance.choice(("Has a {} been shown?", "Was there a {} in the picture?", "Did you see a {}?"))
        sheet.ask("object", form.format(names[0]), "yes", ("yes",), span)
        sheet.ask("object", f"What was shown at {told_times(span[0] + 6)}?", names[0], names, span)
        form = chance.choice(
            ("When did the {} appear?", "At what time was the {} shown?", "When was the {} first seen?")
        )
        sheet.ask("time", form.format(names[0]), told_times(span[0]), (), span, form="when")
    order = list(facts.PHOTOS)
    for first, second in zip(order, order[2:], strict=False):
        pair = chance.sample([facts.PHOTOS[first][0], facts.PHOTOS[second][0]], 2)
        answer = min((first, second), key=lambda label: spans[label][0])
        span = (spans[answer][0], max(spans[first][1], spans[second][1]))
        sheet.ask(
            "object",
            f"Which came first, the {pair[0]} or the {pair[1]}?",
            facts.PHOTOS[answer][0],
            facts.PHOTOS[answer],
            span,
        )


def never(by_name: dict[str, Sheet], chance: random.Random) -> None:
    """What was never said or shown: other talks' words, things not in the picture, slides and deeds that nearly were."""
    talks = {
        name: words_of(by_name[name].truth, by_name[name].seconds)
        for name in (*facts.TALKS, "lecture_stone_cutter", "scenes_photos")
    }
    for name, words in talks.items():
        if facts.TALKS.get(name, 0) < 1:
            continue
        here = {word.bare[:5] for word in words}
        foreign = sorted(
            {
                word.bare
                for other, of in talks.items()
                if other != name
                for word in nouns(of)
                if word.bare[:5] not in here
            }
        )
        for place, word in enumerate(chance.sample(foreign, min(9, len(foreign)))):
            if place % 3 == 0:
                by_name[name].ask("never", f'When was "{word}" mentioned?', "never", form="when")
            elif place % 3 == 1:
                by_name[name].ask("never", f"What was said about the {word}?", "nothing")
            else:
                by_name[name].ask("never", f'Did the speaker mention "{word}"?', "no", ("no",))
    for name, questions in facts.NEVER.items():
        for question in questions:
            first = question.split()[0]
            if first in ("When", "At"):
                by_name[name].ask("never", question, "never", form="when")
            else:
                by_name[name].ask(
                    "never",
                    question,
                    *(("no", ("no",)) if first in ("Has", "Was", "Is", "Did", "Were") else ("nothing",)),
                )


def halve(made: Sequence[Sheet], chance: random.Random) -> None:
    """Give each question its half: of every kind and recording, one and the other in turn, shuffled."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for sheet in made:
        for question in sheet.asked:
            groups[question["kind"], sheet.name].append(question)
    turn = 0
    for _, group in sorted(groups.items()):
        chance.shuffle(group)
        for question in group:
            question["half"] = ("tune", "held")[turn % 2]
            turn += 1


def write(made: Sequence[Sheet], out: Path) -> None:
    """A truth for each recording, which names its media by the way from there."""
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


# --- a run over them ----------------------------------------------------------------------------------------------


def answered(report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All graded questions of a report of `streamsvc eval`, with the name of their recording."""
    for name, of in report["scenarios"].items():
        for row in of["answers"].get("each") or ():
            yield {"recording": name, **row}


def good(row: dict[str, Any]) -> bool:
    """Right; or, of what never was, not affirmed."""
    return bool(row["honest"] if row["kind"] == "never" else row["verdict"] == "right")


def show(rows: Sequence[dict[str, Any]]) -> str:
    """Figures per kind for both halves."""
    lines = []
    for kind in [name for name in figures.KINDS if any(row["kind"] == name for row in rows)]:
        cells = [kind]
        for half in ("tune", "held"):
            asked = [row for row in rows if row["kind"] == kind and row["half"] == half]
            counts = Counter(row["verdict"] for row in asked)
            fine = sum(map(good, asked))
            cells += [f"{fine} of {len(asked)}", f"{100 * fine / max(1, len(asked)):.0f}"]
            cells += [
                f"{counts['declined']} / {counts['wrong']} / {counts['hallucinated']} / {counts['unanswered']}"
            ]
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
    return f"{markdown(heads, lines)}\n\nright ones that are cited: {cited} of {len(right)}"


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
