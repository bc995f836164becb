"""Runs a TensorRT plan.

One execution context with its own CUDA stream and buffers, without copies through numpy.

Pictures on the host are copied to pinned memory and from there by the stream; pictures on the GPU are read in
place. The embedding stays on the GPU for late fusion; `host` copies it to the host through pinned memory.
TensorRT gets the addresses of torch's tensors, so torch owns all memory.

This has run only against a fake of the bindings, which computes with ONNX Runtime at the given addresses
(engines/README.md).
"""

from __future__ import annotations

from typing import Any

from engines.tensorrt_plan import BATCHES
from streamsvc.core.errors import WorkerError

MAX_BATCH = BATCHES[-1]


class Context:
    """Encodes batches of 1 to 32 pictures. Not thread-safe.

    Args:
        tensorrt: of `tensorrt_plan.bindings`.
        torch: of the same.
        plan: of `tensorrt_plan.built`.

    Raises:
        WorkerError: code "plan_failed": the plan cannot be loaded, or has not exactly one float32 input and
            output.
    """

    def __init__(self, tensorrt: Any, torch: Any, plan: bytes) -> None:
        self._torch = torch
        self._log = tensorrt.Logger()  # must outlive the runtime, which must outlive the engine
        self._runtime = tensorrt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise WorkerError(
                "the TensorRT plan cannot be loaded; its log has the reason", code="plan_failed"
            )
        self._context = self._engine.create_execution_context()
        names: dict[Any, list[str]] = {tensorrt.TensorIOMode.INPUT: [], tensorrt.TensorIOMode.OUTPUT: []}
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            names[self._engine.get_tensor_mode(name)].append(name)
            if self._engine.get_tensor_dtype(name) != tensorrt.DataType.FLOAT:
                raise WorkerError(f"the TensorRT plan's {name} is not float32", code="plan_failed")
        try:
            (self._in,), (self._out,) = names.values()
        except ValueError:
            raise WorkerError(
                f"the TensorRT plan has not one input and one output: {list(names.values())}",
                code="plan_failed",
            ) from None
        self.shape = tuple(self._engine.get_tensor_shape(self._in))[1:]  # of one picture: (3, side, side)
        self._stream = torch.cuda.Stream()
        self._pinned = torch.empty((MAX_BATCH, *self.shape), dtype=torch.float32, pin_memory=True)
        self._pixels = torch.empty((MAX_BATCH, *self.shape), dtype=torch.float32, device="cuda")
        width = tuple(self._engine.get_tensor_shape(self._out))[1:]
        self._pinned_output = torch.empty((MAX_BATCH, *width), dtype=torch.float32, pin_memory=True)

    def encode(self, pictures: Any) -> Any:
        """float32 (n, 3, side, side) on host or GPU -> float32 (n, d) on the GPU, on the current stream.

        Raises:
            WorkerError: code "bad_batch": another shape or type, or n is not 1 to 32; "run_failed": TensorRT
                rejects the work.
        """
        torch = self._torch
        count = len(pictures)
        if (
            not 1 <= count <= MAX_BATCH
            or tuple(pictures.shape[1:]) != self.shape
            or pictures.dtype != torch.float32
        ):
            raise WorkerError(
                f"not a batch of this engine: {tuple(pictures.shape)} {pictures.dtype}", code="bad_batch"
            )
        caller = torch.cuda.current_stream()
        self._stream.wait_stream(caller)  # the caller's stream may still compute the pictures
        with torch.cuda.stream(self._stream):
            if pictures.is_cuda:
                pixels = pictures.contiguous()
                pixels.record_stream(self._stream)  # keeps torch from reusing the memory too early
            else:
                self._stream.synchronize()  # the previous copy may still read the pinned memory
                self._pinned[:count].copy_(pictures)
                pixels = self._pixels[:count]
                pixels.copy_(self._pinned[:count], non_blocking=True)
            embedding = torch.empty(
                (count, *self._pinned_output.shape[1:]), dtype=torch.float32, device="cuda"
            )
            accepted = self._context.set_input_shape(self._in, tuple(pixels.shape))
            accepted &= self._context.set_tensor_address(self._in, pixels.data_ptr())
            accepted &= self._context.set_tensor_address(self._out, embedding.data_ptr())
            if not (accepted and self._context.execute_async_v3(self._stream.cuda_stream)):
                raise WorkerError("TensorRT rejected the work; its log has the reason", code="run_failed")
        caller.wait_stream(self._stream)
        embedding.record_stream(caller)
        return embedding

    def host(self, embedding: Any) -> Any:
        """Copy an embedding of `encode` to a new tensor on the host; blocks until it is complete."""
        output = self._pinned_output[: len(embedding)]
        self._stream.wait_stream(self._torch.cuda.current_stream())
        with self._torch.cuda.stream(self._stream):
            output.copy_(embedding, non_blocking=True)
        self._stream.synchronize()
        return output.clone()
