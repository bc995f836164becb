"""What the language models share: how much of a continuation is wanted, and its text as it grows. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from engines import Payload

MAX_TOKENS = 256  # of one continuation
LONGEST_PROMPT = 1000  # tokens; of a longer one the end is kept


def generation_limits(asked: Payload) -> tuple[int, list[str]]:
    """How many tokens at most, and the texts before which to stop: "max_tokens" and "stop" of a request."""
    return max(1, min(int(asked.get("max_tokens", 32)), MAX_TOKENS)), [
        str(stop) for stop in asked.get("stop", []) if stop
    ]


def increments(
    tokens: Iterable[int], decode: Callable[[list[int]], str], stops: Sequence[str]
) -> Iterator[str]:
    """The text that each token adds, if it adds any; after a stop no further token is asked for.

    Args:
        tokens: of the continuation, as they come.
        decode: all tokens so far -> their text.
        stops: texts before which it ends.
    """
    got: list[int] = []
    told = ""
    for token in tokens:
        got.append(token)
        text = decode(got)
        cut = min((place for place in (text.find(stop) for stop in stops) if place >= 0), default=-1)
        if cut >= 0:
            text = text[:cut]
        if not text.endswith("\ufffd") and len(text) > len(told):  # a character may need several tokens
            yield text[len(told) :]
            told = text
        if cut >= 0:
            return
