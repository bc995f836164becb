"""The language model of a transformers VLM, with KV caches that are reused across requests.

Its input is embeddings assembled here from text and visual tokens.

Only the part of a sequence that differs from the previous one is computed: a `KvCache` knows the pieces that
it was computed from, is cropped at the first difference, and continues from there. A window that grows at its
end costs only its new tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from engines.vlm_steps import Steps
from engines.vlm_window import Piece, common_prefix, positions, token_count

Switch = Callable[[str], AbstractContextManager[None]]
"""Activates an adapter by name for the duration of a context (`vlm_adapters.Adapters.using`)."""


class KvCache:
    """Keys and values of one sequence. Not thread-safe.

    Attributes:
        pieces: the sequence, without the tokens generated after it.
        adapter: the adapter that it was computed with.
        reused, computed: tokens of the last `Decoder.read` that were cached, and that were computed.
        position: of the next token.
    """

    def __init__(self) -> None:
        from transformers import DynamicCache

        self.cache: Any = DynamicCache()  # without a config, because sliding-window layers cannot be cropped
        self.pieces: tuple[Piece, ...] = ()
        self.adapter = ""
        self.reused = 0
        self.computed = 0
        self.position = 0

    @property
    def tokens(self) -> int:
        """Number of cached tokens."""
        return int(self.cache.get_seq_length())


class Decoder:
    """The language model.

    Args:
        model: a transformers class for image-text-to-text, in eval mode.
        switch: activates adapters.
        room: tokens of the longest sequence that `vlm_steps` decodes; 0 to disable it, as on a CPU, where it
            saves nothing.
    """

    def __init__(self, model: Any, switch: Switch | None = None, room: int = 0) -> None:
        import torch

        self._torch = torch
        self._model = model
        self._switch = switch or (lambda adapter: nullcontext())
        self._grids = hasattr(model.model, "get_rope_index")  # Qwen: positions have three rows
        self._place = (3, 1, 1) if self._grids else (1, 1)
        self._steps = Steps(model, room, self._place) if room else None

    def embeddings(self, pieces: Iterable[Piece]) -> Any:
        """`inputs_embeds` of concatenated pieces, shape (1, tokens, width), with their visual tokens."""
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
        """`position_ids` of concatenated pieces in the model's shape, and the position of the next token."""
        rows, after = positions(pieces)
        ids = self._torch.from_numpy(rows[:, None] if self._grids else rows[0][None]).to(self._model.device)
        return ids, after

    def read(self, kv: KvCache, pieces: Sequence[Piece], adapter: str = "") -> Any:
        """Logits after the last token, shape (vocabulary,), float32. Afterwards `kv` contains the sequence.

        After an exception `kv` must be discarded.
        """
        start = common_prefix(kv.pieces, pieces) if kv.adapter == adapter else 0
        start = min(start, kv.tokens, token_count(pieces) - 1)  # at least one token is run, for its logits
        cut = kv.tokens - start
        if cut:
            kv.cache.crop(-cut)
        done = 0  # pieces that are cached completely
        done_tokens = 0
        while done_tokens + len(pieces[done].ids) <= start:
            done_tokens += len(pieces[done].ids)
            done += 1
        with self._torch.inference_mode():
            ids, after = self.positions(pieces)
            embeds = self.embeddings(pieces[done:])[:, start - done_tokens :]
            logits = self._run(kv, embeds, ids[..., start:], adapter)
        kv.pieces = tuple(pieces)
        kv.adapter = adapter
        kv.position = after
        kv.reused = start
        kv.computed = embeds.shape[1]
        return logits

    def step(self, kv: KvCache, token: int) -> Any:
        """Logits after one more token."""
        with self._torch.inference_mode():
            ids = self._torch.full(self._place, kv.position, device=self._model.device)
            logits = self._run(kv, self.embeddings([Piece((token,))]), ids, kv.adapter)
        kv.position += 1
        return logits

    @contextmanager
    def answering(self, kv: KvCache, most: int) -> Iterator[Callable[[int], Any]]:
        """A step function for an answer of at most `most` tokens.

        `kv` is complete when the context ends. One answer at a time.
        """
        steps = self._steps
        if steps is None or kv.adapter or kv.tokens + most > steps.room:
            yield partial(self.step, kv)
            return
        steps.begin(kv.cache)
        first = kv.position

        def step(token: int) -> Any:
            kv.position += 1
            return steps.step(token, kv.position - 1)

        try:
            yield step
        finally:
            steps.finish(kv.cache, kv.position - first)

    def _run(self, kv: KvCache, embeds: Any, ids: Any, adapter: str) -> Any:
        with self._switch(adapter):
            out = self._model(
                inputs_embeds=embeds, position_ids=ids, cache=kv.cache, use_cache=True, logits_to_keep=1
            )
        return out.logits[0, -1].float()


def argmax(logits: Any) -> int:
    """The most probable token."""
    return int(np.argmax(logits.cpu().numpy()))
