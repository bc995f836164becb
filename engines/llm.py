"""The small language model on CTranslate2, one thread: op "generate" streams a greedy continuation, op "count" counts tokens."""

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
    """The GGUF file of a model; it need not be there."""
    folder = models_dir / name
    return (
        folder / _FILES[name]
        if name in _FILES
        else next(iter(sorted(folder.glob("*.gguf"))), folder / "*.gguf")
    )


def load(options: dict[str, Any]) -> Engine:
    """Load the model, converting it first if that was not done yet (about half a minute, once).

    Args:
        options: "models" is the folder of models, "model" the model's name there.

    Raises:
        ModelMissing: the file is not there or is broken.
    """
    import ctranslate2
    from tokenizers import Tokenizer

    place = built(source(Path(options["models"]), str(options.get("model", DEFAULT))))
    try:
        tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        generator = ctranslate2.Generator(
            str(place), device="cpu", compute_type="int8", inter_threads=1, intra_threads=1
        )
    except Exception as error:  # the library raises RuntimeError and plain Exception for broken files
        raise ModelMissing(
            f"the converted language model in {place.name} is broken ({error}): remove that folder"
        ) from None

    def ends(step: Any) -> bool:
        return step.token_id == 2 or (step.is_last and tokenizer.id_to_token(step.token_id) == "<|im_end|>")

    def generate(asked: Payload) -> Iterator[Payload]:
        prompt = asked.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise InvalidRequest("generate wants a prompt")
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
