"""LoRA adapters of the tiny random models. Needs the extra `gpu`."""

from __future__ import annotations

from pathlib import Path

import peft
import torch

from engines.vlm_adapters import suppress_future_warnings
from engines.vlm_model import load_model

LANGUAGE = r".*\.language_model\..*\.(q_proj|v_proj)"


def save_adapter(folder: Path, place: Path, seed: int, targets: str = LANGUAGE) -> None:
    """An adapter that changes what the model says."""
    model, _, _ = load_model(folder, "cpu")
    torch.manual_seed(seed)
    with suppress_future_warnings():
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(r=4, target_modules=targets, init_lora_weights=False)
        )
    adapted.save_pretrained(str(place), safe_serialization=True)
