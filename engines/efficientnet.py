"""EfficientNet-Lite0 as a torch module: pictures of 224 pixels -> 1280 pooled features.

The class is from the package efficientnet-lite-pytorch, the weights from the registry, the pixel
normalisation from upstream.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines.fetch import require
from streamsvc.core.errors import ModelMissing

NAME = "efficientnet-lite0"
SIDE = 224  # pixels
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels, as in training
DEVIATION = (0.229, 0.224, 0.225)


def lite0(models: Path) -> Any:
    """The module in evaluation mode.

    Args:
        models: the folder of models.

    Raises:
        ModelMissing: the weights (or they are broken), torch or efficientnet-lite-pytorch are missing.
    """
    weights = require(NAME, models) / f"{NAME}.pth"
    try:
        import torch
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ModelMissing(f"{NAME} needs {error.name}: pip install 'streamsvc[gpu]'") from None

    class Features(torch.nn.Module):
        """The network up to its pooled features. `classes`: the last layer, 1280 features -> 1000 logits."""

        def __init__(self) -> None:
            super().__init__()
            self.network = EfficientNet.from_name(NAME)
            self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
            self.classes = self.network._fc

        def forward(self, pixels: Any) -> Any:
            return self.network.extract_features(pixels).mean((2, 3))

    return Features().eval().requires_grad_(False)


def pixels(pictures: list[Image.Image]) -> NDArray[np.float32]:
    """RGB pictures of any size as input of the module: float32 (n, 3, 224, 224)."""
    resized = [
        np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32) / 255
        for picture in pictures
    ]
    scaled = (np.stack(resized) - np.array(MEAN, np.float32)) / np.array(DEVIATION, np.float32)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)
