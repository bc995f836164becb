"""Batches on a stream.

Right results for host and GPU pictures, in place where they are there already, and every wait is needed.

Against tests/engines/tensorrt_double.py: work on a stream happens when somebody waits, so a wait that is
missing gives wrong numbers.
"""

from __future__ import annotations

import ast
import functools
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from engines import tensorrt_context, tensorrt_plan
from engines.tensorrt_context import MAX_BATCH, Context
from streamsvc.core.errors import WorkerError
from tests.builders.mutant import executed
from tests.builders.onnx_model import save_onnx
from tests.engines.tensorrt_double import Double, Stream, Torch, on_gpu


def plain(values: Any) -> torch.Tensor:
    made: torch.Tensor = values.as_subclass(torch.Tensor)
    return made


def means(pictures: Any) -> torch.Tensor:
    return plain(pictures).mean((2, 3)) * 2


@pytest.fixture
def machine() -> Torch:
    return Torch()


@pytest.fixture
def plan(tmp_path: Path) -> bytes:
    return tensorrt_plan.build(Double(), save_onnx(tmp_path / "model.onnx"), b"")[0]


@pytest.mark.parametrize("count", [1, 2, 7, MAX_BATCH])
@pytest.mark.parametrize("place", ["host", "gpu"])
def test_any_batch_is_encoded_wherever_it_lies(plan: bytes, machine: Torch, count: int, place: str) -> None:
    context = Context(Double(), machine, plan)
    pictures = torch.rand(count, 3, 4, 4)
    made = context.encode(on_gpu(pictures) if place == "gpu" else pictures)
    assert made.is_cuda, "late fusion takes it there"
    assert torch.allclose(plain(context.host(made)), means(pictures), atol=1e-6)


def test_gpu_pictures_are_read_in_place(plan: bytes, machine: Torch, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Double()
    addresses: dict[str, int] = {}
    monkeypatch.setattr(
        double,
        "IExecutionContext_set_tensor_address",
        lambda state, name, memory: addresses.update({name: memory}) or True,
    )
    monkeypatch.setattr(double, "IExecutionContext_execute_async_v3", lambda state, handle: True)
    pictures = on_gpu(torch.rand(3, 3, 4, 4))
    made = Context(double, machine, plan).encode(pictures)
    assert addresses == {"pixels": pictures.data_ptr(), "means": made.data_ptr()}


@pytest.mark.parametrize(
    "pictures",
    [
        torch.zeros(0, 3, 4, 4),
        torch.zeros(MAX_BATCH + 1, 3, 4, 4),
        torch.zeros(1, 3, 4, 5),
        torch.zeros(1, 3, 4, 4, dtype=torch.float16),
    ],
)
def test_invalid_batches_are_refused(plan: bytes, machine: Torch, pictures: torch.Tensor) -> None:
    with pytest.raises(WorkerError, match="not a batch") as caught:
        Context(Double(), machine, plan).encode(pictures)
    assert caught.value.code == "bad_batch"


def test_a_plan_of_another_board_is_not_loaded(plan: bytes, machine: Torch) -> None:
    with pytest.raises(WorkerError, match="cannot be loaded"):
        Context(Double("another board"), machine, plan)


def test_work_that_tensorrt_rejects_is_an_error(
    plan: bytes, machine: Torch, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Double()
    context = Context(double, machine, plan)
    monkeypatch.setattr(double, "IExecutionContext_execute_async_v3", lambda state, handle: False)
    with pytest.raises(WorkerError) as caught:
        context.encode(torch.zeros(1, 3, 4, 4))
    assert caught.value.code == "run_failed"


def rush(kind: Any, plan: bytes) -> None:
    """Many batches asked for before the first is taken, some of pictures that the GPU is still making."""
    machine = Torch()
    context = kind(Double(), machine, plan)
    asked = []
    for number in range(4):
        pictures = torch.rand(3, 3, 4, 4)
        if number == 2:  # the asking stream has yet to make them
            unmade = on_gpu(torch.zeros(3, 3, 4, 4))
            Stream.current.later.append(functools.partial(plain(unmade).copy_, pictures))
            asked.append((pictures, context.encode(unmade)))
        else:
            asked.append((pictures, context.encode(pictures)))
    machine.cuda.current_stream().synchronize()  # all that the asker ever waits for
    for pictures, made in asked:
        assert torch.allclose(plain(made), means(pictures), atol=1e-6)
    told = [context.host(made) for _, made in asked]
    for (pictures, _), on_host in zip(asked, told, strict=True):
        assert torch.allclose(plain(on_host), means(pictures), atol=1e-6)


def test_batches_in_a_hurry_do_not_run_into_each_other(plan: bytes) -> None:
    rush(Context, plan)


@pytest.mark.parametrize(
    "wait",
    [
        "self._stream.wait_stream(caller)",
        "self._stream.synchronize()  # the previous copy",
        "caller.wait_stream(self._stream)",
        "self._stream.synchronize()\n        return output.clone()",
        ".clone()",
    ],
)
def test_no_wait_can_be_left_out(plan: bytes, wait: str) -> None:
    text = inspect.getsource(tensorrt_context)
    assert text.count(wait) == 1
    without = wait.replace("self._stream.synchronize()", "None").replace(".clone()", "")
    changed = executed(
        tensorrt_context, ast.parse(text.replace(wait, without if without != wait else "None"))
    )
    with pytest.raises(AssertionError):
        rush(changed.Context, plan)
