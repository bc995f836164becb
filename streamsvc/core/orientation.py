"""How a stored picture is laid down to be shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways to lay down a picture: rows and columns are swapped first, then reversed."""

    swapped: bool = False
    right_to_left: bool = False
    bottom_up: bool = False

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Pixels as stored, shape (h, w) or (h, w, 3), to pixels as shown."""
        if self.swapped:
            pixels = pixels.swapaxes(0, 1)
        if self.bottom_up:
            pixels = pixels[::-1]
        if self.right_to_left:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height as shown of a stored size, and the other way round."""
        return (height, width) if self.swapped else (width, height)


UPRIGHT = Orientation()
