"""GGUF files with random weights: tiny ones for tests, and the published shapes for time and memory.

A tensor's blocks are random bytes with small scales, in the quantisation that a Q4_K_M file gives a tensor of
that width: nothing is quantised, so a gigabyte is written in seconds. What the models say is noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}"
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_NORMAL, _IS_CONTROL = 1, 3
Q4_K, Q5_0, Q6_K, Q8_0 = (
    gguf.GGMLQuantizationType.Q4_K,
    gguf.GGMLQuantizationType.Q5_0,
    gguf.GGMLQuantizationType.Q6_K,
    gguf.GGMLQuantizationType.Q8_0,
)
_SCALES = {Q4_K: (0, 2), Q5_0: (0,), Q6_K: (208,), Q8_0: (0,)}  # offsets of a block's float16 scales


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen2 model; vocabulary 0: as large as the tokenizer."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    vocabulary: int = 0


TINY = Shape(layers=2, width=256, heads=4, kv_heads=2, inner=256)
QWEN_05B = Shape(layers=24, width=896, heads=14, kv_heads=2, inner=4864, vocabulary=151_936)
QWEN_15B = Shape(layers=28, width=1536, heads=12, kv_heads=2, inner=8960, vocabulary=151_936)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A byte-level BPE: pieces in llama.cpp's form, and merges."""

    pieces: tuple[str, ...]
    merges: tuple[str, ...]


def byte_vocabulary() -> Vocabulary:
    """One token a byte, and one merge (a vocabulary without merges is refused)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    characters = {byte: chr(byte) for byte in plain}
    characters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    return Vocabulary((*(characters[byte] for byte in range(256)), "th"), ("t h",))


def vocabulary_of(path: Path) -> Vocabulary:
    """The vocabulary of a GGUF file, without its control tokens."""
    fields: Any = gguf.GGUFReader(path).fields

    def texts(name: str) -> list[str]:
        field = fields[name]
        return [bytes(field.parts[index]).decode() for index in field.data]

    kinds = fields["tokenizer.ggml.token_type"]
    pieces = [
        piece
        for piece, index in zip(texts("tokenizer.ggml.tokens"), kinds.data, strict=True)
        if int(kinds.parts[index][0]) == _NORMAL
    ]
    return Vocabulary(tuple(pieces), tuple(texts("tokenizer.ggml.merges")))


def write(
    path: Path,
    shape: Shape = TINY,
    *,
    vocabulary: Vocabulary | None = None,
    template: str | None = TEMPLATE,
    seed: int = 0,
) -> Path:
    """Write a Qwen2 model with random weights."""
    known = vocabulary or byte_vocabulary()
    pieces = [*known.pieces, *_CONTROL]
    pieces += [f"word{index}" for index in range(shape.vocabulary - len(pieces))]
    kinds = [_IS_CONTROL if piece in _CONTROL else _NORMAL for piece in pieces]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(shape.layers)
    writer.add_context_length(32768)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_token_merges(list(known.merges))
    writer.add_eos_token_id(pieces.index("<|im_end|>"))
    writer.add_pad_token_id(pieces.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    _add_tensors(writer, shape, len(pieces), np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tensors(writer: Any, shape: Shape, words: int, random: np.random.Generator) -> None:
    def add(name: str, rows: int, columns: int, *, fine: bool = False) -> None:
        coarse_kind, fine_kind = (Q5_0, Q8_0) if columns % 256 else (Q4_K, Q6_K)
        kind = fine_kind if fine else coarse_kind
        writer.add_tensor(name, blocks(rows, columns, kind, random), raw_dtype=kind)

    def plain(name: str, values: NDArray[np.float32]) -> None:
        writer.add_tensor(name, values)

    keys = shape.width // shape.heads * shape.kv_heads
    add("token_embd.weight", words, shape.width)
    add("output.weight", words, shape.width, fine=True)
    plain("output_norm.weight", np.ones(shape.width, np.float32))
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        plain(block + "attn_norm.weight", np.ones(shape.width, np.float32))
        plain(block + "ffn_norm.weight", np.ones(shape.width, np.float32))
        for part, rows in (("q", shape.width), ("k", keys), ("v", keys)):
            add(f"{block}attn_{part}.weight", rows, shape.width, fine=part == "v" and layer % 2 == 0)
            plain(f"{block}attn_{part}.bias", np.zeros(rows, np.float32))
        add(block + "attn_output.weight", shape.width, shape.width)
        add(block + "ffn_gate.weight", shape.inner, shape.width)
        add(block + "ffn_up.weight", shape.inner, shape.width)
        add(block + "ffn_down.weight", shape.width, shape.inner, fine=layer % 2 == 0)


def blocks(rows: int, columns: int, kind: Any, random: np.random.Generator) -> NDArray[np.uint8]:
    """Random blocks of a quantised tensor."""
    length, size = gguf.GGML_QUANT_SIZES[kind]
    count = rows * columns // length
    pool = np.frombuffer(random.bytes(min(count, 4096) * size), np.uint8).reshape(-1, size).copy()
    scale = np.frombuffer(np.float16(2e-5 if kind in (Q4_K, Q6_K) else 2e-3).tobytes(), np.uint8)
    for offset in _SCALES[kind]:
        pool[:, offset : offset + 2] = scale
    return np.resize(pool, (count, size)).reshape(rows, columns // length * size)
