"""A TensorRT plan at work: one execution context with a CUDA stream and buffers of its own; nothing passes through numpy.

Pictures from the host are written into pinned memory, copied by the stream, and encoded on it; pictures that are on the GPU already are
read where they lie. The embedding stays on the GPU (late fusion takes it there); `host` copies it out through pinned memory.
TensorRT is given the addresses of torch's tensors, so the memory is torch's, and freed by it.

This has run against a recording double only, its arithmetic by ONNX Runtime at the addresses given (engines/README.md).
"""

from __future__ import annotations

from typing import Any

from engines.tensorrt_plan import BATCHES
from streamsvc.core.errors import WorkerError

MAX_BATCH = BATCHES[-1]


class Context:
    """Encodes batches of 1 to 32 pictures. Not for two threads at once.

    Args:
        tensorrt: of `tensorrt_plan.bindings`.
        torch: of the same.
        plan: of `tensorrt_plan.built`.

    Raises:
        WorkerError: code "plan_failed": the plan cannot be loaded, or is not of one input and one output.
    """

    def __init__(self, tensorrt: Any, torch: Any, plan: bytes) -> None:
        self._torch = torch
        self._log = tensorrt.Logger()  # must outlive the runtime, as the runtime the engine
        self._runtime = tensorrt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise WorkerError("the TensorRT plan cannot be loaded; its log says why", code="plan_failed")
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
        self._told = torch.empty((MAX_BATCH, *width), dtype=torch.float32, pin_memory=True)

    def encode(self, pictures: Any) -> Any:
        """Float32 tensor (n, 3, side, side), on the host or on the GPU -> float32 tensor (n, d) on the GPU, ready on the caller's stream.

        Raises:
            WorkerError: code "bad_batch": not such a tensor, or n is not 1 to 32; "run_failed": TensorRT does not take the work.
        """
        torch = self._torch
        count = len(pictures)
        if (
            not 1 <= count <= MAX_BATCH
            or tuple(pictures.shape[1:]) != self.shape
            or pictures.dtype != torch.float32
        ):
            raise WorkerError(
                f"no batch of this engine: {tuple(pictures.shape)} {pictures.dtype}", code="bad_batch"
            )
        asking = torch.cuda.current_stream()
        self._stream.wait_stream(asking)  # the pictures may still be in the making
        with torch.cuda.stream(self._stream):
            if pictures.is_cuda:
                pixels = pictures.contiguous()
                pixels.record_stream(self._stream)  # so that torch does not give its memory away under us
            else:
                self._stream.synchronize()  # the copy before may still read the pinned memory
                self._pinned[:count].copy_(pictures)
                pixels = self._pixels[:count]
                pixels.copy_(self._pinned[:count], non_blocking=True)
            made = torch.empty((count, *self._told.shape[1:]), dtype=torch.float32, device="cuda")
            good = self._context.set_input_shape(self._in, tuple(pixels.shape))
            good &= self._context.set_tensor_address(self._in, pixels.data_ptr())
            good &= self._context.set_tensor_address(self._out, made.data_ptr())
            if not (good and self._context.execute_async_v3(self._stream.cuda_stream)):
                raise WorkerError("TensorRT did not take the work; its log says why", code="run_failed")
        asking.wait_stream(self._stream)
        made.record_stream(asking)
        return made

    def host(self, embedding: Any) -> Any:
        """What `encode` gave, as a tensor on the host of its own memory; waits until it is there."""
        told = self._told[: len(embedding)]
        self._stream.wait_stream(self._torch.cuda.current_stream())
        with self._torch.cuda.stream(self._stream):
            told.copy_(embedding, non_blocking=True)
        self._stream.synchronize()
        return told.clone()
