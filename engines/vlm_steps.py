"""The tokens of an answer on a GPU, each as one replay of a CUDA graph.

A step of a language model is a thousand small kernels, and starting them costs more than running them: an H200 took 57 ms a token for two
billion parameters, whatever the window. Captured once, they start together. A graph knows addresses, not shapes, so its keys and values lie
in a cache of fixed size: those of the sequence are copied in before an answer, and what the answer added is copied out behind it.
"""

from __future__ import annotations

from typing import Any


class Steps:
    """One step of a model, captured; of one answer at a time.

    Args:
        model: in eval mode, without adapters. On the CPU nothing is captured, and a step is a forward pass on the same fixed cache.
        room: tokens of the longest sequence, its answer included.
        places: shape of the position of one token, as the model's class wants it.
    """

    def __init__(self, model: Any, room: int, places: tuple[int, ...]) -> None:
        import torch
        from transformers import StaticCache

        self._torch, self._model, self.room = torch, model, room
        self._token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        self._place = torch.zeros(places, dtype=torch.long, device=model.device)
        self._cache: Any = StaticCache(config=model.config, max_cache_len=room)
        self._first = 0
        self._logits: Any = None
        self._graph: Any = None
        if model.device.type == "cuda":
            self._capture()

    def _capture(self) -> None:
        torch = self._torch
        aside = torch.cuda.Stream()  # a graph is captured beside the stream that others use, after a few steps that load and tune kernels
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside), torch.inference_mode():
            for _ in range(3):
                self._forward()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with (
            torch.inference_mode(),
            torch.cuda.graph(graph, capture_error_mode="thread_local"),
        ):  # other threads may use the GPU meanwhile
            self._logits = self._forward()
        self._graph = graph

    def _forward(self) -> Any:
        embeds = self._model.get_input_embeddings()(self._token)
        out = self._model(
            inputs_embeds=embeds,
            position_ids=self._place,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[0, -1].float()

    def begin(self, cache: Any) -> None:
        """Take the keys and values of a sequence, a DynamicCache."""
        self._first = int(cache.get_seq_length())
        with self._torch.inference_mode():
            for mine, other in zip(self._cache.layers, cache.layers, strict=True):
                if not mine.is_initialized:
                    mine.lazy_initialization(other.keys, other.values)
                mine.keys[:, :, : self._first] = other.keys
                mine.values[:, :, : self._first] = other.values
                mine.cumulative_length.fill_(self._first)

    def step(self, token: int, position: int) -> Any:
        """Logits after one more token, shape (vocabulary,), float32; good until the next step."""
        with self._torch.inference_mode():
            self._token.fill_(token)
            self._place.fill_(position)
            if self._graph is None:
                return self._forward()
            self._graph.replay()
            return self._logits

    def finish(self, cache: Any, count: int) -> None:
        """Give the sequence the keys and values of `count` steps."""
        last = self._first + count
        with self._torch.inference_mode():
            for mine, other in zip(self._cache.layers, cache.layers, strict=True):
                other.update(mine.keys[:, :, self._first : last], mine.values[:, :, self._first : last])
