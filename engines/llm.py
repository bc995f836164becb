"""The LLM engine: SmolLM2 on CTranslate2, one thread.

Op `generate` streams a greedy continuation; op `count` counts tokens.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines import Engine, Op, Payload, StreamOp
from engines.build_llm import built
from engines.continuation import LONGEST_PROMPT, generation_limits, increments
from streamsvc.core.errors import InvalidRequest, ModelMissing

DEFAULT = "smollm2-135m-instruct"
_FILES = {DEFAULT: "SmolLM2-135M-Instruct.Q4_1.gguf"}


def source(models_dir: Path, name: str = DEFAULT) -> Path:
    """The GGUF file of a model; it may not exist."""
    folder = models_dir / name
    if name in _FILES:
        return folder / _FILES[name]
    return next(iter(sorted(folder.glob("*.gguf"))), folder / "*.gguf")


def load(options: dict[str, Any]) -> Engine:
    """Load the model. The first call on a machine converts it (about half a minute).

    Args:
        options: "models": the folder of models; "model": the model's name.

    Raises:
        ModelMissing: the file is missing or broken.
    """
    import ctranslate2
    from tokenizers import Tokenizer

    folder = built(source(Path(options["models"]), str(options.get("model", DEFAULT))))
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
        )
    except (
        Exception
    ) as error:  # CTranslate2 raises RuntimeError for broken files, tokenizers a bare Exception
        raise ModelMissing(
            f"the converted language model in {folder.name} is broken ({error}): remove that folder"
        ) from None

    def ends(step: Any) -> bool:
        return step.token_id == 2 or (step.is_last and tokenizer.id_to_token(step.token_id) == "<|im_end|>")

    def generate(asked: Payload) -> Iterator[Payload]:
        prompt = asked.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise InvalidRequest("generate takes a prompt")
        most, stops = generation_limits(asked)
        ids = tokenizer.encode(prompt).ids[-LONGEST_PROMPT:]
        steps = generator.generate_tokens(
            [tokenizer.id_to_token(index) for index in ids], max_length=most, sampling_topk=1
        )
        with contextlib.closing(steps):
            tokens = (step.token_id for step in itertools.takewhile(lambda step: not ends(step), steps))
            yield from ({"text": text} for text in increments(tokens, tokenizer.decode, stops))

    def count(batch: list[Payload]) -> list[Payload | Exception]:
        return [{"tokens": len(tokenizer.encode(str(asked.get("text", ""))).ids)} for asked in batch]

    return Engine(
        {"generate": StreamOp(generate), "count": Op(count, batch=16)},
        {"llm": str(options.get("model", DEFAULT)), "runtime": f"ctranslate2 {ctranslate2.__version__} int8"},
    )
