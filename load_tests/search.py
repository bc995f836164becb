"""Search in one long session: mean reciprocal rank of each way of ranking.

    python -m load_tests.search [--media DIR] [--models DIR] [--misses] [--grid]

The session is made of the transcripts and slides of the shared recordings. Paraphrased queries have no
content word (by our stemmer) in common with their target; one that has is an error. Every second one is held
out: the constants of timeline/ranking.py were chosen by `--grid` on the others. Exact queries are words of a
document, nonsense queries and WORDS (every second one held out) have no target.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import embed
from load_tests import topics_of_watches
from streamsvc.core.types import Box, Cue, Evidence, ScreenText, Sight, TextLine, Word
from streamsvc.timeline import ranking as timeline_ranking
from streamsvc.timeline.text import terms, tokens
from streamsvc.timeline.text_vectors import CHANCE_QUERIES, chance_of
from streamsvc.timeline.timeline import Timeline

RECORDINGS = (
    "crimson_17_the_stone_cutter",
    "crimson_26_motikatika",
    "crimson_30_the_crab_and_the_monkey",
    "ivr_prompts_telephone",
    "two_cities",
    "harvard",
)
SHOWN = ("person", "cup, espresso, dining table", "cat", "rocket", "motorcycle", "clock", "cell phone")
# query = what stands in the document looked for; "|": or
PARAPHRASES = """
mason who quarries material for tombs = slabs for gravestones
skilled craftsman with lots of clients = plenty of customers
supernatural being grants fortune = rich and prosperous | dwelt a spirit
sceptic denies that ghosts exist = unbelieving air | An unbelieving man
delivery to a millionaire's mansion = gravestone to the house of a rich man
his job becomes exhausting = harder and heavier
luxurious place to lie down for the night = golden tassels
searching in vain for whoever was speaking = could see nobody
blamed his imagination and quit early = all his fancy
astonished by a mansion in place of his shack = stately palace
overjoyed, he no longer remembers how things used to be = soon forgotten
warm season arrives = beginning of summer
bored man spying on the road outside = closed blinds
royal heir shaded from the light = to protect him
lawn dries out and his skin gets tanned = browner and browner
arrogant about his strength = proud in his power
meadows set on fire and royals harmed = scorched the faces
flood ruins the harvest = overflowed their banks
settlements wiped out by the storm = villages were destroyed
nothing can shift him any more, weather or otherwise = the force of the rain could move him
somebody hammers chisels in below him = driving tools into his surface
content with modest meals and an uncomfortable mattress = food scanty
spouse is unwell and has no appetite = fell ill and refused
offering her tasty things from the woods = delicious fruits
insects spoil the sweet stuff = dead bees
a pond that tastes like syrup = sweetened with sugar
now he demands a drink because his throat is dry = I am thirsty
complaint about amphibians in the beverage = full of frogs
monster emerges and accuses her of theft = a horrible head bobbed up
trades her infant for her own freedom = You shall have my baby
how to recognise the child: haircut and necklace = shave both sides of his head
the kid has supernatural powers and overhears the deal = the baby was a magician
warning about dangerous creatures outdoors = some wild beast may eat you
gather every infant of the same age nearby = Collect all the babies
earthquake announces the giant = ground began to shake
he fears retribution for devouring innocents = heavy punishment would befall him
calming him down with a dish of corn = bowl of maize
transforms into a small rodent = into a mouse
turn into something with wings and pluck vegetables = into a bird
swap the blankets = Take the red coverlet
the dad is devoured in place of his son = seized Motikatika's father
the widow weeps and the boy defends what happened = she cried bitterly
tidy home of a crustacean = neat and clean as hers
traveller dropped some of his lunch = some pilgrim must have let fall
cunning primate suggests a swap = proposed a bargain
pip of a persimmon in return for part of the meal = sweet red kaki fruit
courteous beggar wants a snack = could you spare me
she lacks the ability to scale trunks = no tree-climber
greedy ape gorges and only shares spoiled ones = filling his pockets
acrobatic boasting empties his pouches = rolled to the ground
brutal assault, almost fatal = left her for dead
an insect nurses the wounded one = The wasp flew to her
ambush positions inside the building = beam over the front door
fake apology = hypocritical speech
explosion in the hearth cuts his cheeks = into a thousand pieces
stinger in his nostril = stung him on the nose
crushed by a heavy kitchen tool = struck him dead
content until old age = lived happily for many years
wrong credentials = Login incorrect | Password incorrect | not a valid password
block an annoying salesperson = don't call
secret code is too weak = minimum requirements
inbox is full = can't accept more messages
free software telephone exchange = full-featured PBX
record a short-term greeting once it beeps = say your temporary message
typed twice but they differ = did not match
link to the host failed = unable to create a connection
contradictory era, good and bad at once = the worst of times
spicy Mexican dish = Tacos al pastor
swimming in icy sea refreshes you = cold dip
stench of a brewery = stale smell of old beer
feline = cat
spacecraft launch = rocket
two-wheeled vehicle = motorcycle
hot beverage on the furniture = espresso
somebody stands in front of the camera = person
a device to tell the time = clock
"""
NONSENSE = (
    """
quarterly earnings report, kubernetes pod scheduling, football world cup final, asdf qwer,
photosynthesis in algae, mortgage interest rates, submarine periscope, violin concerto,
vaccination side effects, tax evasion trial, jazz saxophone solo, chess opening theory
""".strip()
    .replace("\n", " ")
    .split(", ")
)
WORDS = """
pepper volcano umbrella guitar dentist passport elephant helicopter pizza bicycle snow piano wallet banana
mirror thunder keyboard bridge candle pencil dolphin curtain tractor blanket submarine island shampoo
cathedral scissors ladder perfume chimney penguin harbour envelope trumpet saddle wizard pumpkin
microscope lemonade glacier kangaroo violin spaghetti calendar lipstick rainbow cheese garage orchestra
"""
Ranking = Callable[[str], NDArray[np.float64]]  # query -> a score of each document, 0: not found


def spoken(media: Path) -> Timeline:
    """The captions of all recordings one after the other, without recognition errors."""
    line, at = Timeline(), 0.0
    for name in RECORDINGS:
        for words in heard(media, name):
            moved = tuple(Word(word.text, word.start + at, word.end + at) for word in words)
            text = " ".join(word.text for word in moved)
            line.add(Cue("s", "main", moved[0].start, 0.0, text, moved, len(moved), True))
        at = line.latest + 5.0
    return line


def session(media: Path) -> list[Evidence]:
    """The documents of one session of 25 minutes: six recordings, eight slides and seven pictures."""
    line = spoken(media)
    at = line.latest + 5.0
    slides = json.loads((media / "scenarios" / "lecture_stone_cutter.json").read_text())["intervals"]
    for number, slide in enumerate(slides):
        lines = tuple(TextLine(text, 0.9, 0, 0, 1, 0.1) for text in slide["text"].split("\n"))
        line.add(ScreenText("s", "main", at + 10 * number, 0.0, slide["title"], lines, at + 10 * number))
    at = line.latest + 5.0
    for number, labels in enumerate(SHOWN):
        boxes = tuple(Box(label, 0.9, 0, 0, 1, 1) for label in labels.split(", "))
        line.add(Sight("s", "main", at + 10 * number, 0.0, np.zeros(1, np.float32), (), boxes))
    return timeline_ranking.documents(line.lines())


def heard(media: Path, name: str) -> list[tuple[Word, ...]]:
    """The captions of a recording from its transcript: by word times, else spread over its segments."""
    entry: Mapping[str, Any] = next(
        entry
        for entry in json.loads((media / "manifest.json").read_text())["files"]
        if entry["path"] == f"speech/{name}.flac"
    )
    if entry.get("words"):
        words = [Word(entry["w"], entry["start"], entry["end"]) for entry in entry["words"]]
    else:
        words = []
        for part in entry["segments"]:
            texts = part["text"].split()
            step = (part["end"] - part["start"]) / max(1, len(texts))
            words += [
                Word(text, part["start"] + n * step, part["start"] + (n + 0.9) * step)
                for n, text in enumerate(texts)
            ]
    return [tuple(words[first : first + 14]) for first in range(0, len(words), 14)]


def paraphrases(documents: Sequence[Evidence]) -> list[tuple[str, list[int]]]:
    """The queries with the indices of their targets.

    Raises:
        SystemExit: one looks for what is not there, or shares a content word with it.
    """
    pairs = []
    for row in PARAPHRASES.strip().splitlines():
        query, wanted = (part.strip() for part in row.split(" = "))
        phrases = [plain(phrase) for phrase in wanted.split("|")]
        right = [
            place
            for place, document in enumerate(documents)
            if any(phrase in plain(document.quote) for phrase in phrases)
        ]
        shared = {term for place in right for term in terms(documents[place].quote)} & set(terms(query))
        if not right or shared:
            raise SystemExit(
                f"{query!r} "
                + (
                    f"shares {sorted(shared)} with {wanted!r}"
                    if right
                    else f"looks for {wanted!r}: not there"
                )
            )
        pairs.append((query, right))
    return pairs


def plain(text: str) -> str:
    """The words of a text with a blank at both ends."""
    return f" {' '.join(tokens(text))} "


def exact(documents: Sequence[Evidence], count: int, kind: str) -> list[tuple[str, list[int]]]:
    """Queries made of a document's own words, with the indices of all documents that contain them.

    kind: "two words": content words; "two and an unknown one": which no document contains; "two and a wrong
    one": of another document; "a run of four": consecutive words.
    """
    rng = random.Random(7)
    pairs = []
    for place in rng.sample(range(len(documents)), count):
        words = documents[place].quote.split()
        content = [word.strip(".,;:!?‘’'\"") for word in words if terms(word)]
        if len(content) < 2 or len(words) < 6:
            continue
        first = rng.randrange(len(words) - 3)
        query = " ".join(words[first : first + 4] if kind == "a run of four" else rng.sample(content, 2))
        needed = set(terms(query))
        right = [n for n, document in enumerate(documents) if needed <= set(terms(document.quote))]
        if kind == "two and an unknown one":
            query += " " + rng.choice(NONSENSE).split()[0]
        elif kind == "two and a wrong one":
            query += " " + rng.choice(
                [word for word in tokens(rng.choice(documents).quote) if terms(word)] or ["tax"]
            )
        if needed:
            pairs.append((query, right))
    return pairs


def reciprocal(scores: NDArray[np.float64], right: Sequence[int]) -> float:
    """1 / the best rank of a right document; 0 if none is ranked. Ties count as the worst rank."""
    best = max(scores[place] for place in right)
    return (
        1.0 / int((scores >= best).sum() - sum(scores[place] == best for place in right) + 1)
        if best > 0
        else 0.0
    )


def mean(queries: Sequence[tuple[str, list[int]]], ranking: Ranking) -> float:
    return float(np.mean([reciprocal(ranking(query), right) for query, right in queries])) if queries else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--media", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "media"
    )
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache" / "streamsvc" / "models")
    parser.add_argument(
        "--misses", action="store_true", help="print what the hybrid ranks below the first three"
    )
    parser.add_argument(
        "--grid", action="store_true", help="other fusions and constants, on the half that is not held out"
    )
    chosen = parser.parse_args()

    documents = session(chosen.media)
    texts = [document.quote for document in documents]
    encoder = embed.Encoder(chosen.models / embed.DEFAULT)
    began = time.perf_counter()
    vectors = (
        encoder.vectors(texts, "passage").astype(np.float16).astype(np.float32)
    )  # as a session keeps them
    print(
        f"{len(texts)} documents, {sum(len(text.split()) for text in texts)} words, "
        f"embedded in {time.perf_counter() - began:.2f} s"
    )
    queries = paraphrases(documents)
    exacts = {
        kind: exact(documents, 120, kind)
        for kind in ("two words", "a run of four", "two and an unknown one", "two and a wrong one")
    }
    held = {term for text in texts for term in terms(text)}
    unheard = [word for word in WORDS.split() if not held & set(terms(word))]
    asked = [*(query for query, _ in [*queries, *itertools.chain(*exacts.values())]), *NONSENSE, *unheard]
    near = {query: vectors @ encoder.vectors([query])[0] for query in asked}
    chance = chance_of(encoder.vectors(list(CHANCE_QUERIES)))
    to_any = vectors @ chance.mean.astype(np.float32)
    known = {
        query: timeline_ranking.above_chance(values, to_any, chance.excess(encoder.vectors([query])[0]))
        for query, values in near.items()
    }

    def words(query: str) -> NDArray[np.float64]:
        return timeline_ranking.score(texts, wanted(query))

    def meaning(query: str) -> NDArray[np.float64]:
        return timeline_ranking.score(texts, ["no such word"], known[query])

    def by_rank(query: str) -> NDArray[np.float64]:
        """Reciprocal rank fusion with k = 60 (Cormack, Clarke and Buettcher 2009)."""
        both = (words(query), meaning(query))
        ranks = [np.where(scores > 0, 1 / (60 + (-scores).argsort().argsort()), 0.0) for scores in both]
        return ranks[0] + ranks[1]

    def hybrid(query: str) -> NDArray[np.float64]:
        return timeline_ranking.score(texts, wanted(query), known[query])

    def unfloored(query: str) -> NDArray[np.float64]:
        return timeline_ranking.score(texts, wanted(query), near[query])

    ways: dict[str, Ranking] = {"BM25": words, "embedding": meaning, "rank fusion": by_rank, "hybrid": hybrid}
    ways["no floor"] = unfloored
    halves = {"paraphrased, chosen on": queries[::2], "paraphrased, held out": queries[1::2], **exacts}
    print(f"{'mean reciprocal rank':28}" + "".join(f"{name:>14}" for name in ways))
    for name, half in halves.items():
        print(f"{name + f' ({len(half)})':28}" + "".join(f"{mean(half, way):14.3f}" for way in ways.values()))
    nothing = (NONSENSE, unheard[::2], unheard[1::2])
    names = ("nonsense", "one word, chosen on", "one word, held out")
    for name, nonsense in zip(names, nothing, strict=True):
        hits = [[int((way(query) > 0).sum()) for query in nonsense] for way in (words, unfloored, hybrid)]
        means = ", ".join(
            f"{np.mean(each):.2f} ({np.mean([count > 0 for count in each]):.0%})" for each in hits
        )
        print(
            f"hits of {len(nonsense)} queries for nothing ({name}) by words, without a floor, hybrid: {means}"
        )
    topics = topics_of_watches.scores(encoder, embed.Ranker(chosen.models / embed.RANKER), queries, texts)
    topics_of_watches.show("chosen on", documents, queries[::2], topics)
    topics_of_watches.show("held out", documents, queries[1::2], topics)
    if chosen.grid:
        for threshold in (0.6, 0.64, 0.68, 0.7, 0.72, 0.76, 0.8):  # of topics
            topics_of_watches.show("chosen on", documents, queries[::2], topics, threshold)
        grid(queries[::2], list(itertools.chain(*exacts.values())), hybrid)
    if chosen.misses:
        for query, right in queries:
            if (worth := reciprocal(hybrid(query), right)) < 0.34:
                best = int(hybrid(query).argmax())
                print(
                    f"{worth:.2f}  {query}\n        first: {texts[best]}\n"
                    f"        right: {texts[right[0]]} ({max(known[query][right]):.2f})"
                )


def wanted(query: str) -> list[str]:
    return list(dict.fromkeys(terms(query)))


def grid(
    queries: Sequence[tuple[str, list[int]]], exacts: Sequence[tuple[str, list[int]]], hybrid: Ranking
) -> None:
    """Print the figures of other constants of the hybrid ranking."""
    for timeline_ranking.UNRELATED in (0.7, 0.74, 0.76, 0.78, 0.8, 0.82):
        for timeline_ranking.SIMILARITY_WEIGHT in (0.5, 0.75, 1.0, 1.5, 2.0, 3.0):
            none = np.mean([(hybrid(query) > 0).sum() for query in NONSENSE])
            print(
                f"unlike {timeline_ranking.UNRELATED:.2f} weight {timeline_ranking.SIMILARITY_WEIGHT:.2f}: "
                f"paraphrased {mean(queries, hybrid):.3f} exact {mean(exacts, hybrid):.3f} "
                f"hits for nonsense {none:.1f}"
            )


if __name__ == "__main__":
    main()
