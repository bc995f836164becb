"""Visual tokens equal the class's own for any picture size and batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from transformers.vision_utils import get_vision_position_ids  # noqa: E402

from engines.vlm_tower import places  # noqa: E402
from tests.engines.tiny_vlm import KINDS, Bench, picture  # noqa: E402


@pytest.fixture(scope="module", params=KINDS)
def bench(request: pytest.FixtureRequest, tiny_vlm: Callable[[str], Path]) -> Bench:
    return Bench(tiny_vlm(request.param))


def test_pictures_side_by_side_have_the_tokens_that_each_has_alone(bench: Bench) -> None:
    pictures = [picture(1), picture(2, 40, 64), picture(3, 90, 30)]
    together = bench.tower.encode(pictures)
    for one, (tokens, rows, columns) in zip(pictures, together, strict=True):
        ((alone, *grid),) = bench.tower.encode([one])
        assert torch.allclose(tokens, alone, atol=1e-4)
        assert [rows, columns] == grid
        assert rows * columns == (len(tokens) if bench.kind.startswith("qwen") else 0)
    assert (together[0][0][:4] - together[1][0][:4]).abs().max() > 1e-2


def test_a_keyframe_is_one_tile_for_classes_that_support_tiling(
    bench: Bench,
) -> None:
    if bench.kind.startswith("qwen"):
        pytest.skip("Qwen's pictures keep their shape")
    sizes = {len(tokens) for tokens, _, _ in bench.tower.encode([picture(1, 300, 200), picture(2, 24, 24)])}
    assert sizes == {36 if bench.kind == "llava" else 9}


def test_a_large_picture_is_scaled_down_to_the_token_limit(bench: Bench) -> None:
    large, small = picture(1, 480, 320), picture(1, 16, 16)
    fitted = bench.tower.fit(large, 6)
    assert bench.tower.fit(small, 6) is small
    if bench.kind.startswith("qwen"):
        ((tokens, rows, columns),) = bench.tower.encode([fitted])
        assert (len(tokens), rows, columns) == (6, 2, 3)
        assert len(bench.tower.encode([large])[0][0]) > 6
    else:
        assert fitted is large


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 10), (6, 2)])
def test_the_places_of_patches_are_in_the_order_of_the_class(rows: int, columns: int) -> None:
    theirs = get_vision_position_ids(torch.tensor([[1, rows, columns]]), 2)
    assert np.array_equal(places(rows, columns, 2), theirs.numpy())
