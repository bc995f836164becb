"""The converted model continues text sensibly."""

from __future__ import annotations

from typing import Any

import pytest

from engines import Op, StreamOp
from engines.llm import load
from streamsvc.core.config import Models
from streamsvc.core.errors import ModelMissing


def generate(engine: Any, prompt: str, **more: Any) -> str:
    op = engine.ops["generate"]
    assert isinstance(op, StreamOp)
    return "".join(piece["text"] for piece in op.run({"prompt": prompt, **more}))


@pytest.mark.models
def test_the_converted_weights_know_what_the_source_knows() -> None:
    engine = load({"models": str(Models().dir / "models"), "model": "smollm2-135m-instruct"})
    assert "Paris" in generate(engine, "The capital of France is", max_tokens=4)
    assert generate(engine, "1, 2, 3, 4, 5,", max_tokens=5).startswith(" 6, 7")
    assert "\n" not in generate(engine, "Water freezes at zero degrees", max_tokens=12, stop=["\n"])
    count = engine.ops["count"]
    assert isinstance(count, Op)
    (told,) = count.run([{"text": "The capital of France is"}])
    assert isinstance(told, dict) and told["tokens"] == 5


def test_a_missing_model_is_named(tmp_path: Any) -> None:
    with pytest.raises(ModelMissing, match="SmolLM2"):
        load({"models": str(tmp_path), "model": "smollm2-135m-instruct"})
