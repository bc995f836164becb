"""Trains a LoRA adapter of a VLM, CLIP or SigLIP model, and saves it only if the held-out loss falls.

    python -m engines.finetune MODEL_FOLDER EXAMPLES.jsonl ADAPTER_NAME [--steps 200] [--rank 8] [--batch N]

Every fifth line of the file is held out. The model's class decides what is trained:

- VLM (`vlm_model`): {"picture": path, "question": str, "answer": str}. The loss is that of the answer's
  tokens (visual question answering), on the same token sequence that the engine uses. The vision tower stays
  fixed, because all sessions share its visual tokens; so they are computed once.
- CLIP or SigLIP (`clip`): {"picture": path, "text": str}. The loss is the class's contrastive loss; the
  vision tower is trained (`contrast`).

Source: E. Hu et al. 2021 (LoRA), through peft.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engines import clip
from engines.contrast import Contrast, Pair
from engines.vlm_adapters import adapter_path, suppress_future_warnings
from engines.vlm_decoder import Decoder
from engines.vlm_model import Layout, load_model
from engines.vlm_tower import Tower
from engines.vlm_window import Picture, Piece
from streamsvc.core.errors import InvalidRequest

HELD_OUT = 5  # every fifth example of a file
MARGIN = 0.01  # relative reduction of the held-out loss that an adapter must reach; less may be chance


@dataclass(frozen=True, slots=True)
class Example:
    """A training example: a picture (RGB), a question and its answer."""

    picture: Any
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Training:
    """Settings of a training.

    Args:
        steps: number of steps.
        rank: of the adapter's matrices.
        rate: learning rate.
        batch: examples per step; None: the objective's default.
        seed: of the random choice of examples and the initial weights.
    """

    steps: int = 200
    rank: int = 8
    rate: float = 1e-3
    batch: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a training. Losses in nats, per token of an answer or per pair.

    `before`, `after`: held-out loss without and with the adapter. `first`, `last`: mean training loss of the
    first and last tenth of the steps. `accepted`: whether the adapter was saved, at `place`. `why`:
    explanation.
    """

    before: float
    after: float
    first: float
    last: float
    accepted: bool
    why: str
    place: Path | None


class Objective(Protocol):
    """A training objective.

    `batch`: default examples per step.
    """

    batch: int

    @property
    def targets(self) -> str:
        """Pattern of the layers that get an adapter."""

    def prepare(self, examples: Sequence[Any]) -> Sequence[Any]:
        """Examples as input of the model. Raises InvalidRequest: examples of another kind, or too few."""

    def loss(self, rows: Sequence[Any]) -> Any:
        """The loss of one step, a scalar tensor."""

    def evaluate(self, rows: Sequence[Any]) -> float:
        """The loss of the held-out examples with the current model."""


def train(
    model: tuple[Any, Any, Any],
    examples: Sequence[Example | Pair],
    held_out: Sequence[Example | Pair],
    place: Path,
    training: Training = Training(),
) -> Verdict:
    """Train an adapter and save it at `place` if the held-out loss falls.

    It must also beat an adapter already at `place`.

    Args:
        model: model, tokenizer and image processor (`vlm_model.load_model`, `clip.load_model`). Its weights
            are restored.
        examples: training examples.
        held_out: examples for evaluation only.
        place: the adapter's folder, created atomically.
        training: settings.

    Raises:
        InvalidRequest: there are no training or no held-out examples, or they do not fit the model's class.
    """
    import peft
    import torch

    if not examples or not held_out:
        raise InvalidRequest("training needs training examples and held-out examples")
    whole = model[0]
    objective: Objective = Contrast(*model) if hasattr(whole, "logit_scale") else Answers(*model)
    rows = objective.prepare(examples)
    unseen = objective.prepare(held_out)
    before = objective.evaluate(unseen)
    existing = _existing_loss(whole, place, objective, unseen) if place.is_dir() else before
    torch.manual_seed(training.seed)
    rank = training.rank
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=objective.targets)
    with suppress_future_warnings():
        adapted = peft.get_peft_model(whole, config)
    try:
        losses = _fit(adapted, objective, rows, training)
        after = objective.evaluate(unseen)
        goal = min(before, existing) * (1 - MARGIN)
        accepted = math.isfinite(after) and after <= goal
        if accepted:
            _save(adapted, place)
    finally:
        adapted.unload()
        whole.eval().requires_grad_(False)
    tenth = max(1, len(losses) // 10)
    decision = "accepted" if accepted else "refused"
    why = f"held-out loss {before:.3f} -> {after:.3f}, at most {goal:.3f} required: {decision}"
    ends = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return Verdict(before, after, *ends, accepted, why, place if accepted else None)


class Answers:
    """The objective of a VLM: the loss of answers, on the engine's own token sequences."""

    batch = 4

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self._model = model
        self._layout = Layout(model.config, tokenizer)
        self._tower = Tower(model, processor)
        self._decoder = Decoder(model)

    @property
    def targets(self) -> str:
        """The attention layers of the language model."""
        language = "text_model" if hasattr(self._model.model, "text_model") else "language_model"
        return rf".*\.{language}\..*\.(q_proj|k_proj|v_proj|o_proj)"

    def prepare(self, examples: Sequence[Any]) -> list[tuple[Piece, ...]]:
        """Each example's sequence; the last piece is the answer with its end token."""
        layout = self._layout
        rows: list[tuple[Piece, ...]] = []
        for number, example in enumerate(examples):
            if not isinstance(example, Example):
                raise InvalidRequest(
                    "this model is trained with questions and answers: "
                    '{"picture": path, "question": str, "answer": str}'
                )
            (visual,) = self._tower.encode([example.picture])
            answer = Piece((*layout.text(example.answer), min(layout.ends)))
            rows.append(
                (
                    layout.head,
                    layout.picture_line("[1] 0:00 picture: a picture", Picture(f"{number}", *visual)),
                    layout.question(example.question),
                    answer,
                )
            )
        return rows

    def _answer_loss(self, pieces: tuple[Piece, ...]) -> Any:
        """Mean loss over the tokens of one answer, a scalar tensor."""
        import torch

        ids, _ = self._decoder.positions(pieces)
        count = len(pieces[-1].ids)
        out = self._model(
            inputs_embeds=self._decoder.embeddings(pieces),
            position_ids=ids,
            use_cache=False,
            logits_to_keep=count + 1,
        )
        targets = torch.tensor(pieces[-1].ids, device=out.logits.device)
        return torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), targets)

    def loss(self, rows: Sequence[tuple[Piece, ...]]) -> Any:
        """Mean loss over examples."""
        import torch

        return torch.stack([self._answer_loss(row) for row in rows]).mean()

    def evaluate(self, rows: Sequence[tuple[Piece, ...]]) -> float:
        """Mean loss over examples."""
        import torch

        self._model.eval()
        with torch.no_grad():
            return float(self.loss(rows))


def _fit(adapted: Any, objective: Objective, rows: Sequence[Any], training: Training) -> list[float]:
    """Run the training. Returns the loss of each step."""
    import torch

    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=training.rate, weight_decay=0.0)
    adapted.train()
    losses = []
    for _ in range(training.steps):
        chosen = [rows[n] for n in torch.randperm(len(rows))[: training.batch or objective.batch].tolist()]
        loss = objective.loss(chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _existing_loss(model: Any, place: Path, objective: Objective, unseen: Sequence[Any]) -> float:
    """Held-out loss of the adapter that already exists."""
    import peft

    with suppress_future_warnings():
        adapted = peft.PeftModel.from_pretrained(model, str(place))
    try:
        return objective.evaluate(unseen)
    finally:
        adapted.unload()


def _save(adapted: Any, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".training-", dir=place.parent))
    try:
        adapted.save_pretrained(str(scratch / "adapter"), safe_serialization=True)
        if place.is_dir():
            place.rename(scratch / "old")
        (scratch / "adapter").rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read(path: Path) -> tuple[list[Example | Pair], list[Example | Pair]]:
    """Training and held-out examples of a file.

    A line with "text" is a pair. Picture paths are relative to the file.

    Raises:
        InvalidRequest: a line is not an example.
    """
    from PIL import Image

    rows: list[Example | Pair] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            with Image.open(path.parent / row["picture"]) as opened:
                picture = opened.convert("RGB")
            rows.append(
                Pair(picture, str(row["text"]))
                if "text" in row
                else Example(picture, str(row["question"]), str(row["answer"]))
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InvalidRequest(
                f"{path.name}, line {number}: not an example ({type(error).__name__})"
            ) from None
    return [row for n, row in enumerate(rows) if n % HELD_OUT], rows[::HELD_OUT]


def main() -> int:
    """Command line. Returns 1 if the adapter was refused."""
    parser = argparse.ArgumentParser(
        description="Train a LoRA adapter; it is saved only if it is better on held-out examples."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("examples", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--device", default="cpu")
    parsed = parser.parse_args()
    place = adapter_path(parsed.model.parent / "adapters", parsed.name)
    model = (clip.load_model if clip.is_supported(parsed.model) else load_model)(parsed.model, parsed.device)
    examples, held_out = read(parsed.examples)
    training = Training(parsed.steps, parsed.rank, parsed.rate, parsed.batch)
    verdict = train(model, examples, held_out, place, training)
    print(verdict.why)
    return 0 if verdict.accepted else 1


if __name__ == "__main__":
    sys.exit(main())
