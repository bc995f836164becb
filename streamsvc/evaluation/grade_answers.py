"""Grades answers by the rules of the scenarios' grader and by those of the published question sets. Pure.

A question is an entry of a scenario's "qa": {"id", "type": "open" | "yes/no" | "when", "question", "answer",
"keywords", "evidence_s": [start, end], "modality", "answerable"?: false, "kind"?, "points"?}. An answer is
the body of `answer.done`: {"text", "supported"?, "outcome"?, "evidence": [{"start", "end", "quote"?}]},
seconds throughout. A test compares `grade`, `cited` and `kind` with the grader of the shared bench.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from streamsvc.evaluation.score_captions import align

Question = Mapping[str, Any]
Reply = Mapping[str, Any]

MOST_WORDS = 40  # of an open answer, and of a passage that is pointed at
FIRST_PASSAGES = 3  # among which `among_first` looks
NEAR = 2.0  # seconds; tolerance of a named time
SPARE = 5.0  # seconds of evidence that may be cited beyond twice the length of the truth

_REFUSAL = re.compile(
    r"\b(i (have not|haven't|did not|didn't|can ?not|can't|do not|don't)"
    r"|not (been )?(seen|heard|mentioned|shown)|unknown|cannot tell|no evidence)\b",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b(?:(\d+):)?(\d{1,2}):(\d{2}(?:\.\d+)?)\b|\b(\d+(?:\.\d+)?)\s*s(?:ec|econds?)?\b")


# --- answers about a scenario -------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    """Lower-case words of Latin letters and digits; apostrophes are dropped."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower().replace("\u2019", "'").replace("'", "")).split()


def contains_phrase(phrase: str, text: str) -> bool:
    """Whether a text contains a phrase by whole words.

    The last word may be a prefix (wither: withered) if it has three letters or more.
    """
    *firsts, last = words(phrase) or [""]
    tokens = words(text)
    size = len(firsts)
    return bool(last) and any(
        tokens[start : start + size] == firsts
        and (tokens[start + size] == last or (len(last) > 2 and tokens[start + size].startswith(last)))
        for start in range(len(tokens) - size)
    )


def times(text: str) -> list[float]:
    """All clock times and durations in a text, in seconds."""
    return [
        float(seconds) if seconds else float(hours or 0) * 3600 + float(minutes) * 60 + float(rest)
        for hours, minutes, rest, seconds in _CLOCK.findall(text)
    ]


def is_refusal(answer: Reply) -> bool:
    """Whether an answer declines: by `supported` false, or by its words unless they begin with yes or no."""
    text = str(answer.get("text", ""))
    first = (words(text) or [""])[0]
    return answer.get("supported") is False or (bool(_REFUSAL.search(text)) and first not in ("yes", "no"))


def grade(question: Question, answer: Reply) -> str:
    """The verdict: "right", "wrong", "refused", "pointed" or "pointed wrong".

    Open: at least one keyword, in at most MOST_WORDS words. Yes/no: the first word decides. When: the first
    cited interval starts within NEAR seconds of the truth, or, without evidence, a time in the text does.
    Outcome "closest" claims nothing: "pointed" where the first passage holds a keyword, which decides no
    yes/no question. Where the question says "answerable": false, refusing and pointing are right and all else
    wrong.
    """
    text = str(answer.get("text", ""))
    declined, closest = is_refusal(answer), is_closest(answer)
    if question.get("answerable") is False:
        return "right" if declined or closest else "wrong"
    if closest:
        return "pointed" if _points_at(question, answer, 1) else "pointed wrong"
    if declined:
        return "refused"
    if question["type"] == "yes/no":
        good = (words(text) or [""])[0] == words(question["answer"])[0]
    elif question["type"] == "when":
        named = [item["start"] for item in answer.get("evidence", [])[:1]] or times(text)
        good = any(abs(at - question["evidence_s"][0]) <= NEAR for at in named)
    else:
        good = len(words(text)) <= MOST_WORDS and any(
            contains_phrase(keyword, text) for keyword in question["keywords"]
        )
    return "right" if good else "wrong"


def is_closest(answer: Reply) -> bool:
    """Whether an answer claims nothing and names the nearest passages."""
    return answer.get("outcome") == "closest"


def is_told(answer: Reply) -> bool:
    """Whether an answer states something: it neither declines nor only points."""
    return not is_refusal(answer) and not is_closest(answer)


def among_first(question: Question, answer: Reply) -> bool:
    """Whether an answerable question is right, or one of the FIRST_PASSAGES pointed at holds a keyword."""
    if question.get("answerable") is False:
        return False
    if is_closest(answer):
        return _points_at(question, answer, FIRST_PASSAGES)
    return grade(question, answer) == "right"


def points_share(question: Question, answer: Reply) -> float | None:
    """The share of a question's "points" of which the answer has at least one phrase.

    0 where the answer tells nothing. None: the question has no points.
    """
    groups = question.get("points")
    if not groups:
        return None
    if not is_told(answer):
        return 0.0
    text = str(answer.get("text", ""))
    return sum(any(contains_phrase(phrase, text) for phrase in group) for group in groups) / len(groups)


def _points_at(question: Question, answer: Reply, count: int) -> bool:
    """Whether one of the first `count` quoted passages holds a keyword."""
    passages = [
        " ".join(str(item.get("quote", "")).split()[:MOST_WORDS])
        for item in (answer.get("evidence") or ())[:count]
    ]
    return question["type"] != "yes/no" and any(
        contains_phrase(keyword, passage) for passage in passages for keyword in question["keywords"]
    )


def cited(question: Question, answer: Reply) -> bool:
    """Whether a cited interval overlaps the truth.

    All cited intervals together may be at most twice as long as the truth, plus SPARE seconds.
    """
    start, end = question["evidence_s"]
    spans = [(item["start"], item["end"]) for item in answer.get("evidence", [])]
    overlaps = any(first <= end and last >= start for first, last in spans)
    return overlaps and sum(last - first for first, last in spans) <= 2 * (end - start) + SPARE


def kind(question: Question) -> str:
    """The kind of a question: "speech", "screen", "time", "object", "attribute", "sound" or "absent"."""
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
    """The reported verdict: "right", "pointed", "pointed wrong", "declined", "wrong" or "hallucinated".

    "hallucinated": it affirms what never was or what cannot be known here.
    """
    result = grade(question, answer)
    if result == "refused":
        return "declined"
    never = question.get("answerable") is False or (
        question["type"] == "yes/no" and words(question["answer"])[0] == "no"
    )
    return "hallucinated" if result == "wrong" and never else result


def honest(question: Question, answer: Reply) -> bool:
    """Whether an answer is right, or claims nothing.

    For a question about what never was: it neither affirms nor invents.
    """
    return verdict(question, answer) not in ("wrong", "hallucinated")


# --- answers about published question sets ------------------------------------------------------------------

_ARTICLES = {"a", "an", "the"}
_NUMBERS = ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_AS_DIGITS = {name: str(max(0, index - 1)) for index, name in enumerate(_NUMBERS)}


def vqa_form(text: str) -> str:
    """An answer normalised as by VQA's evaluation.

    Lower case, no articles or punctuation, small numbers as digits.

    Source: VQA's `vqaEval.py` (processPunctuation, processDigitArticle). Instead of its table of
    contractions, apostrophes are dropped on both sides.
    """
    text = re.sub(r"(?<=\d),(?=\d)", "", text.lower().replace("\u2019", "'").replace("'", ""))
    text = re.sub(r"\.(?!\d)", "", text)
    tokens = re.sub(r"[;/\[\]\"{}()=+\\_\-><@`,?!]", " ", text).split()
    return " ".join(_AS_DIGITS.get(word, word) for word in tokens if word not in _ARTICLES)


def vqa(text: str, answers: Sequence[str]) -> float:
    """VQA accuracy (Antol et al., 2015).

    The mean over the annotators of min(n / 3, 1), n the number of others who gave the same answer. With three
    annotators or fewer, all count.
    """
    given = [vqa_form(answer) for answer in answers]
    candidate = vqa_form(text)
    same = [answer == candidate for answer in given]
    if len(given) <= 3:
        return min(1.0, sum(same) / max(1, len(given)))
    return sum(min(1.0, (sum(same) - left_out) / 3) for left_out in same) / len(same)


def anls(text: str, answers: Sequence[str]) -> float:
    """Normalised Levenshtein similarity of the nearest answer; 0 below 0.5 (DocVQA, Mathew et al., 2021)."""
    candidate = " ".join(text.lower().split())
    best = 0.0
    for answer in answers:
        truth = " ".join(answer.lower().split())
        longest = max(len(candidate), len(truth))
        distance = align(truth, candidate)[1] / longest if longest else 0.0
        best = max(best, 1.0 - distance if distance < 0.5 else 0.0)
    return best


def relaxed(text: str, answers: Sequence[str]) -> float:
    """ChartQA's relaxed accuracy: numbers within 5 %, other text equal but for case (Masry et al., 2022)."""
    return float(any(_relaxed(text.strip(), answer.strip()) for answer in answers))


def _relaxed(candidate: str, truth: str) -> bool:
    number, goal = _number(candidate), _number(truth)
    if number is None or not goal:  # no relative tolerance around zero
        return candidate.lower() == truth.lower() or (number is not None and number == goal)
    return abs(number - goal) / abs(goal) <= 0.05


def _number(text: str) -> float | None:
    text = text.replace(",", "").replace("$", "")
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


RULES = {"vqa": vqa, "anls": anls, "relaxed": relaxed}


def short_answer(text: str) -> str:
    """The part of an answer that is compared with short answers.

    Yes or no, a summary, a quotation, else all of it. The published systems answer in one word, this service
    quotes. The rule is the same for every set and independent of the question.
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


# --- speech -------------------------------------------------------------------------------------------------

_FILLERS = {"uh", "um", "hmm", "mm", "mhm", "ah", "er"}
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_ONES, _TENS = _SMALL.split(), ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spoken_form(tokens: Sequence[str]) -> list[str]:
    """Words (see `score_captions.norm`) without fillers, integers below a million in words.

    LibriSpeech writes no digits.
    """
    spoken: list[str] = []
    for word in tokens:
        if word.isascii() and word.isdigit() and len(word) <= 6:
            spoken += number_words(int(word))
        elif word not in _FILLERS:
            spoken.append(word)
    return spoken


def number_words(number: int) -> list[str]:
    """A number from 0 to 999,999 in words."""
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10 - 2], *(number_words(number % 10) if number % 10 else [])]
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    return [*number_words(number // size), name, *(number_words(number % size) if number % size else [])]
