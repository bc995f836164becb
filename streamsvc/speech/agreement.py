"""Which words of a hypothesis are new, which are certain, and which were never spoken. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from streamsvc.core.types import Word

CROWD, CROWD_SECONDS = (
    3,
    0.14,
)  # so many words in less than so many seconds were not spoken; fast talk has 6 a second
LIKELY = 0.7  # probability below which a word wants one step more: a fifth of those are wrong, of the others one in fifty
EVIDENT, EVIDENT_AGO = 0.97, 0.5  # a word this probable that ended so many seconds ago wants no second step
# Seconds after a word's end at which agreement is enough, however improbable it is: in clear speech, and where it is hard to hear.
SETTLED_AGO = {True: 0.4, False: 0.65}
PLAIN, PLAIN_AGO = (
    {True: 0.4, False: 0.5},
    {True: 0.4, False: 1.1},
)  # ... and at which a single step is, for a word of this probability
ODD_AGO = 2.0  # ... and for any word: nobody waits for ever
# Probability of a word that is shown before it is certain; the higher one where it ended less than EDGE seconds ago.
SHOWN, SHOWN_EDGE, EDGE = 0.35, 0.65, 0.2
TIME_WEIGHT = 0.5  # seconds of shift that weigh as much as one wrong word
SAME = 1.0  # seconds of shift beyond which two words are not the same one, but the second of two that sound alike


def norm(text: str) -> str:
    """What two spellings of a word have in common: letters and digits, lower case."""
    return re.sub(r"[\W_]+", "", text.lower())


def agreed(before: Sequence[Word], now: Sequence[Word]) -> int:
    """How many first words two consecutive hypotheses share."""
    count = 0
    for old, new in zip(before, now, strict=False):
        if norm(old.text) != norm(new.text):
            break
        count += 1
    return count


def certain(words: Sequence[Word], steps: Sequence[int], end: float, *, pause: bool, clear: bool) -> int:
    """How many first words of a hypothesis will never change.

    Args:
        words: the hypothesis, without what is certain already.
        steps: of each word, how many steps before this one heard the same in its place.
        end: session time of the end of the audio.
        pause: the audio ends in a pause.
        clear: the speech is heard well. Where it is not, haste costs too many words.

    The last word waits: in running speech it may be cut ("answer" for "answered"), and its full stop is the model's guess at
    why the audio ends. A pause makes likely words certain; the rest wait for the end of the utterance, or for what follows.
    """
    for place, (word, same) in enumerate(zip(words, steps, strict=True)):
        ago = end - word.end
        likely = word.probability >= LIKELY
        sure = (
            same >= (1 if likely else 2)
            or (pause and likely)
            or (word.probability >= EVIDENT and ago >= EVIDENT_AGO)
            or (same >= 1 and ago >= SETTLED_AGO[clear])
            or (word.probability >= PLAIN[clear] and ago >= PLAIN_AGO[clear])
            or ago >= ODD_AGO
        )
        last = place == len(words) - 1 and (pause or not word.text[-1].isalnum())
        if not sure or last:
            return place
    return len(words)


def presentable(tail: Sequence[Word], steps: Sequence[int], end: float) -> int:
    """How many first words of an uncertain tail are worth showing: one that is soon taken back disturbs more than it tells.

    Args:
        tail: the hypothesis, without what is certain.
        steps: as for `certain`. What was heard twice is shown, however improbable: it would hide all that follows.
        end: session time of the end of the audio.
    """
    for place, (word, same) in enumerate(zip(tail, steps, strict=True)):
        if not same and word.probability < (SHOWN_EDGE if end - word.end < EDGE else SHOWN):
            return place
    return len(tail)


def sentence_case(words: Sequence[Word], before: str) -> list[Word]:
    """The words with a capital after each full stop: a hypothesis that begins within a sentence goes on in small letters.

    Args:
        words: the hypothesis.
        before: the word before it; "." where there is none.
    """
    cased = []
    for word in words:
        opens = before.rstrip("\"'”’)").endswith((".", "!", "?")) and not before.endswith("...")
        cased.append(
            replace(word, text=word.text[0].upper() + word.text[1:])
            if opens and word.text[0].islower()
            else word
        )
        before = word.text
    return cased


def known(stable: Sequence[Word], heard: Sequence[Word]) -> int:
    """How many first words of a hypothesis are stable already.

    Args:
        stable: the stable words inside the window, oldest first; the first may be cut.
        heard: the hypothesis.

    Text and time decide together: the least edit distance to the stable words, plus the distance in time of the cut.
    """
    if not stable or not heard:
        return 0
    last = stable[-1].start  # starts: the end of a word before a pause wanders with each alignment
    most = min(len(heard), len(stable) + 4)
    row = [
        float(max(0, i - 1)) for i in range(len(stable) + 1)
    ]  # the first may be cut off by the window: free
    costs = [float(len(stable))]
    texts = [(norm(word.text), word.start) for word in stable]
    # column i of `row`: the cost of matching stable[:i] with heard[:j]
    for j in range(1, most + 1):
        text, start = norm(heard[j - 1].text), heard[j - 1].start
        above = row
        row = [above[0] + 1.0]
        for i, (other, when) in enumerate(texts, 1):
            same = text == other and abs(start - when) <= SAME
            row.append(min(above[i - 1] + (0.0 if same else 1.0), above[i] + 1.0, row[i - 1] + 1.0))
        costs.append(row[-1])
    starts = [stable[0].start, *(word.start for word in heard[:most])]
    return min(range(most + 1), key=lambda j: (costs[j] + abs(starts[j] - last) / TIME_WEIGHT, j))


def sound(starts: Sequence[float], end: float) -> int:
    """How many first words were spoken: invented ones (a loop, a guess beyond the audio) find no sound and crowd into one moment."""
    times = [*starts, end]
    crowded = (
        place
        for place in range(len(starts) - CROWD + 1)
        if times[place + CROWD] - times[place] < CROWD_SECONDS
    )
    return next(crowded, len(starts))
