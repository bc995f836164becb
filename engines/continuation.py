"""Shared by the language model engines: limits of a continuation, and its text as tokens arrive. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from engines import Payload

MAX_TOKENS = 256  # of one continuation
LONGEST_PROMPT = 1000  # tokens; longer prompts lose their beginning


def generation_limits(asked: Payload) -> tuple[int, list[str]]:
    """The maximum number of tokens and the stop texts: "max_tokens" and "stop" of a request."""
    stops = [str(stop) for stop in asked.get("stop", []) if stop]
    return max(1, min(int(asked.get("max_tokens", 32)), MAX_TOKENS)), stops


def increments(
    tokens: Iterable[int], decode: Callable[[list[int]], str], stops: Sequence[str]
) -> Iterator[str]:
    """Yield the text that each token adds, up to the first stop text.

    Args:
        tokens: of the continuation; not consumed further after a stop.
        decode: all tokens so far -> their text.
        stops: texts that end the continuation; not part of it.
    """
    ids: list[int] = []
    yielded = ""
    for token in tokens:
        ids.append(token)
        text = decode(ids)
        cut = min((place for place in (text.find(stop) for stop in stops) if place >= 0), default=-1)
        if cut >= 0:
            text = text[:cut]
        if not text.endswith("\ufffd") and len(text) > len(yielded):  # one character may need several tokens
            yield text[len(yielded) :]
            yielded = text
        if cut >= 0:
            return
