"""What stands for a stretch of speech shares its terms; asides do not stand for it."""

from __future__ import annotations

from collections import Counter

from streamsvc.core.compact_words import CompactWords
from streamsvc.core.types import Word
from streamsvc.timeline.centrality import Background, centrality, most_central, standing
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from streamsvc.timeline.transcript import Sentence
from tests.builders.units import cue

TOPICS = ("harbour", "lantern", "glacier", "orchard", "violin", "furnace")


def sentence(text: str, start: float = 0.0) -> Sentence:
    words = [Word(word, start + n * 0.4, start + n * 0.4 + 0.3) for n, word in enumerate(text.split())]
    return Sentence(CompactWords(words))


def hour(timeline: Timeline) -> Timeline:
    """A talk that dwells on one thing per ten minutes, four sentences a minute."""
    for minute in range(60):
        topic = TOPICS[minute // 10]
        texts = (
            "Well, let us go on.",
            f"The old {topic} was repaired in the year {1800 + minute}.",
            "And so on.",
            f"A {topic} is costly.",
        )
        for part, text in enumerate(texts):
            timeline.add(cue(text, minute * 60.0 + part * 15.0))
    return timeline


def test_the_sentence_that_shares_its_terms_with_the_others_stands_for_them() -> None:
    stretch = [
        sentence("Good evening to all of you."),
        sentence("The night ferry crosses the northern strait."),
        sentence("Whoever takes the ferry at night sees the strait by moonlight."),
    ]
    assert "ferry" in most_central(stretch, Background.of(one.text for one in stretch)).text


def test_a_fragment_stands_for_nothing_beside_a_sentence() -> None:
    stretch = [sentence("Ferry, ferry, ferry."), sentence("Somebody is painting the old ferry.")]
    assert standing(stretch, []) is stretch[1]
    assert standing(stretch[:1], []) is stretch[0]


def test_a_text_without_content_words_tells_nothing() -> None:
    assert centrality("It is what it is.", Counter(), Background.of(["the ferry"])) == 0.0


def test_what_told_most_of_each_minute_stays_when_the_limit_of_the_timeline_is_long_past() -> None:
    timeline = hour(Timeline(standing, TimelineLimits(sentences=24)))
    assert len(timeline.sentences) < 24 + 60 + 8
    assert timeline.dropped["sentences"] > 150
    for minute, topic in ((0, "harbour"), (10, "lantern"), (40, "violin")):
        kept = [one for one in timeline.sentences if 60.0 * minute <= one.start < 60.0 * (minute + 10)]
        assert len(kept) >= 8
        assert sum(topic in one.text for one in kept) >= len(kept) - 1
