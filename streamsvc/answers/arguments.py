"""What a question names: times, numbers, quotations, labels, titles and words of the stream. Pure.

Without English wordings: `times` reads times, numbers and quotation marks; labels are those of the detector
and of what was seen; the subject is what is left without the words that many example questions share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from streamsvc.answers import times
from streamsvc.answers.example_votes import words_of
from streamsvc.answers.intents import label_words, rarity
from streamsvc.answers.route import Arguments, Form
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import labels
from streamsvc.vision.label_tables import COCO, IMAGENET_GROUPS, SYNONYMS, WIDER_GROUPS, names_of

_LONGEST_LABEL = 3  # words


def arguments_of(text: str, form: Form, timeline: Timeline, now: float) -> Arguments:
    """Arguments of a question.

    Args:
        text: of the question.
        form: kind of answer that it asks for.
        timeline: what is known.
        now: session seconds at which it is asked.
    """
    quotation = times.quotation_of(text)
    words = words_of(text)
    named = labels_in(words, timeline)
    numbers = times.numbers_of(text)
    return Arguments(
        span=times.span_of(text, now),
        label=named[0] if named else "",
        other=named[1] if len(named) > 1 else "",
        text=quotation or title_in(words, timeline) or subject_of(words, timeline),
        ordinal=times.ordinal_of(text),
        number=numbers[0] if numbers else None,
        form=form,
    )


# --- labels ---


@cache
def _detectable_names() -> dict[str, str]:
    """Words for a label -> its name in the singular: what the detector knows, groups of it, and synonyms."""
    names = [name for entry in COCO.values() for name in names_of(entry)]
    names += [*IMAGENET_GROUPS, *WIDER_GROUPS]
    names += [name for entry in SYNONYMS.values() for name in names_of(entry)]
    return _with_plurals(tuple(names))


@lru_cache(maxsize=64)
def _with_plurals(names: Sequence[str]) -> dict[str, str]:
    words = label_words()
    forms: dict[str, str] = {}
    for name in names:
        if name not in words.ignored:
            for form in (name, labels.plural(name), *words.plurals.get(name, ())):
                forms.setdefault(form, name)
    return forms


def _seen_names(timeline: Timeline) -> tuple[str, ...]:
    seen = {
        name.casefold()
        for entry in timeline.shown
        if entry.sight is not None
        for label in (*(box.label for box in entry.sight.boxes), *(tag.label for tag in entry.sight.tags))
        for name in (label.split(",")[0].strip(), labels.plain(label))
    }
    return tuple(sorted(seen))


def labels_in(words: Sequence[str], timeline: Timeline) -> tuple[str, ...]:
    """Names of labels in a question, in its order: what was seen, and what the detector can name."""
    forms = _detectable_names() | _with_plurals(_seen_names(timeline))
    found: dict[str, None] = {}
    start = 0
    while start < len(words):
        length = next(
            (n for n in range(_LONGEST_LABEL, 0, -1) if " ".join(words[start : start + n]) in forms), 0
        )
        if length:
            found[forms[" ".join(words[start : start + length])]] = None
        start += max(1, length)
    return tuple(found)


# --- titles and subjects ---


def title_in(words: Sequence[str], timeline: Timeline) -> str:
    """The title of a screen that stands whole in a question, the longest; "" if none does."""
    titles = {screen.title for screen in timeline.screens if screen.title}
    inside = [title for title in titles if _holds(words, words_of(title))]
    return max(inside, key=lambda title: (len(title), title), default="")


def subject_of(words: Sequence[str], timeline: Timeline) -> str:
    """What a question is about: the run of words that is least common among questions.

    A run that the stream holds goes before one that it does not; "" if all words are common.
    """
    runs = list(_rare_runs(words))
    held = [run for run in runs if _on(timeline, run)]
    return " ".join(max(held or runs, key=lambda run: sum(map(rarity, run)), default=()))


def _rare_runs(words: Sequence[str]) -> Iterator[list[str]]:
    run: list[str] = []
    for word in [*words, ""]:
        if word and rarity(word) and not word.isdigit():
            run.append(word)
        elif run:
            yield run
            run = []


def _on(timeline: Timeline, run: Sequence[str]) -> bool:
    """Whether one sentence or line of the screen has a run of words."""
    texts = (
        *(sentence.text for sentence in timeline.sentences),
        *(track.text for track in timeline.text_tracks.all()),
    )
    return any(run[0] in text.casefold() and _holds(words_of(text), run) for text in texts)


def _holds(words: Sequence[str], run: Sequence[str]) -> bool:
    """Whether a run of words stands in others."""
    length = len(run)
    return bool(run) and any(
        list(words[start : start + length]) == list(run) for start in range(len(words) - length + 1)
    )
