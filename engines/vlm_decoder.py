"""The language model of a transformers VLM, fed with embeddings that were put together here, on keys and values that are kept.

Of a sequence, only what differs from the last one is computed: `Kept` remembers what its keys and values were made of, is cut where the new
sequence departs, and goes on from there. So a window that grows at its end costs its new tokens, whatever its length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from engines.vlm_steps import Steps
from engines.vlm_window import Piece, common, length, positions

Switch = Callable[
    [str], AbstractContextManager[None]
]  # while it is entered the model has this adapter; see vlm_adapters


class Kept:
    """Keys and values of one sequence. Belongs to one caller at a time.

    Attributes:
        pieces: what they were made of; tokens stepped after these are not among them.
        adapter: with which adapter.
        reused, computed: tokens of the last `Decoder.read` that were here already, and that were not.
    """

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.cache: Any = DynamicCache()  # without a config: layers that slide could not be cut
        self.pieces: tuple[Piece, ...] = ()
        self.adapter = ""
        self.reused = self.computed = 0
        self.position = 0  # of the next token

    @property
    def tokens(self) -> int:
        """How many tokens' keys and values are held."""
        return int(self.cache.get_seq_length())


class Decoder:
    """The language model.

    Args:
        model: a transformers class for image-text-to-text, in eval mode.
        switch: turns adapters on and off.
        room: tokens of the longest sequence whose answers go by `vlm_steps`; 0: none do, as on a CPU, where nothing is gained by it.
    """

    def __init__(self, model: Any, switch: Switch | None = None, room: int = 0) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._switch = switch or (lambda adapter: nullcontext())
        self._grids = hasattr(model.model, "get_rope_index")  # Qwen's: positions in three rows
        self._place = (3, 1, 1) if self._grids else (1, 1)
        self._steps = Steps(model, room, self._place) if room else None

    def embeddings(self, pieces: Iterable[Piece]) -> Any:
        """`inputs_embeds` of pieces in a row, shape (1, tokens, width): visual tokens where their placeholders stand."""
        torch, table = self._torch, self._model.get_input_embeddings()
        parts = []
        for piece in pieces:
            part = table(torch.tensor(piece.ids, dtype=torch.long, device=table.weight.device))
            if piece.picture is not None:
                tokens = torch.as_tensor(piece.picture.tokens).to(part.device, part.dtype)
                part = torch.cat([part[: piece.first], tokens, part[piece.first + len(tokens) :]])
            parts.append(part)
        return torch.cat(parts)[None]

    def positions(self, pieces: Sequence[Piece]) -> tuple[Any, int]:
        """`position_ids` of pieces in a row as the model's class wants them, and the position of the token after them."""
        rows, after = positions(pieces)
        ids = self._torch.from_numpy(rows[:, None] if self._grids else rows[0][None]).to(self._model.device)
        return ids, after

    def read(self, kept: Kept, pieces: Sequence[Piece], adapter: str = "") -> Any:
        """Logits after the last token, shape (vocabulary,), float32. `kept` holds the sequence afterwards.

        After an error `kept` is of no more use.
        """
        start = common(kept.pieces, pieces) if kept.adapter == adapter else 0
        start = min(start, kept.tokens, length(pieces) - 1)  # one token at least is run: it has the logits
        cut = kept.tokens - start
        if cut:
            kept.cache.crop(-cut)
        done = whole = 0  # pieces that need no embedding, and their tokens
        while whole + len(pieces[done].ids) <= start:
            whole, done = whole + len(pieces[done].ids), done + 1
        with self._torch.inference_mode():
            ids, after = self.positions(pieces)
            embeds = self.embeddings(pieces[done:])[:, start - whole :]
            logits = self._run(kept, embeds, ids[..., start:], adapter)
        kept.pieces, kept.adapter, kept.position = tuple(pieces), adapter, after
        kept.reused, kept.computed = start, embeds.shape[1]
        return logits

    def step(self, kept: Kept, token: int) -> Any:
        """Logits after one more token."""
        with self._torch.inference_mode():
            ids = self._torch.full(self._place, kept.position, device=self._model.device)
            logits = self._run(kept, self.embeddings([Piece((token,))]), ids, kept.adapter)
        kept.position += 1
        return logits

    @contextmanager
    def answering(self, kept: Kept, most: int) -> Iterator[Callable[[int], Any]]:
        """`step` of one sequence for an answer of at most so many tokens; `kept` grows when it ends. One answer at a time."""
        steps = self._steps
        if steps is None or kept.adapter or kept.tokens + most > steps.room:
            yield partial(self.step, kept)
            return
        steps.begin(kept.cache)
        first = kept.position

        def step(token: int) -> Any:
            kept.position += 1
            return steps.step(token, kept.position - 1)

        try:
            yield step
        finally:
            steps.finish(kept.cache, kept.position - first)

    def _run(self, kept: Kept, embeds: Any, ids: Any, adapter: str) -> Any:
        with self._switch(adapter):
            out = self._model(
                inputs_embeds=embeds, position_ids=ids, cache=kept.cache, use_cache=True, logits_to_keep=1
            )
        return out.logits[0, -1].float()


def best(logits: Any) -> int:
    """The likeliest token."""
    return int(np.argmax(logits.cpu().numpy()))
