"""Tiny random models of the real classes, with tokenizers and image processors, as saved checkpoints."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engines.export_vlm import exported
from engines.vlm_decoder import Decoder, KvCache
from engines.vlm_model import Layout, load_model
from engines.vlm_tower import Tower
from engines.vlm_window import Picture, Piece

KINDS = ("qwen2_vl", "qwen2_5_vl", "smolvlm", "idefics3", "llava")
SPECIAL = [
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<fake_token_around_image>",
    "<global-img>",
]
SPECIAL += ["<|im_start|>", "<|im_end|>", "<end_of_utterance>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% for c in m.content %}{{ c.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """How large: of the language model, and of the picture's side in pixels (patches have 4)."""

    width: int = 32
    layers: int = 2
    heads: int = 4
    side: int = 24
    spread: float = (
        0.2  # of the random weights; the classes' own 0.02 would hide a picture among rounding errors
    )


TINY = Shape()


def save(kind: str, folder: Path, shape: Shape = TINY, seed: int = 0) -> Path:
    """Make a model of a kind in a folder."""
    import torch
    import transformers

    t: Any = transformers
    torch.set_num_threads(1)  # more than one wait for each other longer than such models take
    torch.manual_seed(seed)
    tokenizer = _tokenizer(chat=kind != "llava")
    model = _model(kind, shape, {token: n for n, token in enumerate(SPECIAL)}, len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mean: dict[str, Any] = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.3, 0.3, 0.4]}
    side = {"height": shape.side, "width": shape.side}
    processors: dict[str, Any] = {
        "qwen2_vl": lambda: t.Qwen2VLImageProcessorPil(
            patch_size=4, size={"shortest_edge": 8 * 8, "longest_edge": 2 * shape.side**2}, **mean
        ),
        "smolvlm": lambda: t.SmolVLMImageProcessorPil(
            size={"longest_edge": 2 * shape.side}, max_image_size={"longest_edge": shape.side}, **mean
        ),
        "idefics3": lambda: t.Idefics3ImageProcessorPil(
            size={"longest_edge": 2 * shape.side}, max_image_size={"longest_edge": shape.side}, **mean
        ),
        "llava": lambda: t.LlavaImageProcessorPil(size={"shortest_edge": shape.side}, crop_size=side, **mean),
    }
    processors["qwen2_5_vl"] = processors["qwen2_vl"]
    processors[kind]().save_pretrained(folder)
    return folder


def taught(folder: Path, text: str) -> Path:
    """Make a saved model of Qwen's answer with this, whatever it is asked and shown.

    Each letter, no two alike, names the next.
    """
    import torch
    import transformers

    t: Any = transformers
    model = t.AutoModelForImageTextToText.from_pretrained(folder)
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    ids = [
        *tokenizer.encode("\n" + text, add_special_tokens=False),
        tokenizer.eos_token_id,
    ]  # the template ends its line
    assert len(set(ids)) == len(ids)
    decoder = model.model.language_model
    with torch.no_grad():
        for (
            layer
        ) in decoder.layers:  # each token's state is its own embedding: it knows nothing of the tokens before
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        decoder.embed_tokens.weight.zero_()
        model.lm_head.weight.zero_()
        for n, (one, following) in enumerate(itertools.pairwise(ids)):
            decoder.embed_tokens.weight[one, n] = 1.0
            model.lm_head.weight[following, n] = 1.0
    model.save_pretrained(folder)
    return folder


def _model(kind: str, shape: Shape, ids: dict[str, int], vocabulary: int) -> Any:
    import transformers

    t: Any = transformers

    common: dict[str, Any] = {"initializer_range": shape.spread}
    text: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": 2 * shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 16384,
        "bos_token_id": ids["<s>"],
        "eos_token_id": ids["</s>"],
        "pad_token_id": ids["<pad>"],
        **common,
    }
    eye: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": shape.side,
    }
    eye |= {"patch_size": 4, **common}
    image: dict[str, Any] = {"image_token_id": ids["<image>"]}
    if kind in ("qwen2_vl", "qwen2_5_vl"):
        half = shape.width // shape.heads // 2
        section = [half - 2 * (half // 3), half // 3, half // 3]
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": section}
        image |= {
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "video_token_id": 0,
        }
        patches: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 4, **common}
        if kind == "qwen2_vl":
            patches |= {"embed_dim": 32, "hidden_size": shape.width, "mlp_ratio": 2}
            config = t.Qwen2VLConfig(text_config=text, vision_config=patches, **image)
            return t.Qwen2VLForConditionalGeneration(config)
        patches |= {
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": shape.width,
            "window_size": 16,
        }
        patches |= {"fullatt_block_indexes": [1]}
        return t.Qwen2_5_VLForConditionalGeneration(
            t.Qwen2_5_VLConfig(text_config=text, vision_config=patches, **image)
        )
    llama: dict[str, Any] = {"model_type": "llama", **text}
    if kind == "llava":
        eye |= {
            "model_type": "clip_vision_model",
            "projection_dim": 32,
            "initializer_factor": shape.spread / 0.02,
        }
        config = t.LlavaConfig(
            text_config=llama,
            vision_config=eye,
            image_token_index=ids["<image>"],
            initializer_range=shape.spread,
        )
        return t.LlavaForConditionalGeneration(config)
    if kind == "smolvlm":
        return t.SmolVLMForConditionalGeneration(
            t.SmolVLMConfig(text_config=llama, vision_config=eye, scale_factor=2, **image, **common)
        )
    return t.Idefics3ForConditionalGeneration(
        t.Idefics3Config(text_config=llama, vision_config=eye, scale_factor=2, **image, **common)
    )


def _tokenizer(*, chat: bool) -> Any:
    """A token for each byte, and the special ones."""
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE({token: n for n, token in enumerate([*SPECIAL, *alphabet])}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    t: Any = transformers
    fast = t.PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=SPECIAL[3:],
    )
    if chat:
        fast.chat_template = TEMPLATE
    return fast


def picture(seed: int, width: int = 48, height: int = 32) -> Image.Image:
    """Coloured blocks."""
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


def png(seed: int) -> Any:
    """The bytes of a picture, uint8."""
    buffer = io.BytesIO()
    picture(seed).save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


class Bench:
    """A model, what stands around it, and the plain pipeline beside it."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.folder = folder
        self.device = device
        self.model, tokenizer, processor = load_model(folder, device)
        self.kind = str(self.model.config.model_type)
        self.layout = Layout(self.model.config, tokenizer)
        self.tower = Tower(self.model, processor)
        self.decoder = Decoder(self.model)
        self._processor = processor

    @cached_property
    def graph(self) -> Path:
        """The exported tower."""
        return exported(self.model, self.tower, self.folder)

    @cached_property
    def _graphed(self) -> Tower:
        return Tower(self.model, self._processor, self.graph)

    def encode(self, pictures: Sequence[Image.Image], *, graph: bool = False) -> list[Picture]:
        """Pictures as visual tokens, by torch or by the exported graph."""
        tower = self._graphed if graph else self.tower
        return [Picture(f"{n}", *sight) for n, sight in enumerate(tower.encode(pictures), 1)]

    def growing(self, seen: Sequence[Picture]) -> list[tuple[tuple[Piece, ...], list[int]]]:
        """A window that grows.

        Its pieces with a question at their end, and the numbers of the pictures in it.
        """
        lines = [
            self.layout.text_line("Good morning, here is the plan for today."),
            self.layout.picture_line("[2]", seen[0]),
            self.layout.text_line("Plan: 1. budget 2. hiring"),
            self.layout.text_line("The first point is the budget, and the second is hiring."),
            self.layout.picture_line("[9]", seen[1]),
            self.layout.text_line("Any questions so far?"),
        ]
        steps = [(1, []), (4, [1]), (6, [1, 2])]
        return [
            ((self.layout.head, *lines[:n], self.layout.question(f"What of point {n}?")), numbers)
            for n, numbers in steps
        ]

    def gap(
        self, pieces: Sequence[Piece], pictures: Sequence[Image.Image], kept: KvCache, steps: int
    ) -> float:
        """Largest difference of a logit from the plain pipeline's.

        At the end of the input, and at each of some greedy steps.
        """
        ids = [n for piece in pieces for n in piece.ids]
        logits, worst = self.decoder.read(kept, pieces), 0.0
        for step in range(steps):
            plain = self.plain(ids, pictures)
            worst = max(worst, float((plain - logits).abs().max()))
            if step < steps - 1:
                wanted = plain.cpu().numpy().copy()
                wanted[
                    self.model.config.image_token_id
                ] = -np.inf  # the plain pipeline would want a picture for it
                ids.append(int(wanted.argmax()))
                logits = self.decoder.step(kept, ids[-1])
        return worst

    def plain(self, ids: Sequence[int], pictures: Sequence[Image.Image]) -> Any:
        """Logits of the last token by the plain pipeline.

        The whole of token ids and pixels in one forward pass of the class.
        """
        import torch

        asked = {"input_ids": torch.tensor([list(ids)])}
        if pictures:
            asked |= self.tower.inputs(pictures)
            if self.kind in ("smolvlm", "idefics3"):  # they take the pictures of one text side by side
                asked["pixel_values"] = asked["pixel_values"].transpose(0, 1)
                asked["pixel_attention_mask"] = asked["pixel_attention_mask"].transpose(0, 1)
            if self.kind.startswith("qwen"):
                asked["mm_token_type_ids"] = (asked["input_ids"] == self.model.config.image_token_id).int()
                self.model.model.rope_deltas = None
        with torch.inference_mode():
            return (
                self.model(**{name: value.to(self.device) for name, value in asked.items()})
                .logits[0, -1]
                .float()
            )
