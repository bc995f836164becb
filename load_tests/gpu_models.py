"""Models of published sizes with random weights for load_tests.gpu: speed does not depend on the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines import export


def enlarge(name: str, folder: Path, device: str) -> None:
    """Replace the tiny model of a folder by one of a published size with random weights, bfloat16.

    Tokenizer and processor stay, but for the image size.
    """
    import torch
    import transformers

    t: Any = transformers
    config = t.AutoConfig.from_pretrained(folder)
    if name == "qwen2-vl-2b":
        grown = {
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "vocab_size": 151936,
        }
        _set(
            config.text_config,
            {
                **grown,
                "num_key_value_heads": 2,
                "initializer_range": 0.02,
                "layer_types": ["full_attention"] * 28,
            },
        )
        config.text_config.rope_parameters["mrope_section"] = [16, 24, 24]
        eye = {
            "depth": 32,
            "embed_dim": 1280,
            "num_heads": 16,
            "mlp_ratio": 4,
            "patch_size": 14,
            "hidden_size": 1536,
        }
        processor = t.Qwen2VLImageProcessorPil(
            patch_size=14, size={"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280}
        )
    else:
        grown = {
            "hidden_size": 960,
            "intermediate_size": 2560,
            "num_hidden_layers": 32,
            "num_attention_heads": 15,
            "vocab_size": 49280,
        }
        _set(
            config.text_config, {**grown, "num_key_value_heads": 5, "initializer_range": 0.02, "head_dim": 64}
        )
        eye = {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
        }
        eye |= {"patch_size": 16}
        config.scale_factor = 4
        processor = t.SmolVLMImageProcessorPil(
            size={"longest_edge": 512}, max_image_size={"longest_edge": 512}
        )
    _set(config.vision_config, {**eye, "initializer_range": 0.02})
    kind = t.AutoModelForImageTextToText
    with torch.device(device):
        model = kind.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="10GB")
    processor.save_pretrained(folder)


def _set(config: Any, values: dict[str, Any]) -> None:
    for key, value in values.items():
        setattr(config, key, value)


def siglip(*, small: bool) -> tuple[Any, int]:
    """(torch module, side of its input in pixels) of the vision tower of SigLIP-base; `small`: a tiny one."""
    import torch
    import transformers

    t: Any = transformers
    torch.manual_seed(0)
    tiny = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
    }
    # The default configuration is that of siglip-base-patch16-224.
    config = t.SiglipVisionConfig(**tiny, patch_size=8) if small else t.SiglipVisionConfig()
    return export.pooled(t.SiglipVisionModel(config)), int(config.image_size)


def turbo(folder: Path) -> None:
    """Write a Whisper of the size of large-v3-turbo with random weights.

    It decodes up to the token cap, twice: the worst case.
    """
    import ctranslate2
    import torch
    import transformers

    if (folder / "model.bin").is_file():
        return
    t: Any = transformers
    size = {
        "d_model": 1280,
        "encoder_layers": 32,
        "decoder_layers": 4,
        "encoder_attention_heads": 20,
        "decoder_attention_heads": 20,
    }
    size |= {"encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120, "vocab_size": 51866, "num_mel_bins": 128}
    torch.manual_seed(0)
    source = folder.with_suffix(".torch")
    t.WhisperForConditionalGeneration(t.WhisperConfig(**size)).half().save_pretrained(source)
    tokens = folder.parent / "whisper-tiny.en" / "tokenizer.json"
    t.PreTrainedTokenizerFast(tokenizer_file=str(tokens)).save_pretrained(source)
    ctranslate2.converters.TransformersConverter(str(source)).convert(str(folder), quantization="float16")
    (folder / "tokenizer.json").write_bytes(tokens.read_bytes())
    (folder / "preprocessor_config.json").write_text(json.dumps({"feature_size": 128}))
