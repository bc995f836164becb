"""What an answer may spend before its deadline: waiting for a keyframe, tokens of the window, tokens of the phrase. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.degradation import Costs

KEYFRAME_WAIT = 0.3  # seconds that an answer waits at most for a picture of now
_LOOKUP = 0.05  # seconds to find evidence in the time line and to publish
_PHRASE = (8, 48)  # tokens of the model's phrase: fewer say nothing, more are never wanted
_WINDOW = 64  # tokens: a shorter window holds no evidence


@dataclass(frozen=True, slots=True)
class Plan:
    """What an answer may spend. `left_out` names what did not fit: "keyframe", "phrase", "window", or "answer": do not start."""

    keyframe_wait: float = 0.0  # seconds; 0: answer from what has been seen
    window_tokens: int = 0
    phrase_tokens: int = 0  # 0: the evidence is quoted, the model is not asked
    left_out: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the answer may be started at all."""
        return "answer" not in self.left_out


def plan(costs: Costs, now: float, deadline: float, *, window: int, keyframe: bool = False) -> Plan:
    """What fits between `now` and `deadline` (both monotonic seconds), the dearest truth first: evidence, then a picture, then a phrase.

    Args:
        costs: as measured.
        now: this instant.
        deadline: when the whole answer is due.
        window: tokens of the window that the level allows.
        keyframe: the question is about what is seen now.
    """
    left = deadline - now - _LOOKUP
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
    read, write = costs.of("think", "prompt"), costs.of("think", "token")
    least, most = _PHRASE
    tokens = min(window, int((left - least * write) / read) if read else window)
    if tokens < min(window, _WINDOW) or tokens <= 0:
        return Plan(wait, 0, 0, (*left_out, "phrase"))
    if tokens < window:
        left_out.append("window")
    phrase = min(most, int((left - tokens * read) / write) if write else most)
    return Plan(wait, tokens, max(least, phrase), tuple(left_out))
