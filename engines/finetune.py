"""A LoRA adapter for a VLM from pictures with questions and answers, kept only if it is better on examples that it has not seen.

    python -m engines.finetune MODEL_FOLDER EXAMPLES.jsonl ADAPTER_NAME [--steps 200] [--rank 8]

A line of the file is {"picture": path, "question": str, "answer": str}; each fifth is held out. The loss is that of the answer's tokens
(visual question answering), on the very sequence that the engine shows the model. The tower stays as it is: its visual tokens are shared
by all sessions, so they are also computed once here.

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
from typing import Any

from engines.vlm_adapters import named, quiet
from engines.vlm_decoder import Decoder
from engines.vlm_model import Layout, loaded
from engines.vlm_tower import Tower
from engines.vlm_window import Picture, Piece
from streamsvc.errors import InvalidRequest

HELD_OUT = 5  # each so-manieth example of a file
MARGIN = 0.01  # share by which the held-out loss must fall at least: less is chance
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]  # of the language model's attention


@dataclass(frozen=True, slots=True)
class Example:
    """A picture (RGB), a question, and its answer."""

    picture: Any
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an adapter. Losses are of one answer's token, in nats.

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


def trained(
    model: tuple[Any, Any, Any],
    examples: Sequence[Example],
    held_out: Sequence[Example],
    place: Path,
    *,
    steps: int = 200,
    rank: int = 8,
    rate: float = 1e-3,
    batch: int = 4,
    seed: int = 0,
) -> Verdict:
    """Train an adapter, and keep it at `place` if the held-out loss falls. What is there already must be beaten too.

    Args:
        model: model, tokenizer and image processor (`vlm_model.loaded`). The model is left without an adapter.
        examples: to learn from.
        held_out: to judge by.
        place: the adapter's folder; it appears whole or not at all.
        steps: of training.
        rank: of the adapter's matrices.
        rate: of learning.
        batch: examples of a step.
        seed: of chance.

    Raises:
        InvalidRequest: there is nothing to learn from or to judge by.
    """
    import peft
    import torch

    if not examples or not held_out:
        raise InvalidRequest("training wants examples to learn from and others to judge by")
    whole, tokenizer, processor = model
    lesson = _Lesson(whole, Layout(whole.config, tokenizer), Tower(whole, processor))
    learnt, unseen = lesson.pieces(examples), lesson.pieces(held_out)
    before = lesson.loss(unseen)
    rival = _rival(whole, place, lesson, unseen) if place.is_dir() else before
    torch.manual_seed(seed)
    language = "text_model" if hasattr(whole.model, "text_model") else "language_model"
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=rf".*\.{language}\..*\.({'|'.join(TARGETS)})")
    with quiet():
        adapted = peft.get_peft_model(whole, config)
    try:
        losses = _learn(adapted, lesson, learnt, steps=steps, rate=rate, batch=batch)
        after = lesson.loss(unseen)
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


class _Lesson:
    """Examples as the engine would show them, and the loss of their answers."""

    def __init__(self, model: Any, layout: Layout, tower: Tower) -> None:
        self._model, self._layout, self._tower = model, layout, tower
        self._decoder = Decoder(model)

    def pieces(self, examples: Sequence[Example]) -> list[tuple[Piece, ...]]:
        """Each example's sequence; the last piece is the answer with the token that ends it."""
        layout = self._layout
        rows: list[tuple[Piece, ...]] = []
        for number, example in enumerate(examples):
            (sight,) = self._tower.see([example.picture])
            answer = Piece((*layout.text(example.answer), min(layout.ends)))
            rows.append((layout.head, layout.shown(0.0, Picture(f"{number}", *sight)), layout.question(example.question), answer))
        return rows

    def one(self, pieces: tuple[Piece, ...]) -> Any:
        """Loss of one answer, a mean over its tokens; differentiable where the adapter is."""
        import torch

        ids, _ = self._decoder.positions(pieces)
        count = len(pieces[-1].ids)
        out = self._model(inputs_embeds=self._decoder.embeddings(pieces), position_ids=ids, use_cache=False, logits_to_keep=count + 1)
        wanted = torch.tensor(pieces[-1].ids, device=out.logits.device)
        return torch.nn.functional.cross_entropy(out.logits[0, :-1].float(), wanted)

    def loss(self, rows: Sequence[tuple[Piece, ...]]) -> float:
        """Mean over examples."""
        import torch

        self._model.eval()
        with torch.no_grad():
            return float(sum(self.one(row) for row in rows) / len(rows))


def _learn(adapted: Any, lesson: _Lesson, rows: Sequence[tuple[Piece, ...]], *, steps: int, rate: float, batch: int) -> list[float]:
    """Train; the loss of each step."""
    import torch

    weights = [weight for weight in adapted.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    adapted.train()
    losses = []
    for _ in range(steps):
        chosen = [rows[n] for n in torch.randperm(len(rows))[:batch].tolist()]
        loss: Any = torch.stack([lesson.one(row) for row in chosen]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def _rival(model: Any, place: Path, lesson: _Lesson, unseen: Sequence[tuple[Piece, ...]]) -> float:
    """Held-out loss of the adapter that is there already."""
    import peft

    with quiet():
        adapted = peft.PeftModel.from_pretrained(model, str(place))
    try:
        return lesson.loss(unseen)
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


def read(path: Path) -> tuple[list[Example], list[Example]]:
    """Examples of a file to learn from, and those held out. Pictures' paths are relative to the file.

    Raises:
        InvalidRequest: a line is none.
    """
    from PIL import Image

    rows: list[Example] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            with Image.open(path.parent / row["picture"]) as picture:
                rows.append(Example(picture.convert("RGB"), str(row["question"]), str(row["answer"])))
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise InvalidRequest(f"{path.name}, line {number}: no example ({type(error).__name__})") from None
    return [row for n, row in enumerate(rows) if n % HELD_OUT], rows[::HELD_OUT]


def main() -> int:
    """The command; exit status 1 if the adapter was refused."""
    parser = argparse.ArgumentParser(description="Train a LoRA adapter; it is kept only if it is better on held-out examples.")
    parser.add_argument("model", type=Path)
    parser.add_argument("examples", type=Path)
    parser.add_argument("name")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--device", default="cpu")
    asked = parser.parse_args()
    place = named(asked.model.parent / "adapters", asked.name)
    verdict = trained(loaded(asked.model, asked.device), *read(asked.examples), place, steps=asked.steps, rank=asked.rank, rate=asked.rate)
    print(verdict.why)
    return 0 if verdict.accepted else 1


if __name__ == "__main__":
    sys.exit(main())
