"""Sight on a CPU: one op, `look`, gives tags, boxes and an embedding of a JPEG; with `ocr` also the op `read`.

With `clip` it also gives a vector by which a sentence finds the picture, and tags of its own labels (`engines.clip`); the op `texts` gives
the sentences' vectors.

Tagger: EfficientNet-Lite3 (ImageNet, TFLite); detector: SSD-MobileNet-v2 (COCO, TensorFlow's frozen graph). OpenVINO reads
both files as they are. Measured at one thread: tagger 10 ms a view, detector 19 ms (engines/README.md).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engines import Engine, Op, Payload
from engines.build_vision import compiled
from engines.embed import answered
from streamsvc.core.errors import ModelMissing, WorkerError

if TYPE_CHECKING:
    from engines.clip import Matcher

TAGGER_SIDE, DETECTOR_SIDE = 280, 300  # pixels
FLAT = 3.0  # gray levels: a picture with less deviation is a single colour
SMALL_THINGS = 0.15  # added to the threshold for things that the detector likes to see in patterns
SAME_BOX = 0.7  # intersection over union
UNCONFIRMED = 0.3  # factor on a tag that the detector knows as a class too, and does not see
SEEN = 0.2  # score at which a box confirms a tag

_COCO = """
person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,,stop sign,parking meter,bench,bird,cat,dog,horse,
sheep,cow,elephant,bear,zebra,giraffe,,backpack,umbrella,,,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,
baseball glove,skateboard,surfboard,tennis racket,bottle,,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,
carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,,dining table,,,toilet,,tv,laptop,mouse,remote,keyboard,cell phone,
microwave,oven,toaster,sink,refrigerator,,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"""
COCO = _COCO.replace("\n", "").split(",")  # class 1 first; the numbers left out have no name
# Classes whose boxes can be believed at the plain threshold.
_PLAIN = "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe"
_FURNITURE = "chair,couch,bed,dining table,cup,bottle"
PLAIN = frozenset(f"{_PLAIN},{_FURNITURE}".split(","))
# What the tagger says of slides and terminals. True of nothing that is shown on them, so it is not claimed.
_SCREENS = "web site,menu,envelope,book jacket,comic book,crossword puzzle,oscilloscope,monitor,screen,television,notebook"
SCREENS = frozenset(_SCREENS.split(","))
# Kinds that the tagger cannot tell apart safely, under the name that all of them share (first names of ImageNet's labels).
FAMILIES = {
    "cat": "tabby,tiger cat,Persian cat,Siamese cat,Egyptian cat",
    "motorcycle": "moped,motor scooter",
    "rocket": "missile,projectile",
    "car": "cab,minivan,sports car,beach wagon,convertible,jeep,limousine,racer,Model T",
}
KNOWN_TO_DETECTOR = {  # tag -> class of the detector that must be seen too
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
    """Load the tagger and the detector, and OCR where options["ocr"].

    Args:
        options: "models" (folder of all models), "tagger", "detector" (names), "tag_threshold", "box_threshold", "ocr"; those of
            `clip.Matcher`, where "clip" names a model.

    Raises:
        ModelMissing: a file is not there or cannot be read; the message names it.
    """
    folder = Path(str(options["models"]))
    tagger = str(options.get("tagger", "efficientnet-lite3"))
    detector = str(options.get("detector", "ssd-mobilenet-v2-coco"))
    matcher = None
    if options.get("clip"):
        from engines import clip

        matcher = clip.Matcher(options)
    eyes = Eyes(
        Tagger(
            needed(folder / tagger / "efficientnet_lite3.tflite"),
            needed(folder / tagger / "efficientnet_labels.txt"),
        ),
        Detector(needed(folder / detector / "frozen_inference_graph.pb")),
        float(options.get("tag_threshold", 0.4)),
        float(options.get("box_threshold", 0.4)),
        matcher,
    )
    # No batches: on one core they gain nothing (engines/README.md), and the first of four sessions would wait for the last.
    ops: dict[str, Any] = {"look": Op(eyes.look)}
    describe = {"tagger": tagger, "detector": detector}
    if matcher is not None:
        texts = matcher.texts
        ops = {
            "look": Op(eyes.look, batch=matcher.together),
            "texts": Op(lambda batch: [answered(texts, payload) for payload in batch]),
        }
        describe["clip"] = matcher.describe
    if options.get("ocr", True):
        from engines import ocr

        reader = ocr.load(options)
        ops |= reader.ops
        describe |= reader.describe
    return Engine(ops, describe)


def needed(path: Path) -> Path:
    """The path, if there is a file with something in it."""
    if not path.is_file() or path.stat().st_size == 0:
        raise ModelMissing(f"the model file {path} is missing: run `streamsvc models pull`")
    return path


class Tagger:
    """1000 ImageNet classes, and the pooled features under them as an embedding."""

    def __init__(self, model: Path, labels: Path) -> None:
        self.labels = [
            line.split(",")[0].strip()
            for line in labels.read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]

        def shape(graph: Any) -> None:
            by_type = {op.get_type_name(): op for op in graph.get_ordered_ops()}  # the last of each type
            if "AvgPool" not in by_type or "Softmax" not in by_type or len(self.labels) != 1000:
                raise ModelMissing(
                    f"the model file {model} is not the tagger that was expected: run `streamsvc models pull`"
                )
            graph.add_outputs(
                [by_type["AvgPool"].output(0), by_type["Softmax"].output(0)]
            )  # before they are rounded to 8 bits

        self._compiled = compiled(model, shape)
        self._request = self._compiled.create_infer_request()

    def view(self, picture: Image.Image) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class probabilities, shape (1000,), and features, shape (1280,), of a square picture."""
        result = self._request.infer({0: np.asarray(picture, dtype=np.uint8)[None]})
        _, features, probabilities = (np.array(result[output]) for output in self._compiled.outputs)
        return probabilities.reshape(-1).astype(np.float32), features.reshape(-1).astype(np.float32)

    def tags(self, picture: Image.Image) -> tuple[dict[str, float], NDArray[np.float32]]:
        """Scores by label, and the embedding (unit length). A label scores what the whole picture and its middle both give it."""
        size = (TAGGER_SIDE, TAGGER_SIDE)
        whole, features = self.view(picture.resize(size, Image.Resampling.BILINEAR))
        middle, more = self.view(ImageOps.fit(picture, size, Image.Resampling.BILINEAR))
        scores = families(dict(zip(self.labels, whole.tolist(), strict=True)))
        again = families(dict(zip(self.labels, middle.tolist(), strict=True)))
        pooled = features + more
        return {name: min(score, again[name]) for name, score in scores.items()}, pooled / max(
            float(np.linalg.norm(pooled)), 1e-9
        )


class Detector:
    """80 COCO classes with boxes."""

    def __init__(self, model: Path) -> None:
        self._compiled = compiled(
            model, lambda graph: graph.reshape({0: [1, DETECTOR_SIDE, DETECTOR_SIDE, 3]})
        )
        self._request = self._compiled.create_infer_request()

    def boxes(self, picture: Image.Image) -> list[tuple[str, float, tuple[float, float, float, float]]]:
        """(label, score, (x, y, w, h) as fractions), best first, down to a score of 0.1."""
        small = picture.resize((DETECTOR_SIDE, DETECTOR_SIDE), Image.Resampling.BILINEAR)
        result = self._request.infer({0: np.asarray(small, dtype=np.uint8)[None]})
        corners, classes, scores, _ = (np.array(result[output])[0] for output in self._compiled.outputs)
        found: list[tuple[str, float, tuple[float, float, float, float]]] = []
        for (top, left, bottom, right), number, score in zip(
            np.clip(corners, 0, 1).tolist(), classes, scores, strict=True
        ):
            label = COCO[int(number) - 1] if 1 <= int(number) <= len(COCO) else ""
            box = (left, top, right - left, bottom - top)
            if label and score >= 0.1 and not any(overlap(box, other) > SAME_BOX for *_, other in found):
                found.append((label, float(score), box))
        return found


class Eyes:
    """The op `look`."""

    def __init__(
        self,
        tagger: Tagger,
        detector: Detector,
        tag_threshold: float,
        box_threshold: float,
        matcher: Matcher | None = None,
    ) -> None:
        self._tagger, self._detector, self._matcher = tagger, detector, matcher
        self._tag_threshold, self._box_threshold = tag_threshold, box_threshold

    def look(self, batch: list[Payload]) -> list[Payload | Exception]:
        """{"jpeg": uint8 bytes} -> {"embedding", "tags", "tag_scores", "boxes", "box_scores", "corners" (n, 4), "blank"}.

        With a vision-text model also "clip", float32 (d + 1,), unless the picture is blank: see `clip.Match`.
        """
        results: list[Payload | Exception] = []
        shown: dict[int, Image.Image] = {}  # place in the batch -> what a vision-text model is to look at
        for place, payload in enumerate(batch):
            try:
                picture = opened(payload["jpeg"])
            except (OSError, ValueError, KeyError, Image.DecompressionBombError):
                results.append(WorkerError("the picture cannot be read", code="bad_picture"))
                continue
            blank = float(np.asarray(picture.convert("L").resize((64, 36))).std()) < FLAT
            results.append(self._one(picture, blank))
            if self._matcher is not None and not blank:
                shown[place] = picture
        if self._matcher is not None:
            for place, match in zip(shown, self._matcher.look(list(shown.values())), strict=True):
                result = results[place]
                assert isinstance(result, dict)
                tags = joined(list(zip(result["tags"], result["tag_scores"], strict=True)), match.tags)
                results[place] = {**result, **_told(tags), "clip": match.vector}
        return results

    def _one(self, picture: Image.Image, blank: bool) -> Payload:
        scores, embedding = self._tagger.tags(picture)
        seen = [] if blank else self._detector.boxes(picture)
        boxes = [
            box for box in seen if box[1] >= self._box_threshold + (0.0 if box[0] in PLAIN else SMALL_THINGS)
        ]
        tags = (
            []
            if blank
            else claims(scores, {label for label, score, _ in seen if score >= SEEN}, self._tag_threshold)
        )
        return {
            "embedding": embedding.astype(np.float32),
            **_told(tags),
            "boxes": [label for label, _, _ in boxes],
            "box_scores": [round(score, 3) for _, score, _ in boxes],
            "corners": np.array([box for *_, box in boxes], dtype=np.float32).reshape(-1, 4),
            "blank": blank,
        }


def _told(tags: Sequence[tuple[str, float]]) -> Payload:
    return {"tags": [label for label, _ in tags], "tag_scores": [round(score, 3) for _, score in tags]}


def opened(jpeg: NDArray[np.uint8]) -> Image.Image:
    """A JPEG (or PNG) as an RGB picture."""
    picture = Image.open(io.BytesIO(jpeg.tobytes()))
    return picture.convert("RGB")


def families(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores with kinds that are easily confused added up under one name; the kinds themselves go."""
    result = dict(scores)
    for name, members in FAMILIES.items():
        result[name] = min(
            1.0, sum(result.pop(member, 0.0) for member in members.split(",")) + result.pop(name, 0.0)
        )
    return result


def claims(scores: Mapping[str, float], seen: set[str], threshold: float) -> list[tuple[str, float]]:
    """The labels that may be claimed, best first, at most five.

    What stands for a screen is left out; what the detector knows too, and does not see, counts less.
    """
    kept = []
    for label, score in scores.items():
        other = KNOWN_TO_DETECTOR.get(label)
        score *= UNCONFIRMED if other is not None and other not in seen else 1.0
        if score >= threshold and label not in SCREENS:
            kept.append((label, score))
    return sorted(kept, key=lambda tag: -tag[1])[:5]


def joined(tags: Sequence[tuple[str, float]], more: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The tags of two models, best first; what both name counts as the surer of them says."""
    best: dict[str, float] = {}
    for label, score in (*tags, *more):
        best[label] = max(score, best.get(label, 0.0))
    return sorted(best.items(), key=lambda tag: -tag[1])


def overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Intersection over union of two boxes (x, y, w, h)."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / max(a[2] * a[3] + b[2] * b[3] - shared, 1e-9)
