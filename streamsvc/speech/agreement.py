"""Agreement of hypotheses: new, stable, shown and hallucinated words. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from streamsvc.core.types import Word

# So many words in less than so many seconds are hallucinated: fast speech has 6 words a second.
CROWD_WORDS = 3
CROWD_SECONDS = 0.14
LIKELY_PROBABILITY = 0.7  # below it a word needs one more step: a fifth of those are wrong, of the others 2 %
# A word of this probability that ended so many seconds ago is stable after one step.
CERTAIN_PROBABILITY = 0.95
CERTAIN_AGE = 0.15
# Seconds after its end at which weaker evidence makes a word stable: two steps that agree, whatever the
# probability, or one step of LIKELY_ENOUGH (at 0.4: 43 errors of 1,016 words instead of 40, 0.04 s sooner).
SETTLED_AGE = 0.4
LIKELY_ENOUGH = 0.6
MAX_AGE = 2.0  # seconds after its end at which any word is stable
# Probability from which a tentative word is shown; the higher one where it ended less than EDGE_SECONDS ago.
SHOWN_PROBABILITY = 0.3
EDGE_PROBABILITY = 0.8
EDGE_SECONDS = 0.2
# Words beyond the end of a newer hypothesis: deviation of times, speech under each, probability of each:
SLACK = 0.1
HEARD_SECONDS = 0.1
ENOUGH_PROBABILITY = 0.5
SHIFT_WEIGHT = 0.5  # seconds of shift that cost as much as one substituted word
SAME_WORD_SHIFT = 1.0  # seconds; beyond, equal texts are two occurrences of a word

Heard = Callable[[float, float], float]  # seconds of speech between two session times


def normalise(text: str) -> str:
    """A word without case and punctuation: letters and digits, lower case."""
    return re.sub(r"[\W_]+", "", text.lower())


def agreement_length(previous: Sequence[Word], current: Sequence[Word]) -> int:
    """Length of the common prefix of two consecutive hypotheses, in words."""
    count = 0
    for old, new in zip(previous, current, strict=False):
        if normalise(old.text) != normalise(new.text):
            break
        count += 1
    return count


def no_speech(start: float, end: float) -> float:
    """A `Heard` of silence."""
    return 0.0


def words_beyond(tail: Sequence[Word], fresh: Sequence[Word], heard: Heard) -> list[Word]:
    """The last words of a tail that lie beyond the end of a newer hypothesis, in speech that it leaves out.

    The model may end its text early; such a hypothesis does not deny what comes after its end.

    Args:
        tail: tentative words of the hypothesis before.
        fresh: the newer hypothesis, without the stable words.
        heard: seconds of speech between two session times.
    """
    first = agreement_length(tail, fresh)
    if first < len(fresh):
        first = next((at for at, word in enumerate(tail) if word.start > fresh[-1].end - SLACK), len(tail))
    beyond = list(tail[first:])
    if beyond and fresh and normalise(beyond[0].text) == normalise(fresh[-1].text):
        return []
    return beyond if all(_is_heard(word, heard) for word in beyond) else []


def _is_heard(word: Word, heard: Heard) -> bool:
    likely = word.probability >= ENOUGH_PROBABILITY
    return likely and heard(word.start, word.end) >= min(HEARD_SECONDS, (word.end - word.start) / 2)


def stable_count(words: Sequence[Word], agreements: Sequence[int], end: float, *, pause: bool) -> int:
    """How many first words of a hypothesis become stable.

    The last word waits: in running speech it may be cut ("answer" for "answered"), and its full stop is the
    model's guess at why the audio ends. A pause makes likely words stable; the others wait for the end of the
    utterance or for more audio.

    Args:
        words: the hypothesis without the words that are stable already.
        agreements: for each word, how many previous steps recognised the same in its place.
        end: session time of the end of the audio.
        pause: the audio ends in a pause.
    """
    for index, (word, agreed) in enumerate(zip(words, agreements, strict=True)):
        last = index == len(words) - 1 and (pause or not word.text[-1].isalnum())
        if last or not _is_stable(word, agreed, end - word.end, pause=pause):
            return index
    return len(words)


def _is_stable(word: Word, agreed: int, age: float, *, pause: bool) -> bool:
    likely = word.probability >= LIKELY_PROBABILITY
    return (
        agreed >= (1 if likely else 2)
        or (pause and likely)
        or (word.probability >= CERTAIN_PROBABILITY and age >= CERTAIN_AGE)
        or (age >= SETTLED_AGE and (agreed >= 1 or word.probability >= LIKELY_ENOUGH))
        or age >= MAX_AGE
    )


def shown_count(tail: Sequence[Word], agreements: Sequence[int], end: float) -> int:
    """How many first words of a tentative tail are shown.

    Words that are soon retracted disturb readers. A word that two steps agree on is shown whatever its
    probability, since it would hide all that follow.

    Args:
        tail: the hypothesis without the stable words.
        agreements: as for `stable_count`.
        end: session time of the end of the audio.
    """
    for index, (word, agreed) in enumerate(zip(tail, agreements, strict=True)):
        threshold = EDGE_PROBABILITY if end - word.end < EDGE_SECONDS else SHOWN_PROBABILITY
        if not agreed and word.probability < threshold:
            return index
    return len(tail)


def sentence_case(words: Sequence[Word], previous: str) -> list[Word]:
    """Capitalise the first word of each sentence.

    A hypothesis that starts within a sentence continues in lower case after a full stop.

    Args:
        words: the hypothesis.
        previous: text of the word before it; "." if there is none.
    """
    cased = []
    for word in words:
        starts_sentence = previous.rstrip("\"'”’)").endswith((".", "!", "?")) and not previous.endswith("...")
        if starts_sentence and word.text[0].islower():
            cased.append(replace(word, text=word.text[0].upper() + word.text[1:]))
        else:
            cased.append(word)
        previous = word.text
    return cased


def overlap_count(stable: Sequence[Word], words: Sequence[Word]) -> int:
    """How many first words of a hypothesis repeat the stable words.

    Minimises the edit distance to the stable words plus the weighted shift in time of the cut.

    Args:
        stable: stable words inside the window, oldest first; the window may cut the first.
        words: the hypothesis.
    """
    if not stable or not words:
        return 0
    last = stable[-1].start  # start times: the end of a word before a pause varies between alignments
    most = min(len(words), len(stable) + 4)
    # Column i of `row`: the cost of matching stable[:i] with words[:j]. Deleting the first word is free.
    row = [float(max(0, i - 1)) for i in range(len(stable) + 1)]
    costs = [float(len(stable))]
    stable_texts = [(normalise(word.text), word.start) for word in stable]
    for j in range(1, most + 1):
        text = normalise(words[j - 1].text)
        start = words[j - 1].start
        above = row
        row = [above[0] + 1.0]
        for i, (stable_text, stable_start) in enumerate(stable_texts, 1):
            same = text == stable_text and abs(start - stable_start) <= SAME_WORD_SHIFT
            row.append(min(above[i - 1] + (0.0 if same else 1.0), above[i] + 1.0, row[i - 1] + 1.0))
        costs.append(row[-1])
    starts = [stable[0].start, *(word.start for word in words[:most])]
    return min(range(most + 1), key=lambda j: (costs[j] + abs(starts[j] - last) / SHIFT_WEIGHT, j))


def spoken_count(starts: Sequence[float], end: float) -> int:
    """How many first words were spoken.

    Hallucinated words crowd into one moment, without audio of their own.

    Args:
        starts: start time of each word, in seconds.
        end: end time of the last one.
    """
    times = [*starts, end]
    crowded = (
        index
        for index in range(len(starts) - CROWD_WORDS + 1)
        if times[index + CROWD_WORDS] - times[index] < CROWD_SECONDS
    )
    return next(crowded, len(starts))
