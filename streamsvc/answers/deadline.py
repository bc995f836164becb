"""Plan of an answer within its deadline: keyframe wait, window tokens, phrase tokens. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.degradation import Costs

KEYFRAME_WAIT = 0.3  # maximum seconds that an answer waits for a current picture
_OVERHEAD = 0.05  # seconds to search the timeline and to publish
_MIN_PHRASE, _MAX_PHRASE = 8, 48  # tokens of the model's phrase
_MIN_WINDOW = 64  # tokens; a shorter window holds no evidence


@dataclass(frozen=True, slots=True)
class Plan:
    """What an answer may use before its deadline.

    `left_out` names what did not fit: "keyframe", "phrase", "window", or "answer" (do not start).
    """

    keyframe_wait: float = 0.0  # seconds; 0: answer from the sights so far
    window_tokens: int = 0
    phrase_tokens: int = 0  # 0: the evidence is quoted and the model is not called
    left_out: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the answer may be started at all."""
        return "answer" not in self.left_out


def plan(costs: Costs, now: float, deadline: float, *, window: int, keyframe: bool = False) -> Plan:
    """Plan what fits between `now` and `deadline`, in order of value: evidence, a picture, a phrase.

    Args:
        costs: as measured.
        now: monotonic seconds.
        deadline: monotonic seconds at which the whole answer is due.
        window: tokens of the window that the degradation level allows.
        keyframe: the question is about what is shown at this moment.
    """
    left = deadline - now - _OVERHEAD
    if left < 0:
        return Plan(left_out=("answer",))
    left_out: list[str] = []
    wait = 0.0
    if keyframe:
        wait = min(KEYFRAME_WAIT, left - costs.of("see", "frame"))
        if wait > 0:
            left -= wait + costs.of("see", "frame")
        else:
            wait = 0.0
            left_out.append("keyframe")
    read = costs.of("think", "prompt")
    write = costs.of("think", "token")
    tokens = min(window, int((left - _MIN_PHRASE * write) / read) if read else window)
    if tokens < min(window, _MIN_WINDOW) or tokens <= 0:
        return Plan(wait, 0, 0, (*left_out, "phrase"))
    if tokens < window:
        left_out.append("window")
    phrase = min(_MAX_PHRASE, int((left - tokens * read) / write) if write else _MAX_PHRASE)
    return Plan(wait, tokens, max(_MIN_PHRASE, phrase), tuple(left_out))
