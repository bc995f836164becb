"""Answers step by step in a cache of fixed size, as a GPU takes them.

The same logits, and what was read stays the sequence's.

On the CPU nothing is captured; the graph itself ran on a GPU (`python -m load_tests.gpu vlm`,
engines/README.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines.vlm_decoder import Decoder, KvCache  # noqa: E402
from engines.vlm_window import Piece  # noqa: E402
from tests.engines.tiny_vlm import KINDS, Bench, picture  # noqa: E402

CLOSE = 1e-4  # of logits


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tiny_vlm: Callable[[str], Path]) -> Bench:
    return Bench(tiny_vlm(request.param))


@pytest.mark.parametrize("room", [400, 20])  # as on a GPU; a sequence too long for it
def test_the_steps_of_an_answer_in_a_cache_of_fixed_size_are_the_plain_ones(bench: Bench, room: int) -> None:
    pieces, _ = bench.growing(bench.encode([picture(1), picture(2)]))[-1]
    decoder, plain, fixed = Decoder(bench.model, room=room), KvCache(), KvCache()
    for answer in (
        [40, 50, 60, 70],
        [80, 90],
        [45],
    ):  # a cache that was used before; the second and third go on from the first
        assert torch.equal(decoder.read(plain, pieces), decoder.read(fixed, pieces))
        with decoder.answering(fixed, len(answer)) as step:
            for token in answer:
                assert torch.allclose(step(token), decoder.step(plain, token), atol=CLOSE)
        assert (fixed.tokens, fixed.position) == (plain.tokens, plain.position)
        pieces = (*pieces, Piece(tuple(answer)), bench.layout.question("And then?"))
    assert fixed.reused == plain.reused > 0


def test_an_answer_that_is_given_up_leaves_what_it_has_read(bench: Bench) -> None:
    decoder, kept = Decoder(bench.model, room=400), KvCache()
    decoder.read(kept, [bench.layout.head])
    whole = len(bench.layout.head.ids)
    with pytest.raises(GeneratorExit), decoder.answering(kept, 9) as step:
        step(40), step(50)
        raise GeneratorExit
    assert (kept.tokens, kept.position) == (whole + 2, whole + 2)
    after = decoder.step(kept, 60)
    other = KvCache()
    decoder.read(other, [bench.layout.head, Piece((40, 50))])
    assert torch.allclose(after, decoder.step(other, 60), atol=CLOSE)
