"""GGUF pairs (model and projector) of SmolVLM's architecture with random weights: tiny, and as published.

As `chat_gguf`: nothing is quantised, so half a gigabyte is written in a second. What the models say is noise,
but other pictures give other noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from tests.builders.chat_gguf import Q8_0, Vocabulary, blocks, byte_vocabulary

MODEL, PROJECTOR = "model.gguf", "mmproj-model.gguf"
# As published with SmolVLM-500M-Instruct.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
_BLANK_LINE = "\u010a\u010a"  # llama.cpp looks for this token, which is set before a picture
_CONTROL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    "<image>",
)
_NORMAL, _IS_CONTROL = 1, 3


@dataclass(frozen=True, slots=True)
class Tower:
    """The sizes of a SigLIP tower; `merge`: so many patches by so many are one token of the model."""

    layers: int
    width: int
    heads: int
    inner: int
    image: int
    merge: int
    patch: int = 16

    @property
    def tokens(self) -> int:
        """Tokens of a picture."""
        return (self.image // self.patch // self.merge) ** 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a pair; vocabulary 0: as large as the tokenizer."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    inner: int
    tower: Tower
    vocabulary: int = 0


TINY = Shape(2, 64, 2, 1, 128, Tower(layers=1, width=64, heads=2, inner=64, image=64, merge=2))
SMOLVLM_500M = Shape(32, 960, 15, 5, 2560, Tower(12, 768, 12, 3072, image=512, merge=4), vocabulary=49_280)


def write(
    folder: Path, shape: Shape = TINY, *, vocabulary: Vocabulary | None = None, longest_edge: int = 0
) -> Path:
    """Write model and projector into a folder, which is made.

    `longest_edge`: of newer converters: larger pictures are cut into tiles; 0: not in the file, as published.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    _write_model(folder / MODEL, shape, vocabulary or byte_vocabulary(), random)
    _write_projector(folder / PROJECTOR, shape, longest_edge, random)
    return folder


def _write_model(path: Path, shape: Shape, known: Vocabulary, random: np.random.Generator) -> None:
    pieces = [*known.pieces, *_CONTROL]
    pieces += [] if _BLANK_LINE in pieces else [_BLANK_LINE]
    pieces += [f"word{index}" for index in range(shape.vocabulary - len(pieces))]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(pieces)
    writer.add_token_types([_IS_CONTROL if piece in _CONTROL else _NORMAL for piece in pieces])
    writer.add_token_merges(list(known.merges))
    writer.add_bos_token_id(pieces.index("<|im_start|>"))
    writer.add_eos_token_id(pieces.index("<end_of_utterance>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    add = _Tensors(writer, random)
    keys = shape.width // shape.heads * shape.kv_heads
    add.matrix("token_embd.weight", len(pieces), shape.width)
    add.matrix("output.weight", len(pieces), shape.width)
    add.plain("output_norm.weight", np.ones(shape.width))
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        add.plain(block + "attn_norm.weight", np.ones(shape.width))
        add.plain(block + "ffn_norm.weight", np.ones(shape.width))
        add.matrix(block + "attn_q.weight", shape.width, shape.width)
        add.matrix(block + "attn_k.weight", keys, shape.width)
        add.matrix(block + "attn_v.weight", keys, shape.width)
        add.matrix(block + "attn_output.weight", shape.width, shape.width)
        add.matrix(block + "ffn_gate.weight", shape.inner, shape.width)
        add.matrix(block + "ffn_up.weight", shape.inner, shape.width)
        add.matrix(block + "ffn_down.weight", shape.width, shape.inner)
    _finish(writer)


def _write_projector(path: Path, shape: Shape, longest_edge: int, random: np.random.Generator) -> None:
    tower = shape.tower
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(gguf.VisionProjectorType.IDEFICS3)
    writer.add_vision_projection_dim(shape.width)
    writer.add_vision_image_size(tower.image)
    writer.add_vision_patch_size(tower.patch)
    writer.add_vision_embedding_length(tower.width)
    writer.add_vision_feed_forward_length(tower.inner)
    writer.add_vision_block_count(tower.layers)
    writer.add_vision_head_count(tower.heads)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_projector_scale_factor(tower.merge)
    writer.add_vision_use_gelu(True)
    if longest_edge:
        writer.add_vision_preproc_image_size(longest_edge)
    add = _Tensors(writer, random)
    width = tower.width
    add.plain("v.patch_embd.weight", random.normal(0, 0.05, (width, 3, tower.patch, tower.patch)))
    add.plain("v.patch_embd.bias", np.zeros(width))
    patches = (tower.image // tower.patch) ** 2
    add.plain("v.position_embd.weight", random.normal(0, 0.05, (patches, width)))
    for layer in range(tower.layers):
        block = f"v.blk.{layer}."
        for norm in ("ln1", "ln2"):
            add.plain(f"{block}{norm}.weight", np.ones(width))
            add.plain(f"{block}{norm}.bias", np.zeros(width))
        for part, rows, columns in (
            *((f"attn_{name}", width, width) for name in ("q", "k", "v", "out")),
            ("ffn_up", tower.inner, width),
            ("ffn_down", width, tower.inner),
        ):
            add.matrix(f"{block}{part}.weight", rows, columns)
            add.plain(f"{block}{part}.bias", np.zeros(rows))
    add.plain("v.post_ln.weight", np.ones(width))
    add.plain("v.post_ln.bias", np.zeros(width))
    add.matrix("mm.model.fc.weight", shape.width, width * tower.merge**2)
    _finish(writer)


class _Tensors:
    def __init__(self, writer: Any, random: np.random.Generator) -> None:
        self._writer = writer
        self._random = random

    def matrix(self, name: str, rows: int, columns: int) -> None:
        self._writer.add_tensor(name, blocks(rows, columns, Q8_0, self._random), raw_dtype=Q8_0)

    def plain(self, name: str, values: NDArray[Any]) -> None:
        self._writer.add_tensor(name, values.astype(np.float32))


def _finish(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
