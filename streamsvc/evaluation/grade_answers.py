"""Grades of answers: by the rules of the scenarios' own grader, and by those of the published question sets. Pure.

A question is an entry of a scenario's "qa": {"id", "type": "open" | "yes/no" | "when", "question", "answer", "keywords", "evidence_s":
[start, end], "modality", "answerable"?: false, "kind"?}. An answer is the body of `answer.done`: {"text", "supported"?, "evidence":
[{"start", "end"}]}, seconds throughout. `grade`, `cited` and `kind` are held equal to the grader of the shared bench by a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from streamsvc.evaluation.score_captions import align

Question = Mapping[str, Any]
Reply = Mapping[str, Any]

MOST_WORDS = 40  # of an open answer
NEAR = 2.0  # seconds by which a named time may be off
SPARE = 5.0  # seconds of evidence that may be cited beyond twice what the truth needs

_REFUSAL = re.compile(
    r"\b(i (have not|haven't|did not|didn't|can ?not|can't|do not|don't)"
    r"|not (been )?(seen|heard|mentioned|shown)|unknown|cannot tell|no evidence)\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)\b|\b(\d+(?:\.\d+)?)\s*s(?:ec|econds?)?\b")


# --- answers about a scenario -------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Lower-case words of Latin letters and digits; apostrophes are dropped."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower().replace("\u2019", "'").replace("'", "")).split()


def has(phrase: str, text: str) -> bool:
    """Whether a text holds a phrase by whole words; its last word counts by its beginning (wither: withered), from three letters on."""
    *firsts, last = words(phrase) or [""]
    found = words(text)
    size = len(firsts)
    return bool(last) and any(
        found[place : place + size] == firsts
        and (found[place + size] == last or (len(last) > 2 and found[place + size].startswith(last)))
        for place in range(len(found) - size)
    )


def times(text: str) -> list[float]:
    """The clock times and seconds that a text names, in seconds."""
    return [
        float(seconds) if seconds else float(hours or 0) * 3600 + float(minutes) * 60 + float(rest)
        for hours, minutes, rest, seconds in _CLOCK.findall(text)
    ]


def refused(answer: Reply) -> bool:
    """Whether an answer declines: it says so by `supported`, or in words without a yes or no before them."""
    text = str(answer.get("text", ""))
    first = (words(text) or [""])[0]
    return answer.get("supported") is False or (bool(_REFUSAL.search(text)) and first not in ("yes", "no"))


def grade(question: Question, answer: Reply) -> str:
    """The verdict: "right", "wrong" or "refused".

    Open: at least one keyword, in at most MOST_WORDS words. Yes/no: the first word decides. When: the first cited interval starts
    within NEAR seconds of the truth, or, without evidence, a time in the text does. Where the question says "answerable": false,
    refusing is right and all else wrong.
    """
    text = str(answer.get("text", ""))
    declined = refused(answer)
    if question.get("answerable") is False:
        return "right" if declined else "wrong"
    if declined:
        return "refused"
    if question["type"] == "yes/no":
        good = (words(text) or [""])[0] == words(question["answer"])[0]
    elif question["type"] == "when":
        named = [item["start"] for item in answer.get("evidence", [])[:1]] or times(text)
        good = any(abs(at - question["evidence_s"][0]) <= NEAR for at in named)
    else:
        good = len(words(text)) <= MOST_WORDS and any(has(keyword, text) for keyword in question["keywords"])
    return "right" if good else "wrong"


def cited(question: Question, answer: Reply) -> bool:
    """Whether some cited interval meets the truth, and all together are at most twice as long as it, and SPARE seconds."""
    start, end = question["evidence_s"]
    spans = [(item["start"], item["end"]) for item in answer.get("evidence", [])]
    met = any(first <= end and last >= start for first, last in spans)
    return met and sum(last - first for first, last in spans) <= 2 * (end - start) + SPARE


def kind(question: Question) -> str:
    """What is asked for: "speech", "screen", "time", "object", "attribute", "sound" or "absent"; figures are reported by it."""
    if question.get("answerable") is False:
        return "absent"
    if question["type"] == "when":
        return "time"
    if re.search(r"\bcolou?r|wearing\b", question["question"], re.IGNORECASE):
        return "attribute"
    modality = str(question["modality"])
    if modality.startswith("vision"):
        return "object"
    return {"ocr": "screen", "audio": "sound"}.get(modality, "speech")


def verdict(question: Question, answer: Reply) -> str:
    """The verdict for people: "right", "declined", "wrong", or "hallucinated": it affirms what never was, or what nobody here can know."""
    found = grade(question, answer)
    if found == "refused":
        return "declined"
    never = question.get("answerable") is False or (
        question["type"] == "yes/no" and words(question["answer"])[0] == "no"
    )
    return "hallucinated" if found == "wrong" and never else found


def honest(question: Question, answer: Reply) -> bool:
    """Whether an answer to a question about what never was neither affirms nor invents: it declines, or says no to a yes/no question."""
    return verdict(question, answer) in ("right", "declined")


# --- answers about published question sets ------------------------------------------------------------------------

_ARTICLES = {"a", "an", "the"}
_NUMBERS = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_AS_DIGITS = {name: str(max(0, place - 1)) for place, name in enumerate(_NUMBERS)}


def plain(text: str) -> str:
    """An answer as VQA's evaluation compares it: lower case, no articles or punctuation, small numbers as digits.

    Source: VQA's `vqaEval.py` (processPunctuation, processDigitArticle). Instead of its table of contractions, apostrophes are
    dropped on both sides.
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", text.lower().replace("\u2019", "'").replace("'", ""))
    text = re.sub(r"\.(?!\d)", "", text)
    found = re.sub(r"[;/\[\]\"{}()=+\\_\-><@`,?!]", " ", text).split()
    return " ".join(_AS_DIGITS.get(word, word) for word in found if word not in _ARTICLES)


def vqa(text: str, answers: Sequence[str]) -> float:
    """VQA accuracy: min(n / 3, 1), n of the other people gave the same answer; the mean over leaving each of them out (Antol et al., 2015).

    With three people or fewer nobody is left out.
    """
    given, said = [plain(answer) for answer in answers], plain(text)
    same = [answer == said for answer in given]
    if len(given) <= 3:
        return min(1.0, sum(same) / max(1, len(given)))
    return sum(min(1.0, (sum(same) - left) / 3) for left in same) / len(same)


def anls(text: str, answers: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity of the nearest answer; 0 below a half (DocVQA, Mathew et al., 2021)."""
    said = " ".join(text.lower().split())
    best = 0.0
    for answer in answers:
        truth = " ".join(answer.lower().split())
        longest = max(len(said), len(truth))
        distance = align(truth, said)[1] / longest if longest else 0.0
        best = max(best, 1.0 - distance if distance < 0.5 else 0.0)
    return best


def relaxed(text: str, answers: Sequence[str]) -> float:
    """ChartQA's accuracy: a number may be off by 5 %, all else must be equal but for case (Masry et al., 2022)."""
    return float(any(_relaxed(text.strip(), answer.strip()) for answer in answers))


def _relaxed(said: str, truth: str) -> bool:
    number, goal = _number(said), _number(truth)
    if number is None or not goal:  # nothing is near zero
        return said.lower() == truth.lower() or (number is not None and number == goal)
    return abs(number - goal) / abs(goal) <= 0.05


def _number(text: str) -> float | None:
    text = text.replace(",", "").replace("$", "")
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


RULES = {"vqa": vqa, "anls": anls, "relaxed": relaxed}


def short(text: str) -> str:
    """The few words of an answer in a sentence that sets of short answers compare: a yes or no, a summing up, a quotation, else all of it.

    The sets' own systems answer in one word; ours quotes what it saw. The same for every set, and no question is looked at.
    """
    text = " ".join(text.split())
    first = (words(text) or [""])[0]
    if first in ("yes", "no"):
        return first
    if summed := re.search(r"\bIn short: (.+?)\.?$", text):
        return summed[1]
    if quoted := re.search(r"[\u201c\"\u2018](.+?)[\u201d\"\u2019](?!\w)", text):
        return quoted[1].rstrip(".,;")
    return re.sub(r"\s*[(\[]?\b(?:at )?\d{1,2}:\d{2}(?:\.\d+)?\b[)\]]?", "", text).strip(" .")


# --- speech -------------------------------------------------------------------------------------------------------

_FILLERS = {"uh", "um", "hmm", "mm", "mhm", "ah", "er"}
_SMALL = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ONES, _TENS = _SMALL.split(), ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spoken(found: Sequence[str]) -> list[str]:
    """Words as `score.norm` gives them, without fillers, numbers below a million as they are said: LibriSpeech writes no digits."""
    told: list[str] = []
    for word in found:
        if word.isascii() and word.isdigit() and len(word) <= 6:
            told += said(int(word))
        elif word not in _FILLERS:
            told.append(word)
    return told


def said(number: int) -> list[str]:
    """A number from 0 to 999,999 in words."""
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10 - 2], *(said(number % 10) if number % 10 else [])]
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    return [*said(number // size), name, *(said(number % size) if number % size else [])]
