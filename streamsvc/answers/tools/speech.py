"""What was said at a time, and whether somebody speaks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from streamsvc.answers.finding import Finding, quoted, timestamp
from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.summary import summary
from streamsvc.answers.tools.wording import duration, fitting, lasted, moment, nth, sentence
from streamsvc.core.types import Evidence, Word
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.transcript import TALK_PAUSE, Sentence

QUOTED = 34  # words of speech in one answer
NEAR = 2.0  # seconds around a moment in which a sentence is what was said then
BEGUN = 5  # words up to which a sentence has only just begun
SPEAKING = 3.0  # seconds after the last word for which somebody counts as speaking
MAX_UNHEARD = 1.0  # seconds of voice without words in a stretch of which silence is told


def transcript(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """What was said: in a span, in the n-th talk, or last."""
    spoken = [one for one in timeline.sentences if one.start <= now]
    if arguments.span is None and arguments.ordinal not in (None, -1):
        talk = nth_talk(timeline, arguments.ordinal)
        return _quoted_sentences(talk) if talk else None
    start, end = arguments.span or (now, now)
    if end - start > NEAR:
        return _between(timeline, arguments, now)
    if start >= now - NEAR:
        return _quoted_sentences(_last_whole(spoken))  # what was last said, however long ago
    near = [one for one in spoken if one.start <= end + NEAR and one.end >= start - NEAR]
    return _quoted_sentences([one for one in near if one.start <= end and one.end >= start] or near[:1])


def _between(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """The words of a span; more than one answer holds are told by their main points."""
    start, end = arguments.span or (0.0, now)
    words = timeline.words_between(start, end)
    if not words:
        return None
    if len(words) > QUOTED and (points := summary(timeline, Arguments(span=(start, end)), now)):
        return points
    return _quoted(words)


def _last_whole(spoken: list[Sentence]) -> list[Sentence]:
    """The last sentence, with the one before it where both are short, or it has only just begun."""
    if len(spoken) < 2 or spoken[-1].start - spoken[-2].end >= TALK_PAUSE:
        return spoken[-1:]
    before, last = len(spoken[-2].words), len(spoken[-1].words)
    most = QUOTED if last < BEGUN else QUOTED // 2
    return spoken[-2:] if before + last <= most else spoken[-1:]


def _quoted_sentences(sentences: Sequence[Sentence]) -> Finding | None:
    return _quoted([word for one in sentences for word in one.words])


def _quoted(words: Sequence[Word]) -> Finding | None:
    """Words as an answer, from the first on."""
    if not words:
        return None
    part = words[:QUOTED]
    text = " ".join(word.text for word in part)
    span = Evidence(part[0].start, part[-1].end, "speech", text)
    told = quoted(text, QUOTED) + (" \u2026" if len(words) > QUOTED else "")
    return Finding(f'At {timestamp(span.start)}: "{told}"', (span,))


# --- talks and pauses ---


def nth_talk(timeline: Timeline, ordinal: int | None) -> list[Sentence]:
    """The n-th talk, the first by default; [] if there are not so many."""
    talks = timeline.talks
    place = (ordinal or 1) - 1 if (ordinal or 1) > 0 else (ordinal or 1)
    return talks[place] if -len(talks) <= place < len(talks) else []


def speaker(timeline: Timeline, arguments: Arguments, now: float) -> Finding | None:
    """Whether somebody speaks, now or in a span; how many talks there were, when, and how long."""
    talks = [_as_evidence(talk) for talk in timeline.talks if talk[0].start <= now]
    if arguments.form == "how often" or (arguments.form == "list" and talks):
        at, _ = fitting((timestamp(talk.start) for talk in talks), 24)
        text = f"{len(talks)} so far, from {at} on" if talks else "none so far"
        return _counted(sentence(text), talks, now)
    if arguments.form in ("when", "how long"):
        chosen = nth(talks, arguments.ordinal or -1)
        if chosen is None:
            return None
        return moment(chosen) if arguments.form == "when" else _how_long(talks, chosen, timeline, now)
    start, end = arguments.span or (max(0.0, now - SPEAKING), now)
    if end - start < SPEAKING:
        start, end = max(0.0, start - SPEAKING / 2), min(now, end + SPEAKING / 2)
    is_now = end >= now - SPEAKING and end - start <= 2 * SPEAKING
    words = timeline.words_between(start, end)
    if not words and voice_between(timeline, start, end) > MAX_UNHEARD:
        return None  # somebody is heard, and not understood
    if words:
        if is_now:
            words = [word for one in _last_whole(timeline.sentences[-2:]) for word in one.words]
        return _spoken(words, arguments, is_now=is_now)
    return _silent(timeline, (start, end), is_now=is_now)


def is_speaking(timeline: Timeline, now: float) -> bool:
    """Whether a word was heard a moment ago."""
    return bool(timeline.words_between(now - SPEAKING, now + 1.0))


def voice_between(timeline: Timeline, start: float, end: float) -> float:
    """Seconds between two times in which somebody spoke, by voice activity."""
    total, since = 0.0, None
    for speech in timeline.speeches:
        if speech.active:
            since = speech.at
        elif since is not None:
            total += max(0.0, min(end, speech.at) - max(start, since))
            since = None
    return total + (max(0.0, end - max(start, since)) if since is not None else 0.0)


def _spoken(words: Sequence[Word], arguments: Arguments, is_now: bool) -> Finding:
    """That somebody speaks, with the first of the words."""
    text = " ".join(word.text for word in words)
    span = Evidence(words[0].start, words[-1].end, "speech", text)
    told = f'{timestamp(span.start)}: "{quoted(text, 26)}"'
    answer = f"somebody is speaking, at {told}" if is_now else f"somebody spoke, at {told}"
    return Finding(sentence(f"Yes, {answer}" if arguments.form == "yes/no" else answer), (span,))


def _silent(timeline: Timeline, span: tuple[float, float], is_now: bool) -> Finding | None:
    """That nobody speaks; None where what was said then is not known."""
    start, end = span
    lost = start < timeline.folded_until or any(gap.start < end and gap.end > start for gap in timeline.gaps)
    if lost:
        return None
    last = next((one for one in reversed(timeline.sentences) if one.end <= end), None)
    since = last.end if is_now and last is not None else 0.0 if is_now else start
    if not is_now:
        text = f"nobody spoke between {timestamp(start)} and {timestamp(end)}"
    elif last is None:
        text = "nobody has spoken so far"
    else:
        text = f"nobody has spoken since {timestamp(since)}"
    quote = f"no speech from {timestamp(since)} to {timestamp(end)}"
    # "No" whatever the form: it answers who speaks as well as whether.
    return Finding(sentence(f"No, {text}"), (Evidence(since, end, "timeline", quote),))


def _how_long(talks: Sequence[Evidence], chosen: Evidence, timeline: Timeline, now: float) -> Finding:
    """The length of a talk, with the pause before it."""
    ongoing = chosen is talks[-1] and is_speaking(timeline, now)
    span = Evidence(chosen.start, now if ongoing else chosen.end, chosen.kind, chosen.quote)
    told = lasted(span, now)
    place = talks.index(chosen)
    if not place:
        return told
    pause = duration(chosen.start - talks[place - 1].end)
    return Finding(f"{told.text} The pause before it: {pause}.", told.evidence, told.values)


def _counted(text: str, talks: Sequence[Evidence], now: float) -> Finding:
    evidence = tuple(talks[:8]) or (Evidence(0.0, now, "timeline", "no speech"),)
    return Finding(text, evidence, (str(len(talks)),))


def _as_evidence(talk: Sequence[Sentence]) -> Evidence:
    return Evidence(talk[0].start, talk[-1].end, "speech", quoted(talk[0].text, 12))
