"""A LoRA adapter for a model that sees, from pictures with texts, kept only if it is better on examples that it has not seen.

    python -m engines.finetune MODEL_FOLDER EXAMPLES.jsonl ADAPTER_NAME [--steps 200] [--rank 8] [--batch N]

Each fifth line of the file is held out. The class of the model decides what is learnt:

- A VLM (`vlm_model`): {"picture": path, "question": str, "answer": str}. The loss is that of the answer's tokens (visual question
  answering), on the very sequence that the engine shows the model. The tower stays as it is: its visual tokens are shared by all
  sessions, so they are also computed once here.
- CLIP or SigLIP (`clip`): {"picture": path, "text": str}. The loss is the class's contrastive one; the vision tower learns (`contrast`).

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

HELD_OUT = 5  # each so-manieth example of a file
MARGIN = 0.01  # share by which the held-out loss must fall at least: less is chance


@dataclass(frozen=True, slots=True)
class Example:
    """A picture (RGB), a question, and its answer."""

    picture: Any
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an adapter. Losses in nats: of one answer's token, or of a pair.

    `before`, `after`: held-out loss without and with it. `first`, `last`: of the first and last tenth of the steps. `accepted`: whether it
    was kept, at `place`. `why`: in words.
    """

    before: float
    after: float
    first: float
    last: float
    accepted: bool
    why: str
    place: Path | None


class Lesson(Protocol):
    """What a model is taught. `batch`: examples of a step, unless told otherwise; `targets`: pattern of the layers that get an adapter."""

    batch: int

    @property
    def targets(self) -> str: ...  # noqa: D102

    def rows(self, examples: Sequence[Any]) -> Sequence[Any]:
        """Examples as the model takes them. Raises InvalidRequest: they are of another kind, or too few."""

    def loss(self, rows: Sequence[Any]) -> Any:
        """Of one step, a scalar; differentiable where the adapter is."""

    def judged(self, rows: Sequence[Any]) -> float:
        """The loss of all that is held out, the model as it is."""


def trained(
    model: tuple[Any, Any, Any],
    examples: Sequence[Example | Pair],
    held_out: Sequence[Example | Pair],
    place: Path,
    *,
    steps: int = 200,
    rank: int = 8,
    rate: float = 1e-3,
    batch: int | None = None,
    seed: int = 0,
) -> Verdict:
    """Train an adapter, and keep it at `place` if the held-out loss falls. What is there already must be beaten too.

    Args:
        model: model, tokenizer and image processor (`vlm_model.load_model`, `clip.load_model`). The model is left without an adapter.
        examples: to learn from.
        held_out: to judge by.
        place: the adapter's folder; it appears whole or not at all.
        steps: of training.
        rank: of the adapter's matrices.
        rate: of learning.
        batch: examples of a step; None: as the lesson has it.
        seed: of chance.

    Raises:
        InvalidRequest: there is nothing to learn from or to judge by, or it is not for such a model.
    """
    import peft
    import torch

    if not examples or not held_out:
        raise InvalidRequest("training wants examples to learn from and others to judge by")
    whole = model[0]
    lesson: Lesson = Contrast(*model) if hasattr(whole, "logit_scale") else Answers(*model)
    learnt, unseen = lesson.rows(examples), lesson.rows(held_out)
    before = lesson.judged(unseen)
    rival = _rival(whole, place, lesson, unseen) if place.is_dir() else before
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=lesson.targets)
    with suppress_future_warnings():
        adapted = peft.get_peft_model(whole, config)
    try:
        losses = _learn(adapted, lesson, learnt, steps=steps, rate=rate, batch=batch or lesson.batch)
        after = lesson.judged(unseen)
        goal = min(before, rival) * (1 - MARGIN)
        accepted = math.isfinite(after) and after <= goal
        if accepted:
            _keep(adapted, place)
    finally:
        adapted.unload()
        whole.eval().requires_grad_(False)
    tenth = max(1, len(losses) // 10)
    why = f"held-out loss {before:.3f} -> {after:.3f}, wanted at most {goal:.3f}: {'accepted' if accepted else 'refused'}"
    ends = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return Verdict(before, after, *ends, accepted, why, place if accepted else None)


class Answers:
    """Examples as the engine would show them to a VLM, and the loss of their answers."""

    batch = 4

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self._model, self._layout, self._tower = (
            model,
            Layout(model.config, tokenizer),
            Tower(model, processor),
        )
        self._decoder = Decoder(model)

    @property
    def targets(self) -> str:
        """Attention of the language model."""
        language = "text_model" if hasattr(self._model.model, "text_model") else "language_model"
        return rf".*\.{language}\..*\.(q_proj|k_proj|v_proj|o_proj)"

    def rows(self, examples: Sequence[Any]) -> list[tuple[Piece, ...]]:
        """Each example's sequence; the last piece is the answer with the token that ends it."""
        layout = self._layout
        rows: list[tuple[Piece, ...]] = []
        for number, example in enumerate(examples):
            if not isinstance(example, Example):
                raise InvalidRequest(
                    'this model learns from answers: {"picture": path, "question": str, "answer": str}'
                )
            (sight,) = self._tower.encode([example.picture])
            answer = Piece((*layout.text(example.answer), min(layout.ends)))
            rows.append(
                (
                    layout.head,
                    layout.picture_line(0.0, Picture(f"{number}", *sight)),
                    layout.question(example.question),
                    answer,
                )
            )
        return rows

    def one(self, pieces: tuple[Piece, ...]) -> Any:
        """Loss of one answer, a mean over its tokens; differentiable where the adapter is."""
        import torch

        ids, _ = self._decoder.positions(pieces)
        count = len(pieces[-1].ids)
        out = self._model(
            inputs_embeds=self._decoder.embeddings(pieces),
            position_ids=ids,
            use_cache=False,
            logits_to_keep=count + 1,
        )
        wanted = torch.tensor(pieces[-1].ids, device=out.logits.device)
        return torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), wanted)

    def loss(self, rows: Sequence[tuple[Piece, ...]]) -> Any:
        """Mean over examples."""
        import torch

        return torch.stack([self.one(row) for row in rows]).mean()

    def judged(self, rows: Sequence[tuple[Piece, ...]]) -> float:
        """Mean over examples."""
        import torch

        self._model.eval()
        with torch.no_grad():
            return float(self.loss(rows))


def _learn(
    adapted: Any, lesson: Lesson, rows: Sequence[Any], *, steps: int, rate: float, batch: int
) -> list[float]:
    """Train; the loss of each step."""
    import torch

    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    adapted.train()
    losses = []
    for _ in range(steps):
        chosen = [rows[n] for n in torch.randperm(len(rows))[:batch].tolist()]
        loss = lesson.loss(chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _rival(model: Any, place: Path, lesson: Lesson, unseen: Sequence[Any]) -> float:
    """Held-out loss of the adapter that is there already."""
    import peft

    with suppress_future_warnings():
        adapted = peft.PeftModel.from_pretrained(model, str(place))
    try:
        return lesson.judged(unseen)
    finally:
        adapted.unload()


def _keep(adapted: Any, place: Path) -> None:
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
    """Examples of a file to learn from, and those held out: a line with "text" is a pair. Pictures' paths are relative to the file.

    Raises:
        InvalidRequest: a line is none.
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
            raise InvalidRequest(f"{path.name}, line {number}: no example ({type(error).__name__})") from None
    return [row for n, row in enumerate(rows) if n % HELD_OUT], rows[::HELD_OUT]


def main() -> int:
    """The command; exit status 1 if the adapter was refused."""
    parser = argparse.ArgumentParser(
        description="Train a LoRA adapter; it is kept only if it is better on held-out examples."
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("examples", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    place = adapter_path(asked.model.parent / "adapters", asked.name)
    model = (clip.load_model if clip.fits(asked.model) else load_model)(asked.model, asked.device)
    verdict = trained(
        model,
        *read(asked.examples),
        place,
        steps=asked.steps,
        rank=asked.rank,
        rate=asked.rate,
        batch=asked.batch,
    )
    print(verdict.why)
    return 0 if verdict.accepted else 1


if __name__ == "__main__":
    sys.exit(main())
