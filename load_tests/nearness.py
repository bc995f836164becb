"""Whether the semantically nearest line could serve as an answer.

    python -m load_tests.nearness [--media DIR] [--models DIR] [--each]

Paraphrases, near misses and unrelated questions against one session of three stories and other recordings. A
paraphrase asks for an existing line in other words; a near miss asks for what was never said about a person
who was mentioned; an unrelated question is about something else. The first table tells, by cosine threshold,
what answering with the nearest line would give for the questions that the answer rules decline: the reason
why answers go by words, while search, which only shows what is near, goes by meaning too. The second table is
about single words of watches: for "someone says X", which other words would fire it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engines import embed
from load_tests.search import plain, spoken
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.timeline.ranking import documents
from streamsvc.timeline.timeline import Timeline
from tests.builders.questions import find

# question = what stands in the line looked for; "|": or
PARAPHRASES = """
What was the man's job? = slabs for gravestones | trade of stone-cutting
Who grants people fortune? = dwelt a spirit
To whose mansion did he deliver a tombstone? = house of a rich man
What decorated the luxurious place to sleep? = golden tassels
Why was he astonished when he came home? = stately palace
What happened to the lawn in the heat? = browner and browner
What destroyed the harvest? = overflowed their banks
What wiped out the settlements? = villages were destroyed
What shielded the royal heir from the sun? = to protect him
What was somebody hammering at the foot of the mountain? = driving tools into his surface
How were his meals? = food scanty
Why would the spouse not eat? = fell ill and refused
What did the woman want to eat? = wild honey
Which treats from the woods did he offer her? = delicious fruits
What was wrong with the sweet stuff? = dead bees
What did the pond taste like? = sweetened with sugar
Why did she complain about the water? = full of frogs
What did she give up to be set free? = You shall have my baby
How could one recognise the child by his haircut? = shave both sides
What powers did the kid have? = the baby was a magician
What danger was there outdoors? = wild beast may eat you
What little rodent did he become? = into a mouse
Who was devoured in place of the son? = seized Motikatika's father
What did the husband carry the sweet stuff in? = wooden pan
Who dropped some of his lunch? = some pilgrim must have let fall
How tidy was the home of the crab? = neat and clean
What deal did the monkey suggest? = proposed a bargain
What did the crab receive for part of the meal? = kaki fruit
Why could the crab not scale the trunk? = no tree-climber
What did the greedy ape do with the ripe ones? = filling his pockets
Who nursed the wounded crab? = The wasp flew to her
Where did they lie in ambush? = beam over the front door
What stung him in the nostril? = stung him on the nose
What kitchen tool crushed him? = struck him dead
What exploded in the hearth? = into a thousand pieces
Which era was both good and bad? = the worst of times
Which Mexican dish is a favourite? = Tacos al pastor
What is refreshing for your health? = cold dip
What does a brewery stink of? = smell of old beer
"""
MISSES = (
    "What did the stone-cutter sell at the market?",
    "Why did his wife leave him?",
    "Which ship did the rich man buy?",
    "What did the doctor tell the prince?",
    "What did the spirit say about the war?",
    "Where was the dragon buried?",
    "What animals lived on the mountain?",
    "Who stole the gravestone?",
    "What did the cloud destroy with lightning?",
    "What did the ogre cook for the children?",
    "Where did the woman lose her ring?",
    "Why did the husband go to prison?",
    "Which weapon did the boy use against the ogre?",
    "What did the husband buy in the city?",
    "Why did the woman burn down the hut?",
    "What kind of bread did the wife bake?",
    "Which horse did the husband ride?",
    "What did the grandmother knit for the baby?",
    "What did the crab cook for the king?",
    "What did the monkey steal from the farmer?",
    "Where did the monkey bury the gold?",
    "Who married the crab?",
    "Why did the pilgrim kill the monkey?",
    "Which medicine did the doctor give the crab?",
    "What did the fox trade with the monkey?",
    "Who burned down the house of the crab?",
    "What did the crab drink at the river?",
    "What was the autumn of?",
    "What tastes fine with chicken?",
    "What restores the old castle?",
    "What was said about wine?",
)
STRANGERS = (
    "What is the capital of France?",
    "Who won the football match?",
    "What is two plus two?",
    "Which laptop should I buy?",
    "What did the minister say about taxes?",
    "Why was the flight to Boston cancelled?",
    "Which vaccine was recommended?",
    "What happened on the stock market?",
    "Who scored the second goal?",
    "How does photosynthesis work?",
)

# What is watched for, and what is said instead: by another name, and another of its kind.
SAME = (
    "harvest crops, mansion house, tombstone gravestone, spouse husband, lawn grass, kid child, outdoors "
    "outside, meal food, woods forest, settlement village, ape monkey, sea ocean, doctor physician, cash "
    "money, price cost, rain downpour, film movie, car automobile"
)
OTHERS = (
    "wine beer, summer winter, king prince, forest tree, gold silver, ring tassel, emperor king, ocean "
    "river, horse dog, spring autumn, ham chicken, despair hope, wisdom foolishness, light darkness, sun "
    "cloud, wife husband, apple pear, monday friday"
)


@dataclass(frozen=True, slots=True)
class Row:
    """The result of one question.

    `supported`: a rule answered. `cosine`: of the nearest `line`; `right`: it is the line that is asked for.
    """

    kind: str
    text: str
    supported: bool
    cosine: float
    right: bool
    line: str


def questions() -> list[tuple[str, str, tuple[str, ...]]]:
    """(kind, question, words of the line that is asked for)."""
    rows = [row.split(" = ") for row in PARAPHRASES.strip().splitlines()]
    asked = [("paraphrase", text, tuple(part.strip() for part in wanted.split("|"))) for text, wanted in rows]
    return (
        asked + [("near miss", text, ()) for text in MISSES] + [("stranger", text, ()) for text in STRANGERS]
    )


def measured(line: Timeline, encoder: embed.Encoder) -> list[Row]:
    """Ask all questions.

    Raises:
        SystemExit: a paraphrase looks for what is not there.
    """
    texts = [passage.quote for passage in documents(line.lines())]
    vectors = encoder.vectors(texts, "passage")
    rows = []
    for kind, text, wanted in questions():
        right = [any(plain(phrase) in plain(text) for phrase in wanted) for text in texts]
        if wanted and not any(right):
            raise SystemExit(f"{text!r} looks for {wanted}: not there")
        likeness = vectors @ encoder.vectors([text])[0]
        best = int(likeness.argmax())
        rows.append(
            Row(
                kind,
                text,
                find(text, line, line.latest).supported,
                float(likeness[best]),
                right[best],
                texts[best],
            )
        )
    return rows


def thresholds(rows: Sequence[Row]) -> str:
    """Markdown table: outcomes of answering with the nearest line, by cosine threshold."""
    left = [row for row in rows if not row.supported]
    cells = []
    for least in np.arange(0.35, 0.71, 0.05):
        answered = [row for row in left if row.cosine >= least]
        right = sum(row.right for row in answered)
        paraphrased = sum(row.kind == "paraphrase" for row in answered)
        cells.append((f"{least:.2f}", str(right), str(paraphrased - right), str(len(answered) - paraphrased)))
    return markdown_table(
        ("from cosine", "paraphrases answered right", "wrong", "invented for near misses and strangers"),
        cells,
    )


def pairs(text: str) -> list[tuple[str, str]]:
    """The pairs of words of SAME or OTHERS."""
    return [(one, other) for one, other in (pair.split() for pair in text.split(", "))]


def words(same: Sequence[float], others: Sequence[float]) -> str:
    """Markdown table: watches of a word that would fire for another word, by cosine threshold."""
    cells = [
        (
            f"{least:.2f}",
            f"{sum(cosine >= least for cosine in same)} of {len(same)}",
            f"{sum(cosine >= least for cosine in others)} of {len(others)}",
        )
        for least in np.arange(0.5, 0.91, 0.1)
    ]
    return markdown_table(("from cosine", "fire by another name", "fire for another of the kind"), cells)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--media", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "media"
    )
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache" / "streamsvc" / "models")
    parser.add_argument("--each", action="store_true", help="print every question with its nearest line")
    chosen = parser.parse_args()
    encoder = embed.Encoder(chosen.models / embed.DEFAULT)
    rows = measured(spoken(chosen.media), encoder)
    likeness = [
        [float(np.prod(encoder.vectors(list(pair)), axis=0).sum()) for pair in pairs(text)]
        for text in (SAME, OTHERS)
    ]
    print(thresholds(rows), words(*likeness), sep="\n\n")
    if chosen.each:
        for row in rows:
            mark = "rule" if row.supported else "right" if row.right else "other"
            print(f"{row.kind:10} {mark:5} {row.cosine:.2f}  {row.text}\n{'':23} {row.line}")


if __name__ == "__main__":
    main()
