"""Converts SmolLM2 (llama architecture) from GGUF to CTranslate2 int8, without torch.

The GGUF's tensors are dequantised, put into CTranslate2's specification and quantised to int8. In a llama
GGUF the rows of Q and K are permuted for interleaved rotary embeddings, so `rotary_interleave=True` needs no
un-permuting. The result is in `ct2-int8-<hash>/` beside the source; the hash covers the source's size, head
and tail and RECIPE.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.building import building
from streamsvc.core.errors import ModelMissing

RECIPE = "1"  # increment when the conversion changes
_PROBE = 1 << 20  # bytes hashed at each end of the source


def built(source: Path) -> Path:
    """The folder of the converted model; converts it first if necessary.

    Args:
        source: the GGUF file.

    Raises:
        ModelMissing: the file is missing, or is not a GGUF of the llama architecture.
    """
    if not source.is_file():
        raise ModelMissing(f"the language model {source.name} is missing: run `streamsvc models pull`")
    target = source.parent / f"ct2-int8-{_mark(source)}"

    def whole() -> bool:
        return (target / "model.bin").is_file() and (target / "tokenizer.json").is_file()

    if not whole():
        with building(target, "ct2-int8-*", whole) as scratch:
            convert(source, scratch)
    return target


def _mark(source: Path) -> str:
    size = source.stat().st_size
    digest = hashlib.sha256(f"{RECIPE} {size} ".encode())
    with source.open("rb") as file:
        digest.update(file.read(_PROBE))
        file.seek(max(0, size - _PROBE))
        digest.update(file.read(_PROBE))
    return digest.hexdigest()[:16]


def convert(source: Path, target: Path) -> None:
    """Write model.bin, config.json, vocabulary.json and tokenizer.json into an existing folder."""
    import gguf

    try:
        reader = gguf.GGUFReader(source)
        meta = _Meta(reader)
        if meta.text("general.architecture") != "llama":
            raise ValueError(f"architecture {meta.text('general.architecture')}")
        spec = _spec(meta, {tensor.name: tensor for tensor in reader.tensors})
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ModelMissing(
            f"the language model {source.name} cannot be read ({error}): run `streamsvc models pull`"
        ) from None
    pieces = meta.texts("tokenizer.ggml.tokens")
    spec.register_vocabulary(pieces)
    spec.config.bos_token = pieces[meta.integer("tokenizer.ggml.bos_token_id")]
    spec.config.eos_token = pieces[meta.integer("tokenizer.ggml.eos_token_id")]
    spec.config.unk_token = pieces[0]
    spec.config.layer_norm_epsilon = meta.real("llama.attention.layer_norm_rms_epsilon")
    spec.validate()
    spec.optimize(quantization="int8")
    spec.save(str(target))
    _tokenizer(meta, pieces).save(str(target / "tokenizer.json"))
    origin = {"source": source.name, "bytes": source.stat().st_size, "recipe": RECIPE}
    (target / "source.json").write_text(json.dumps(origin))


class _Meta:
    """The header fields of a GGUF."""

    def __init__(self, reader: Any) -> None:
        self._fields = reader.fields

    def text(self, name: str) -> str:
        field = self._fields[name]
        return bytes(field.parts[field.data[0]]).decode()

    def texts(self, name: str) -> list[str]:
        field = self._fields[name]
        return [bytes(field.parts[index]).decode() for index in field.data]

    def integer(self, name: str) -> int:
        return int(self._fields[name].parts[-1][0])

    def integers(self, name: str) -> list[int]:
        field = self._fields[name]
        return [int(field.parts[index][0]) for index in field.data]

    def real(self, name: str) -> float:
        return float(self._fields[name].parts[-1][0])


def _spec(meta: _Meta, tensors: dict[str, Any]) -> Any:
    import gguf
    from ctranslate2.specs import common_spec, transformer_spec

    def weight(name: str) -> NDArray[np.float32]:
        tensor = tensors[name]
        return np.ascontiguousarray(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    layers = meta.integer("llama.block_count")
    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        layers,
        meta.integer("llama.attention.head_count"),
        activation=common_spec.Activation.SWISH,
        pre_norm=True,
        ffn_glu=True,
        rms_norm=True,
        rotary_dim=0,
        rotary_interleave=True,
        rotary_base=meta.real("llama.rope.freq_base"),
        num_heads_kv=meta.integer("llama.attention.head_count_kv"),
    )
    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weight("token_embd.weight")
    decoder.layer_norm.gamma = weight("output_norm.weight")
    decoder.projection.weight = (
        weight("output.weight") if "output.weight" in tensors else decoder.embeddings.weight
    )  # tied
    for index, layer in enumerate(decoder.layer):
        block = f"blk.{index}."
        attention = layer.self_attention
        attention.layer_norm.gamma = weight(block + "attn_norm.weight")
        attention.linear[0].weight = np.concatenate([weight(f"{block}attn_{part}.weight") for part in "qkv"])
        attention.linear[1].weight = weight(block + "attn_output.weight")
        layer.ffn.layer_norm.gamma = weight(block + "ffn_norm.weight")
        layer.ffn.linear_0.weight = weight(block + "ffn_gate.weight")
        layer.ffn.linear_0_noact.weight = weight(block + "ffn_up.weight")
        layer.ffn.linear_1.weight = weight(block + "ffn_down.weight")
    return spec


def _tokenizer(meta: _Meta, pieces: list[str]) -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    merges = [
        (left, right) for left, right in (pair.split(" ", 1) for pair in meta.texts("tokenizer.ggml.merges"))
    ]
    tokenizer = Tokenizer(
        models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [
        piece
        for piece, kind in zip(pieces, meta.integers("tokenizer.ggml.token_type"), strict=True)
        if kind == 3
    ]
    tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in control])
    return tokenizer
