"""Votes of the examples of watches, as a test wants them."""

from __future__ import annotations

from streamsvc.answers.watch_intents import Kind, Vote, labelled


def vote_for(kind: Kind, share: float = 1.0, **others: float) -> Vote:
    """A vote for one kind; `others`: shares of other kinds, by name."""
    return Vote({name: share if name == kind else others.get(name, 0.0) for name, _ in labelled()})
