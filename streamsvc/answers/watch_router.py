"""What a watch waits for: its condition, compared with examples, becomes checks."""

from __future__ import annotations

from streamsvc.answers import watch_intents
from streamsvc.answers.example_vectors import EMBED_SECONDS, ExampleVectors, vectors_of
from streamsvc.answers.watch_conditions import Able, Check, checks_of
from streamsvc.core.errors import CapacityError
from streamsvc.core.roles import Role, innermost

PREPARE_SECONDS = 2.0  # that a new watch may spend on vectors that are not there yet

_examples = ExampleVectors("watches", watch_intents.texts, watch_intents.Voters)
prepare = _examples.prepare


async def compiled(when: str, embed: Role | None, able: Able) -> tuple[Check, ...]:
    """The checks of a condition.

    Args:
        when: the condition.
        embed: role with the op "texts"; None: only quotations and labels are understood.
        able: what the models can tell.

    Raises:
        InvalidRequest: nothing here can decide it ("cannot_watch"). CapacityError: it cannot be told yet.
    """
    vote = None
    embed = None if embed is None else innermost(embed)  # a replay is told the checks, not asked for vectors
    if embed is not None and (voters := await _examples.voters(embed, PREPARE_SECONDS)) is not None:
        text = watch_intents.compared(when)
        vectors = await vectors_of(embed, [text], EMBED_SECONDS)
        vote = None if vectors is None else voters.vote(text, vectors[0])
    if vote is None and embed is not None:
        raise CapacityError("what understands conditions is not ready yet; try again", code="not_ready")
    return checks_of(when, vote, able)
