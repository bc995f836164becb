"""Templates of load_tests.question_set: questions about speech, slides, photos, and about what never was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests import question_facts as facts
from load_tests.question_words import COMMON, SpokenWord, distinctive, nouns, spread_out, words_of


@dataclass
class Sheet:
    """The questions about one recording."""

    name: str
    media: Path
    seconds: float  # played
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
        """Add a question.

        span: seconds of its evidence, None: the whole recording. form: "open", "yes/no" or "when"; by default
        "yes/no" for the answers yes and no, else "open".
        """
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


def clock_time(at: float) -> str:
    """A time as minutes and seconds: 1:05."""
    return f"{int(at // 60)}:{int(at % 60):02d}"


def talk(sheet: Sheet, rng: random.Random, share: float) -> None:
    """Questions about speech and times. `share`: of the full number of questions."""
    words = words_of(sheet.truth, sheet.seconds)
    rare = distinctive(words)

    def sentence(word: SpokenWord) -> tuple[list[str], tuple[float, float]]:
        spoken = [other for other in words if other.sentence == word.sentence]
        content = [other.bare for other in spoken if len(other.bare) >= 4 and other.bare not in COMMON]
        return content, (spoken[0].start, spoken[-1].end)

    def some(full: int) -> int:
        return max(1, round(full * share))

    for word in spread_out(rng, rare, some(5)):
        sheet.ask(
            "time",
            f'When was "{word.bare}" mentioned?',
            clock_time(word.start),
            (),
            (word.start, word.end),
            form="when",
        )
    for word in spread_out(rng, rare, some(4)):
        form = rng.choice(
            ('Did the speaker mention "{}"?', 'Was the word "{}" said?', 'Has anyone said "{}"?')
        )
        sheet.ask("speech", form.format(word.bare), "yes", ("yes",), sentence(word)[1])
    for word in spread_out(rng, nouns(words), some(4)):
        content, span = sentence(word)
        around = [other for other in content if other[:5] != word.bare[:5]][:8]
        if len(around) >= 3:
            form = rng.choice(
                (
                    "What was said about the {}?",
                    "What did the speaker say about the {}?",
                    "What do you know about the {}?",
                )
            )
            sheet.ask("speech", form.format(word.bare), " ".join(around), around, span)
    for word in spread_out(rng, [word for word in rare if word.start > 3], some(2)):
        content, span = sentence(word)
        sheet.ask(
            "speech", f"What was said at {clock_time(word.start + 0.5)}?", " ".join(content), content, span
        )
    for first, second in zip(
        spread_out(rng, rare, some(3)), spread_out(rng, rare[len(rare) // 2 :], some(3)), strict=False
    ):
        if second.start - first.start > 3:
            pair = rng.sample([first.bare, second.bare], 2)
            sheet.ask(
                "speech",
                f'Which was mentioned first, "{pair[0]}" or "{pair[1]}"?',
                first.bare,
                (first.bare,),
                (first.start, second.end),
            )
    for word in spread_out(rng, words[4:-6], some(2)):
        place = words.index(word)
        before, behind = words[place - 3 : place + 1], words[place + 1 : place + 4]
        quoted, next_words = " ".join(word.text for word in before), " ".join(word.bare for word in behind)
        span = (before[0].start, behind[-1].end)
        sheet.ask(
            "speech",
            f'What did the speaker say right after "{quoted.strip(",.;:!?‘’")}"?',
            next_words,
            (next_words,),
            span,
        )
    opening = " ".join(word.bare for word in words[:3])
    sheet.ask(
        "speech",
        rng.choice(("How does the talk begin?", "What were the first words?")),
        opening,
        (opening,),
        (0.0, words[9].end),
    )


def lecture(sheet: Sheet, truth: dict[str, Any], rng: random.Random) -> None:
    """Questions about slides: titles, times, order, lines."""
    slides = truth["intervals"]
    for number, slide in enumerate(slides, 1):
        span = (slide["start"], slide["end"])
        if number % 2:
            form = rng.choice(
                (
                    "What is the title of slide {}?",
                    "What was the heading of slide {}?",
                    "What was slide {} called?",
                )
            )
            sheet.ask("screen", form.format(number), slide["title"], (slide["title"],), span)
        else:
            form = rng.choice(
                (
                    'When did the slide "{}" appear?',
                    'At what time was the slide "{}" shown?',
                    'When did "{}" come on the screen?',
                )
            )
            sheet.ask("time", form.format(slide["title"]), clock_time(slide["start"]), (), span, form="when")
        line = rng.choice(slide["text"].split("\n")[1:-1])
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
                f"What was on the screen at {clock_time(slide['start'] + 8)}?",
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


def photos(sheet: Sheet, truth: dict[str, Any], rng: random.Random) -> None:
    """Questions about the photos: which, when, in what order."""
    spans = {
        part["label"]: (part["start"], part["end"]) for part in reversed(truth["intervals"])
    }  # the first of two
    for label, names in facts.PHOTOS.items():
        span = spans[label]
        form = rng.choice(("Has a {} been shown?", "Was there a {} in the picture?", "Did you see a {}?"))
        sheet.ask("object", form.format(names[0]), "yes", ("yes",), span)
        sheet.ask("object", f"What was shown at {clock_time(span[0] + 6)}?", names[0], names, span)
        form = rng.choice(
            ("When did the {} appear?", "At what time was the {} shown?", "When was the {} first seen?")
        )
        sheet.ask("time", form.format(names[0]), clock_time(span[0]), (), span, form="when")
    order = list(facts.PHOTOS)
    for first, second in zip(order, order[2:], strict=False):
        pair = rng.sample([facts.PHOTOS[first][0], facts.PHOTOS[second][0]], 2)
        answer = min((first, second), key=lambda label: spans[label][0])
        span = (spans[answer][0], max(spans[first][1], spans[second][1]))
        sheet.ask(
            "object",
            f"Which came first, the {pair[0]} or the {pair[1]}?",
            facts.PHOTOS[answer][0],
            facts.PHOTOS[answer],
            span,
        )


def never(by_name: dict[str, Sheet], rng: random.Random) -> None:
    """Questions about what was never said or shown.

    Words of other talks, objects that are not in the picture, near misses of slides and events.
    """
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
                for other, spoken in talks.items()
                if other != name
                for word in nouns(spoken)
                if word.bare[:5] not in here
            }
        )
        for place, word in enumerate(rng.sample(foreign, min(9, len(foreign)))):
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
