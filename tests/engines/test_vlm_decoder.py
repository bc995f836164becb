"""The decoder's logits equal the plain transformers pipeline's at every step, with and without a KV cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines.vlm_decoder import Decoder, KvCache, argmax  # noqa: E402
from engines.vlm_model import Layout, load_model  # noqa: E402
from engines.vlm_tower import Tower  # noqa: E402
from engines.vlm_window import Entry, Limits, Picture, Piece, Window, append_entry  # noqa: E402
from tests.engines.tiny_vlm import KINDS, Bench, picture  # noqa: E402

CLOSE = 1e-4  # of logits
STEPS = 3


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tiny_vlm: Callable[[str], Path]) -> Bench:
    return Bench(tiny_vlm(request.param))


def gap(bench: Bench, pieces: Sequence[Piece], pictures: Sequence[Any], kept: KvCache | None = None) -> float:
    """Largest logit difference from the plain pipeline, at the end of the input and over greedy steps."""
    return bench.gap(pieces, pictures, kept or KvCache(), STEPS)


def changed(piece: Piece, change: Callable[[Picture], Picture]) -> Piece:
    return piece if piece.picture is None else replace(piece, picture=change(piece.picture))


@pytest.mark.parametrize("graph", [False, True], ids=["torch", "onnx"])
def test_logits_equal_the_plain_pipeline_s_at_every_step_with_and_without_a_cache(
    bench: Bench, graph: bool
) -> None:
    if graph and bench.kind == "idefics3":
        pytest.skip("its tower is SmolVLM's; load_tests.kv_reuse exports it too")
    seen = bench.encode([picture(1), picture(2)], graph=graph)
    growing, kept = bench.growing(seen), KvCache()
    for pieces, pictures in growing:
        shown = [picture(n) for n in pictures]
        assert gap(bench, pieces, shown) < CLOSE
        assert gap(bench, pieces, shown, kept) < CLOSE
    assert kept.reused > kept.computed > 0  # the last one was not computed anew


def test_a_sequence_that_differs_from_the_cached_one_is_cropped_there(bench: Bench) -> None:
    seen = bench.encode([picture(1), picture(2)])
    (_, (second, _), *_), kept = bench.growing(seen), KvCache()
    gap(bench, second, [picture(1)], kept)
    other = (
        *second[:2],
        bench.layout.text_line("another story"),
        bench.layout.question("why?"),
    )
    shown = [picture(1)] if any(piece.picture for piece in other) else []
    assert gap(bench, other, shown, kept) < CLOSE
    assert 0 < kept.reused < kept.computed + kept.reused
    assert gap(bench, other, shown, kept) < CLOSE  # the same again: one token is run
    assert kept.computed == 1


def test_a_swapped_picture_is_noticed(bench: Bench) -> None:
    pieces, pictures = bench.growing(bench.encode([picture(1), picture(2)]))[-1]
    assert pictures == [1, 2]
    assert gap(bench, pieces, [picture(2), picture(1)]) > 10 * CLOSE
    assert gap(bench, pieces, [picture(1), picture(3)]) > 10 * CLOSE


def test_visual_tokens_that_are_off_by_one_are_noticed(bench: Bench) -> None:
    seen = [
        replace(one, tokens=np.roll(np.asarray(one.tokens), 1, axis=0))
        for one in bench.encode([picture(1), picture(2)])
    ]
    pieces, _ = bench.growing(seen)[-1]
    assert gap(bench, pieces, [picture(1), picture(2)]) > 10 * CLOSE


def test_positions_that_are_off_are_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, _ = bench.growing(bench.encode([picture(1), picture(2)]))[-1]
    shown = [picture(1), picture(2)]
    right = bench.decoder.positions

    def shifted(pieces: Sequence[Piece]) -> tuple[Any, int]:
        ids, after = right(pieces)
        ids = ids.clone()
        ids[..., -5:] += 1  # the answer, one further from what it is about
        return ids, after + 1

    with monkeypatch.context() as patch:
        patch.setattr(bench.decoder, "positions", shifted)
        assert gap(bench, pieces, shown) > 10 * CLOSE
    if bench.kind.startswith("qwen"):  # rows and columns swapped; a grid forgotten
        turned = [changed(piece, lambda p: replace(p, rows=p.columns, columns=p.rows)) for piece in pieces]
        flat = [changed(piece, lambda p: Picture(p.key, p.tokens)) for piece in pieces]
        assert gap(bench, turned, shown) > 10 * CLOSE
        assert gap(bench, flat, shown) > 10 * CLOSE


def test_positions_are_those_of_the_class_itself(bench: Bench) -> None:
    pieces, _ = bench.growing(bench.encode([picture(1, 96, 40), picture(2, 40, 96)]))[-1]
    ids, after = bench.decoder.positions(pieces)
    if not hasattr(bench.model.model, "get_rope_index"):
        assert ids.tolist() == [list(range(after))]
        return
    flat = torch.tensor([[n for piece in pieces for n in piece.ids]])
    image = flat == bench.model.config.image_token_id
    grids = [
        [1, 2 * piece.picture.rows, 2 * piece.picture.columns]
        for piece in pieces
        if piece.picture is not None
    ]
    theirs, delta = bench.model.model.get_rope_index(
        flat, mm_token_type_ids=image.int(), image_grid_thw=torch.tensor(grids)
    )
    assert torch.equal(ids, theirs)
    assert after == flat.shape[1] + int(delta)


def test_a_step_after_a_crop_continues_at_the_right_position(tiny_vlm: Callable[[str], Path]) -> None:
    model, tokenizer, processor = load_model(tiny_vlm("qwen2_vl"), "cpu")
    layout, decoder, kept = Layout(model.config, tokenizer), Decoder(model), KvCache()
    ((tokens, rows, columns),) = Tower(model, processor).encode([picture(4)])
    pieces = [
        layout.head,
        layout.picture_line("[1]", Picture("p", tokens, rows, columns)),
        layout.question("what?"),
    ]
    first = decoder.read(kept, pieces)
    after = [decoder.step(kept, argmax(first)) for _ in range(3)]
    assert kept.tokens == sum(len(piece.ids) for piece in pieces) + 3
    again = decoder.read(kept, pieces)
    assert torch.allclose(first, again, atol=CLOSE)
    assert torch.allclose(after[0], decoder.step(kept, argmax(again)), atol=CLOSE)


def test_logits_are_the_plain_pipelines_after_every_drop_of_the_head(bench: Bench) -> None:
    pictures = [picture(n) for n in range(1, 4)]
    seen, kept, window, reused = bench.encode(pictures), KvCache(), Window(), 0
    for n in range(12):
        sight = bench.layout.picture_line(f"[{n}]", seen[n // 4]) if n % 4 == 1 else None
        window = append_entry(
            window,
            Entry(n, bench.layout.text_line(f"[{n}] 0:{n:02} said: Sentence {n}."), sight),
            Limits(180, 100),
        )
        pieces = [bench.layout.head, *window.pieces, bench.layout.question("what?")]
        shown = [pictures[int(piece.picture.key) - 1] for piece in pieces if piece.picture is not None]
        assert gap(bench, pieces, shown, kept) < CLOSE
        reused += kept.reused > len(bench.layout.head.ids)
    assert window.drops >= 2
    assert reused >= 4  # between drops the prefix was stable
