"""Screen text: op `read` gives the text lines of a JPEG or of a region of it. Runs on a CPU.

PP-OCR from the rapidocr wheel, on ONNX Runtime (as fast as OpenVINO on one thread, with 350 MB instead of 670
MB). The weights' paths are passed explicitly, so rapidocr never downloads. A 720p slide takes about 1 s of
CPU time.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines import Engine, Op, Payload
from engines.files import model_file
from engines.image import decode_image
from streamsvc.core.errors import ModelMissing, WorkerError

MIN_SCORE = 0.6  # lines below are noise, such as text read into a photo
MIN_SIDE = 64  # pixels; narrower regions are extended, because the text detector needs context
TextBox = tuple[str, float, float, float, float, float]  # text, score, x, y, width, height


def load(options: Mapping[str, Any]) -> Engine:
    """Load text detection and recognition: one thread, no memory arena, no logging.

    Args:
        options: "min_text_score", optional.

    Raises:
        ModelMissing: the rapidocr package lacks its weights.
    """
    import rapidocr

    folder = Path(rapidocr.__file__).parent / "models"
    params = {
        "Global.log_level": "critical",
        "Global.use_cls": False,  # screens are upright
        "Det.model_path": str(model_file(folder / "PP-OCRv6_det_small.onnx")),
        "Rec.model_path": str(model_file(folder / "PP-OCRv6_rec_small.onnx")),
        "EngineConfig.onnxruntime.intra_op_num_threads": 1,
        "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        "EngineConfig.onnxruntime.enable_cpu_mem_arena": False,
    }
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    try:
        reader = rapidocr.RapidOCR(params=params)
        reader(np.full((64, 256, 3), 255, dtype=np.uint8))  # the first call loads the models
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelMissing(
            f"the OCR models in {folder} cannot be loaded ({type(error).__name__}): install rapidocr again"
        ) from None
    return Engine(
        {"read": Op(TextReader(reader, float(options.get("min_text_score", MIN_SCORE))).read)},
        {"ocr": "PP-OCRv6 small"},
    )


class TextReader:
    """Op `read`."""

    def __init__(self, reader: Any, least_score: float) -> None:
        self._reader = reader
        self._least_score = least_score

    def read(self, batch: list[Payload]) -> list[Payload | Exception]:
        """{"jpeg": uint8 bytes, "region"?: [x, y, w, h]} -> {"texts", "scores", "corners" (n, 4)}.

        Region and corners are fractions of the whole picture.
        """
        return [self._read(payload) for payload in batch]

    def _read(self, payload: Payload) -> Payload | Exception:
        try:
            picture = decode_image(payload)
        except WorkerError as error:
            return error
        left, top, right, bottom = pixels(payload.get("region") or [0, 0, 1, 1], picture.size)
        pixels_bgr = np.ascontiguousarray(np.asarray(picture.crop((left, top, right, bottom)))[:, :, ::-1])
        output = self._reader(pixels_bgr)
        lines: list[TextBox] = []
        for text, score, corners in zip(
            output.txts or (), output.scores or (), [] if output.boxes is None else output.boxes, strict=True
        ):
            if score < self._least_score or not text.strip():
                continue
            (x0, y0), (x1, y1) = np.min(corners, axis=0), np.max(corners, axis=0)
            box = (
                (left + x0) / picture.width,
                (top + y0) / picture.height,
                (x1 - x0) / picture.width,
                (y1 - y0) / picture.height,
            )
            lines.append((text.strip(), float(score), *(float(value) for value in box)))
        lines = reading_order(lines)
        return {
            "texts": [line[0] for line in lines],
            "scores": [round(line[1], 3) for line in lines],
            "corners": np.array([line[2:] for line in lines], dtype=np.float32).reshape(-1, 4),
        }


def pixels(region: list[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) in pixels of a region in fractions; each side is at least MIN_SIDE."""
    width, height = size
    x, y, w, h = (min(1.0, max(0.0, float(value))) for value in region)
    left, top = math.floor(x * width), math.floor(y * height)
    right, bottom = math.ceil(min(1.0, x + w) * width), math.ceil(min(1.0, y + h) * height)
    lacking = max(0, MIN_SIDE - (bottom - top))
    top, bottom = max(0, top - lacking // 2), min(height, bottom + lacking - lacking // 2)
    lacking = max(0, MIN_SIDE - (right - left))
    return max(0, left - lacking // 2), top, min(width, right + lacking - lacking // 2), bottom


def reading_order(lines: list[TextBox]) -> list[TextBox]:
    """Top to bottom; lines side by side (centres within half a line height) left to right."""
    rows: list[list[TextBox]] = []
    for line in sorted(lines, key=lambda item: item[3] + item[5] / 2):
        middle = line[3] + line[5] / 2
        if rows and abs(middle - (rows[-1][0][3] + rows[-1][0][5] / 2)) < 0.5 * min(line[5], rows[-1][0][5]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda item: item[2])]
