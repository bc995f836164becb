"""The vision engine: op `look` gives tags, boxes and an embedding of a JPEG; with `ocr` also op `read`.

With `clip`, `look` also gives a vector for search by sentences and tags from a list of labels
(`engines.clip`), and op `texts` gives the vectors of sentences.

Tagger (`engines.tagger`): EfficientNet-Lite3 (ImageNet), through the encoder of this machine. Detector:
SSD-MobileNet-v2 (COCO, TensorFlow frozen graph) in OpenVINO on the CPU. Times: engines/README.md.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines import Engine, Op, Payload
from engines.build_vision import compiled
from engines.embed import embed_request
from engines.fetch import folder_of
from engines.files import model_file
from engines.image import decode_image
from engines.tagger import Tagger
from streamsvc.core.errors import WorkerError

if TYPE_CHECKING:
    from engines.clip import Matcher

TAGGER = "efficientnet-lite3"  # by default
DETECTOR_SIDE = 300  # pixels
BLANK_DEVIATION = 3.0  # gray levels; a picture with a lower standard deviation is blank
UNRELIABLE_MARGIN = 0.15  # added to the box threshold for classes that the detector often sees in patterns
SAME_BOX = 0.7  # intersection over union above which two boxes are duplicates
UNCONFIRMED = 0.3  # factor on a tag whose object class the detector knows and has not detected
CONFIRMS = 0.2  # score at which a box confirms a tag
MAX_TAGS = 5

Box = tuple[float, float, float, float]  # x, y, width, height as fractions of the picture

_COCO = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,
parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,
tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,
tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,
hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,
keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,,book,clock,vase,scissors,
teddy bear,hair drier,toothbrush"""
COCO = _COCO.replace("\n", "").split(",")  # from class 1; unused class numbers are empty
# Classes whose boxes are reliable at the configured threshold.
_VEHICLES = "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat"
_ANIMALS = "bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe"
_FURNITURE = "chair,couch,bed,dining table,cup,bottle"
RELIABLE = frozenset(f"{_VEHICLES},{_ANIMALS},{_FURNITURE}".split(","))
# Tags of slides and terminals themselves. They say nothing about the content, so they are dropped.
_PAGES = "web site,menu,envelope,book jacket,comic book,crossword puzzle"
_DEVICES = "oscilloscope,monitor,screen,television,notebook"
SCREENS = frozenset(f"{_PAGES},{_DEVICES}".split(","))
DETECTOR_CLASS = {  # tag -> class that the detector must confirm
    "cat": "cat",
    "motorcycle": "motorcycle",
    "car": "car",
    "cellular telephone": "cell phone",
    "ski": "skis",
    "traffic light": "traffic light",
    "laptop": "laptop",
    "folding chair": "chair",
    "umbrella": "umbrella",
    "computer keyboard": "keyboard",
    "mouse": "mouse",
    "pizza": "pizza",
    "banana": "banana",
    "broccoli": "broccoli",
    "zebra": "zebra",
    "airliner": "airplane",
    "toilet seat": "toilet",
    "park bench": "bench",
}


def load(options: Mapping[str, Any]) -> Engine:
    """Load the tagger, the detector and, as options["ocr"] and options["clip"] say, OCR and a CLIP model.

    Args:
        options: "models" (folder of models), "tagger", "detector" (names), "tag_threshold", "box_threshold",
            "ocr"; with "clip" also those of `clip.Matcher`.

    Raises:
        ModelMissing: a file is missing or cannot be read; the message names it.
    """
    folder = Path(str(options["models"]))
    tagger = str(options.get("tagger", TAGGER))
    detector = str(options.get("detector", "ssd-mobilenet-v2-coco"))
    known = Tagger(folder_of(tagger, folder))
    matcher = None
    if options.get("clip"):
        from engines import clip

        matcher = clip.Matcher(options)
    recognizer = Recognizer(
        known,
        Detector(model_file(folder_of(detector, folder) / "frozen_inference_graph.pb")),
        float(options.get("tag_threshold", 0.4)),
        float(options.get("box_threshold", 0.4)),
        matcher,
    )
    # Batch size 1: batches save nothing on one core (engines/README.md) and add latency.
    ops: dict[str, Any] = {"look": Op(recognizer.look)}
    runtime = f"{tagger}: {known.encoder.choice}"
    describe = {"tagger": tagger, "detector": detector, "runtime": runtime}
    if matcher is not None:
        texts = matcher.texts
        ops = {
            "look": Op(recognizer.look, batch=matcher.batch),
            "texts": Op(lambda batch: [embed_request(texts, payload) for payload in batch]),
        }
        describe |= {"clip": matcher.describe, "runtime": f"{runtime}; {matcher.describe}"}
    if options.get("ocr", True):
        from engines import ocr

        reader = ocr.load(options)
        ops |= reader.ops
        describe |= reader.describe
    return Engine(ops, describe, ("look", {"jpeg": _grey_picture()}))


def _grey_picture() -> NDArray[np.uint8]:
    """The bytes of a small JPEG."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(file, "JPEG")
    return np.frombuffer(file.getvalue(), np.uint8)


class Detector:
    """Boxes of 80 COCO classes."""

    def __init__(self, model: Path) -> None:
        self._compiled = compiled(
            model, lambda graph: graph.reshape({0: [1, DETECTOR_SIDE, DETECTOR_SIDE, 3]})
        )
        self._request = self._compiled.create_infer_request()

    def boxes(self, picture: Image.Image) -> list[tuple[str, float, Box]]:
        """(label, score, box), best first, down to a score of 0.1, without duplicates."""
        small = picture.resize((DETECTOR_SIDE, DETECTOR_SIDE), Image.Resampling.BILINEAR)
        result = self._request.infer({0: np.asarray(small, dtype=np.uint8)[None]})
        corners, classes, scores, _ = (np.array(result[output])[0] for output in self._compiled.outputs)
        boxes: list[tuple[str, float, Box]] = []
        for (top, left, bottom, right), number, score in zip(
            np.clip(corners, 0, 1).tolist(), classes, scores, strict=True
        ):
            label = COCO[int(number) - 1] if 1 <= int(number) <= len(COCO) else ""
            box = (left, top, right - left, bottom - top)
            if label and score >= 0.1 and not any(overlap(box, other) > SAME_BOX for *_, other in boxes):
                boxes.append((label, float(score), box))
        return boxes


class Recognizer:
    """Op `look`: tagger, detector and, if given, a vision-text model on each picture."""

    def __init__(
        self,
        tagger: Tagger,
        detector: Detector,
        tag_threshold: float,
        box_threshold: float,
        matcher: Matcher | None = None,
    ) -> None:
        self._tagger = tagger
        self._detector = detector
        self._matcher = matcher
        self._tag_threshold = tag_threshold
        self._box_threshold = box_threshold

    def look(self, batch: list[Payload]) -> list[Payload | Exception]:
        """Op `look`.

        {"jpeg": uint8 bytes} ->
        {"embedding", "tags", "tag_scores", "boxes", "box_scores", "corners" (n, 4), "blank"}.
        With a vision-text model also "clip", float32 (d + 1,), unless the picture is blank (`clip.Match`).
        """
        results: list[Payload | Exception] = []
        pictures: dict[int, Image.Image] = {}  # by index in the batch, for the vision-text model
        for index, payload in enumerate(batch):
            try:
                picture = decode_image(payload)
            except WorkerError as error:
                results.append(error)
                continue
            blank = float(np.asarray(picture.convert("L").resize((64, 36))).std()) < BLANK_DEVIATION
            results.append(self._recognize(picture, blank))
            if self._matcher is not None and not blank:
                pictures[index] = picture
        if self._matcher is not None:
            for index, match in zip(pictures, self._matcher.look(list(pictures.values())), strict=True):
                result = results[index]
                assert isinstance(result, dict)
                tags = join_tags(list(zip(result["tags"], result["tag_scores"], strict=True)), match.tags)
                results[index] = {**result, **_tag_fields(tags), "clip": match.vector}
        return results

    def _recognize(self, picture: Image.Image, blank: bool) -> Payload:
        scores, embedding = self._tagger.tags(picture)
        detected = [] if blank else self._detector.boxes(picture)
        boxes = [
            box
            for box in detected
            if box[1] >= self._box_threshold + (0.0 if box[0] in RELIABLE else UNRELIABLE_MARGIN)
        ]
        tags = (
            []
            if blank
            else select_tags(
                scores, {label for label, score, _ in detected if score >= CONFIRMS}, self._tag_threshold
            )
        )
        return {
            "embedding": embedding.astype(np.float32),
            **_tag_fields(tags),
            "boxes": [label for label, _, _ in boxes],
            "box_scores": [round(score, 3) for _, score, _ in boxes],
            "corners": np.array([box for *_, box in boxes], dtype=np.float32).reshape(-1, 4),
            "blank": blank,
        }


def _tag_fields(tags: Sequence[tuple[str, float]]) -> Payload:
    return {"tags": [label for label, _ in tags], "tag_scores": [round(score, 3) for _, score in tags]}


def select_tags(scores: Mapping[str, float], detected: set[str], threshold: float) -> list[tuple[str, float]]:
    """The tags at or above the threshold, best first, at most MAX_TAGS.

    Tags in SCREENS are dropped. A tag that the detector could confirm and has not scores less.
    """
    tags = []
    for label, score in scores.items():
        detector_class = DETECTOR_CLASS.get(label)
        score *= UNCONFIRMED if detector_class is not None and detector_class not in detected else 1.0
        if score >= threshold and label not in SCREENS:
            tags.append((label, score))
    return sorted(tags, key=lambda tag: -tag[1])[:MAX_TAGS]


def join_tags(
    tags: Sequence[tuple[str, float]], more: Sequence[tuple[str, float]]
) -> list[tuple[str, float]]:
    """The tags of two models, best first; a tag of both has the higher score."""
    best: dict[str, float] = {}
    for label, score in (*tags, *more):
        best[label] = max(score, best.get(label, 0.0))
    return sorted(best.items(), key=lambda tag: -tag[1])


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / max(a[2] * a[3] + b[2] * b[3] - shared, 1e-9)
