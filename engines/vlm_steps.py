"""Decoding steps on a GPU, each as one replay of a CUDA graph.

One step of a language model launches about a thousand small kernels, and launching them takes longer than
running them: an H200 took 57 ms per token for two billion parameters at any window size. A captured graph
launches them together. A graph has fixed addresses and shapes, so it uses a KV cache of fixed size: the
sequence's keys and values are copied in before an answer, and those of the answer are copied out after it.
"""

from __future__ import annotations

from typing import Any


class Steps:
    """One captured decoding step, for one answer at a time.

    Args:
        model: in eval mode, without adapters. On a CPU a step is a plain forward pass on the fixed-size
            cache.
        room: tokens of the longest sequence including its answer.
        places: shape of one token's position ids.
    """

    def __init__(self, model: Any, room: int, places: tuple[int, ...]) -> None:
        import torch
        from transformers import StaticCache

        self._torch = torch
        self._model = model
        self.room = room
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
        # Warm up on a separate stream before the capture: the first steps load and tune kernels.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(3):
                self._forward()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: other threads may use the GPU during the capture.
        with torch.inference_mode(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
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
        """Copy the keys and values of a sequence (DynamicCache) into the fixed-size cache."""
        self._first = int(cache.get_seq_length())
        with self._torch.inference_mode():
            for fixed, dynamic in zip(self._cache.layers, cache.layers, strict=True):
                if not fixed.is_initialized:
                    fixed.lazy_initialization(dynamic.keys, dynamic.values)
                fixed.keys[:, :, : self._first] = dynamic.keys
                fixed.values[:, :, : self._first] = dynamic.values
                fixed.cumulative_length.fill_(self._first)

    def step(self, token: int, position: int) -> Any:
        """Logits after one more token, shape (vocabulary,), float32; overwritten by the next step."""
        with self._torch.inference_mode():
            self._token.fill_(token)
            self._place.fill_(position)
            if self._graph is None:
                return self._forward()
            self._graph.replay()
            return self._logits

    def finish(self, cache: Any, count: int) -> None:
        """Append the keys and values of `count` steps to the sequence's cache."""
        last = self._first + count
        with self._torch.inference_mode():
            for fixed, dynamic in zip(self._cache.layers, cache.layers, strict=True):
                dynamic.update(fixed.keys[:, :, self._first : last], fixed.values[:, :, self._first : last])
