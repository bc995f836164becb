"""Plan of an answer within its deadline: wait for a picture, ask a model, tell what there is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.degradation import Costs

KEYFRAME_WAIT = 0.3  # maximum seconds that an answer waits for a current picture
FALLBACK_SECONDS = 0.4  # before the deadline: the reader's answer is told, if no model's sentence has come
_OVERHEAD = 0.05  # seconds to search the timeline and to publish
_MIN_TOKENS = 12  # of a sentence that says anything


@dataclass(frozen=True, slots=True)
class Plan:
    """What an answer may use before its deadline.

    `keyframe_wait`: seconds; 0: answer from the sights so far. `fallback_at`: monotonic seconds at which the
    extractive reader's answer is told, if no sentence of a model has come. `asks_model`: a sentence may come
    before that.
    """

    fits: bool = True  # False: do not start
    keyframe_wait: float = 0.0
    fallback_at: float = 0.0
    asks_model: bool = True


def plan(costs: Costs, now: float, deadline: float, *, keyframe: bool = False) -> Plan:
    """Plan what fits between `now` and `deadline`.

    Args:
        costs: as measured.
        now: monotonic seconds.
        deadline: monotonic seconds at which the whole answer is due.
        keyframe: the question is about what is shown at this moment.
    """
    left = deadline - now - _OVERHEAD
    if left < 0:
        return Plan(fits=False)
    wait = max(0.0, min(KEYFRAME_WAIT, left - costs.of("see", "frame"))) if keyframe else 0.0
    fallback_at = deadline - min(FALLBACK_SECONDS, left / 2)
    sentence = costs.of("think", "first") + _MIN_TOKENS * costs.of("think", "token")
    return Plan(True, wait, fallback_at, sentence <= fallback_at - now - wait)
