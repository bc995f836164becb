"""When each word of a recording ends: from its truth, or from an offline decode by the same model.

Latency is counted from the end of a word, so every reference needs these times.
"""

from __future__ import annotations

import numpy as np

from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import Clip, Samples, ascending
from streamsvc.evaluation.score_captions import Aligner, Reference, norm

DECODE_DEADLINE = 120.0  # seconds for one offline decode
WINDOW = 20.0  # seconds of audio in one decode
CUT_SEARCH = 8.0  # last seconds of a window in which its end is chosen
CUT_FRAME = 4800  # samples: 0.3 s whose mean level is compared
CUT_STEP = 1600  # samples: 0.1 s between two candidates for the cut
BEAM = 5


async def reference_of(clip: Clip, hear: Role, language: str | None) -> tuple[Reference, str]:
    """The words with their ends, and the origin of the ends: "truth" or "decode".

    A word of the truth that the decode missed gets a time between its neighbours. Without a truth, the
    decoded words are the reference.
    """
    truth = clip.truth
    if truth is not None and (truth.ends is not None or not truth.words):
        return Reference(truth.words, truth.ends or ()), "truth"
    decoded = await _decode(clip.samples, hear, language)
    if truth is None:
        ends = ascending([end for _, end in decoded])
        return Reference(tuple(word for word, _ in decoded), ends, true=False), "decode"
    words = truth.words
    pairs, _ = Aligner(words).match([word for word, _ in decoded], len(words) if clip.cut else None)
    if clip.cut:  # the truth covers the whole recording, the clip only its first part
        words = words[: pairs[-1][0] + 1 if pairs else 0]
    if not pairs:
        return Reference(words, (clip.seconds,) * len(words)), "decode"
    known = [index for index, _ in pairs]
    times = [decoded[index][1] for _, index in pairs]
    return Reference(words, ascending(np.interp(range(len(words)), known, times).tolist())), "decode"


async def _decode(samples: Samples, hear: Role, language: str | None) -> list[tuple[str, float]]:
    """(word, end in seconds) of an offline decode in windows of at most WINDOW seconds."""
    words: list[tuple[str, float]] = []
    window = int(WINDOW * SAMPLE_RATE)
    if language is None:
        detected = await hear.call(
            "detect_language", {"samples": samples[:window]}, deadline_in_s=DECODE_DEADLINE
        )
        language = str(detected["language"])
    start = 0
    while start < len(samples):
        end = start + window
        if end < len(samples):
            end = _quietest(samples, end)
        payload = {"samples": samples[start:end], "language": language, "beam": BEAM}
        result = await hear.call("transcribe", payload, deadline_in_s=DECODE_DEADLINE)
        words += [
            (word, start / SAMPLE_RATE + finish)
            for text, _, finish, _ in result["words"]
            for word in norm(text)
        ]
        start = end
    return words


def _quietest(samples: Samples, end: int) -> int:
    """The middle of the quietest CUT_FRAME in the last CUT_SEARCH seconds before `end`."""
    first = end - int(CUT_SEARCH * SAMPLE_RATE)
    levels = [
        float(np.abs(samples[at : at + CUT_FRAME]).mean()) for at in range(first, end - CUT_FRAME, CUT_STEP)
    ]
    return first + int(np.argmin(levels)) * CUT_STEP + CUT_FRAME // 2
