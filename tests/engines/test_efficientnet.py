"""The weights are the real ones: a known photo has its name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engines.efficientnet import NAME, SIDE, lite0, pixels
from streamsvc.core.config import Models
from streamsvc.core.errors import ModelMissing
from tests.builders.clips import shot

MODELS = Models().dir / "models"


def test_missing_weights_are_named_with_the_way_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=f"streamsvc models pull {NAME}"):
        lite0(tmp_path)


def test_weights_that_are_not_the_registry_s_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / f"{NAME}.pth").write_bytes(bytes(4096))
    with pytest.raises(ModelMissing, match="broken"):
        lite0(tmp_path)


def test_pixels_are_scaled_channel_by_channel() -> None:
    made = pixels([Image.new("RGB", (64, 48), (255, 0, 0)), Image.new("RGB", (10, 10), (0, 0, 255))])
    assert made.shape == (2, 3, SIDE, SIDE)
    assert made.dtype == np.float32
    assert made[0, :, 5, 5].tolist() == pytest.approx(
        [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225], abs=1e-4
    )
    assert made[1, 2, 0, 0] == pytest.approx((1 - 0.406) / 0.225, abs=1e-4)


@pytest.mark.models
@pytest.mark.media
@pytest.mark.parametrize(("at", "name"), [(14, "espresso"), (46, "missile")])
def test_a_known_photo_has_its_name(media: Path, at: float, name: str) -> None:
    picture = Image.open(io.BytesIO(shot(media / "scenarios" / "scenes_photos.mp4", at).tobytes())).convert(
        "RGB"
    )
    module = lite0(MODELS)
    with torch.inference_mode():
        embedding = module(torch.from_numpy(pixels([picture])))
        best = int(module.classes(embedding).argmax())
    labels = (
        (MODELS / "efficientnet-lite3" / "efficientnet_labels.txt").read_text(encoding="utf-8").splitlines()
    )
    assert embedding.shape == (1, 1280)
    assert labels[best].split(",")[0] == name
