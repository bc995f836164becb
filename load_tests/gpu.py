"""Model speed on a GPU: run this first on a machine that has one.

    python -m load_tests.gpu [vlm] [encoders] [speech] [--device cuda] [--models DIR] [--speech FILE.wav]
                              [--small]

vlm: vision language models of published sizes with random weights, through the engine as a worker calls it:
keyframes to visual tokens, a full context, the first token of an answer and the following ones.

encoders: the encoder of sessions (real weights) and a SigLIP tower (random ones): a TensorRT plan is built,
compared with ONNX Runtime on the CPU and timed at batches of 1, 8 and 32, beside torch or the CPU's runtimes.
Then the runtime is chosen as in a worker: the part fails where TensorRT is there and is not chosen, for its
vectors are wrong or its plan fails. It takes 8 minutes at most: what is not begun by then is left out.

speech: one recording by Whisper tiny.en on the CPU in int8 and on the GPU in float16: text, and time of a
hypothesis.

Times are medians of wall time after a warm-up run and end when the result is on the host.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from engines import asr, audio, encoder, export, tagger, tensorrt_plan, vision, vlm
from engines.bench_vision import BATCHES, jpeg
from engines.encoder import Source
from engines.vlm_decoder import Decoder, KvCache
from engines.vlm_window import Piece
from load_tests.gpu_models import enlarge, siglip, turbo
from streamsvc.core.errors import StreamsvcError
from tests.engines import tiny_vlm

WINDOW = 4096  # tokens of a full context
VISUAL = 1024  # tokens of its pictures
ANSWER = 48  # tokens of an answer


@dataclass(frozen=True)
class Plan:
    """What to run, and where. `small`: tiny models, to test this script."""

    device: str
    models: Path
    speech: Path | None
    small: bool
    scratch: Path


def timed(work: Callable[[], Any], times: int = 9) -> float:
    """Median milliseconds."""
    work()
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        spent.append(time.perf_counter() - began)
    return 1000 * median(spent)


# --- a model that sees and answers --------------------------------------------------------------------------


def vlms(plan: Plan) -> None:
    """Print a table of models."""
    parity(plan)
    print(
        "| model | MB | picture at 1 / 8, ms | tokens of one | of the window | none kept, s | kept, s "
        "| a token, ms | whole answer, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in ("qwen2-vl-2b", "smolvlm-500m"):
        folder = plan.scratch / name
        tiny_vlm.save("qwen2_vl" if name.startswith("qwen") else "smolvlm", folder)
        if not plan.small:
            enlarge(name, folder, plan.device)
        print(f"| {name} | " + " | ".join(of_vlm(plan, name)) + " |", flush=True)


def parity(plan: Plan) -> None:
    """Print the largest difference of a logit between `vlm_steps` and plain steps, by model class.

    Tiny models, float32.
    """
    for kind in tiny_vlm.KINDS:
        bench = tiny_vlm.Bench(tiny_vlm.save(kind, plan.scratch / kind), plan.device)
        pieces, _ = bench.growing(bench.encode([tiny_vlm.picture(1), tiny_vlm.picture(2)]))[-1]
        decoder, plain, kept, worst = Decoder(bench.model, room=600), KvCache(), KvCache(), 0.0
        for answer in ([40, 50, 60], [70, 80], [90]):
            decoder.read(plain, pieces)
            decoder.read(kept, pieces)
            with decoder.answering(kept, len(answer)) as step:
                worst = max(
                    worst,
                    *(float((step(token) - decoder.step(plain, token)).abs().max()) for token in answer),
                )
            pieces = (*pieces, Piece(tuple(answer)), bench.layout.question("And then?"))
        print(f"{kind}: largest difference of a logit {worst:.1e}, over three answers in a row", flush=True)


def of_vlm(plan: Plan, name: str) -> list[str]:
    """The columns of one model."""
    tokens, visual = (600, 120) if plan.small else (WINDOW, VISUAL)
    options = {
        "models": plan.scratch,
        "model": name,
        "device": plan.device,
        "window_tokens": tokens,
        "visual_tokens": visual,
    }
    ops: Any = vlm.load({**options, "pictures": 4}).ops
    random = np.random.default_rng(0)

    def look(count: int) -> Any:
        return ops["encode"].run([{"jpeg": jpeg(random)} for _ in range(count)])

    one, eight = timed(lambda: look(1)), timed(lambda: look(8), 5) / 8
    encoding = 1000 * sum(_seconds(lambda: jpeg(random)) for _ in range(8)) / 8
    (seen,) = look(1)
    items = [{"number": 1, "at": 0.0, "text": "[1] 0:00 picture: a picture", "picture": seen["picture"]}]
    count = 0

    def say() -> None:
        items.append(
            {
                "number": len(items) + 1,
                "at": float(len(items)),
                "text": f"[{len(items) + 1}] 0:00 said: Sentence {len(items)} of a talk about ships.",
            }
        )

    while count < tokens * 0.7:
        say()
        count = ops["extend"].run([{"session": "s", "items": items}])[0]["tokens"]

    def first(session: str) -> float:
        say()
        asked = {"session": session, "items": items, "question": "What of it?", "max_tokens": 1}
        return _seconds(
            lambda: list(ops["generate"].run(asked))
        )  # a random model's tokens may be no text, so nothing comes before the end

    def whole() -> None:
        say()
        list(
            ops["generate"].run(
                {"session": "s", "items": items, "question": "What of it?", "max_tokens": ANSWER, "stop": []}
            )
        )

    first("s")
    none = median(first(f"new {number}") for number in range(4))
    kept = median(first("s") for _ in range(6))
    total = timed(whole, 5) / 1000
    memory = "-"
    if plan.device == "cuda":
        import torch

        memory = f"{torch.cuda.max_memory_allocated() / 1e6:.0f}"
        torch.cuda.reset_peak_memory_stats()
    step = 1000 * (total - kept) / (ANSWER - 1)
    numbers = [f"{one - encoding:.1f} / {eight - encoding:.1f}", f"{seen['tokens']}", f"{count}"]
    return [memory, *numbers, f"{none:.3f}", f"{kept:.3f}", f"{step:.1f}", f"{total:.2f}"]


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# --- vision encoders ----------------------------------------------------------------------------------------

ENCODER_SECONDS = 480.0  # for all of them; what is not begun by then is left out


def encoders(plan: Plan) -> None:
    """Print a table of encoders and runtimes.

    Raises:
        AssertionError: TensorRT is there, and is not what a worker would be served by.
    """
    print(
        "| encoder | runtime | ready after, s | least cosine | ms a batch of 1 / 8 / 32 | frames/s |\n"
        "|---|---|---|---|---|---|"
    )
    until = time.perf_counter() + ENCODER_SECONDS
    tagger.Tagger(plan.models / vision.TAGGER)  # writes its ONNX file where there is none
    source = tagger.source_of(plan.models / vision.TAGGER / tagger.MODEL)
    compared(vision.TAGGER, source, {n: partial(make, source) for n, make in encoder.RUNTIMES.items()}, until)
    module, side = siglip(small=plan.small)
    for half in (False, True):  # files first: the module goes to the GPU as it is
        export.exported(module, side, _file(plan, half), half=half)
    for half in (False, True):
        source = Source(_file(plan, half), side)
        makers = {
            "tensorrt": partial(encoder.tensorrt, source),
            "torch": partial(_torch, module, plan.device, half=half),
        }
        compared(_file(plan, half).stem, source, makers, until)


def _file(plan: Plan, half: bool) -> Path:
    return plan.scratch / f"siglip-base{', float16' if half else ''}.onnx"


def compared(
    name: str, source: Source, makers: Mapping[str, Callable[[], encoder.Encode]], until: float
) -> None:
    """A row for each runtime, and the one that a worker chooses. Raises AssertionError: as `encoders`."""
    batches = [encoder.trial(source, count) for count in BATCHES]
    expected = encoder.onnxruntime(source)(batches[1])
    for runtime, make in {**makers, "tensorrt, again": makers["tensorrt"]}.items():  # again: the stored plan
        began = time.perf_counter()
        if began > until:
            print(f"| {name} | {runtime} | left out: the time is up |", flush=True)
            continue
        try:
            encode = make()
            ready = time.perf_counter() - began
            similarity = encoder.cosine(encode(batches[1]), expected)
            times = [timed(partial(encode, pixels)) for pixels in batches]
        except StreamsvcError as error:
            print(f"| {name} | {runtime} | not run: {error} |", flush=True)
            continue
        told = " / ".join(f"{ms:.2f}" for ms in times)
        rates = " / ".join(f"{1000 * len(each) / ms:.0f}" for each, ms in zip(batches, times, strict=True))
        print(f"| {name} | {runtime} | {ready:.1f} | {similarity:.5f} | {told} | {rates} |", flush=True)
    if time.perf_counter() < until:
        choice = encoder.measured(source)
        print(f"| {name} | chosen: {choice} |", flush=True)
        served = choice.runtime == "tensorrt"
        assert served or not _has_tensorrt(), f"TensorRT is there and does not serve {name}: {choice}"


def _has_tensorrt() -> bool:
    try:
        tensorrt_plan.bindings()
    except StreamsvcError:
        return False
    return True


def _torch(module: Any, device: str, *, half: bool) -> encoder.Encode:
    import torch

    kind = torch.float16 if half else torch.float32
    module.to(device, kind)

    def encode(pixels: encoder.Pixels) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(pixels).to(device, kind)).float().cpu().numpy()

    return encode


# --- speech -------------------------------------------------------------------------------------------------


def speech(plan: Plan) -> None:
    """Print both texts and their times."""
    if plan.speech is None:
        print("not run: --speech FILE.wav, mono, 16 kHz")
        return
    with wave.open(str(plan.speech)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
    print(
        "| model | device | ready after, s | quick 2 / 6 / 12 s, ms | beam 3 of 6 s, ms | text |\n"
        "|---|---|---|---|---|---|"
    )
    models = {"whisper-tiny.en": ["cpu", plan.device]}
    if not plan.small:
        turbo(plan.models / "large-v3-turbo, random")
        models["large-v3-turbo, random"] = [plan.device]
    for name, device in (
        (name, device) for name, devices in models.items() for device in dict.fromkeys(devices)
    ):
        began = time.perf_counter()
        heard = asr.load_whisper(plan.models / name, 1, device)
        ready = time.perf_counter() - began
        quick = [
            timed(partial(heard.transcribe, {"samples": samples[: n * audio.RATE], "quick": True}))
            for n in (2, 6, 12)
        ]
        sure = timed(partial(heard.transcribe, {"samples": samples[: 6 * audio.RATE], "beam": 3}))
        text = " ".join(
            str(heard.transcribe({"samples": samples[first : first + 10 * audio.RATE], "beam": 3})["text"])
            for first in range(0, len(samples) - audio.RATE, 10 * audio.RATE)
        )
        times = " / ".join(f"{one:.0f}" for one in quick)
        print(f"| {name} | {device} | {ready:.1f} | {times} | {sure:.0f} | {text[:200]} |", flush=True)


PARTS: dict[str, Callable[[Plan], None]] = {"vlm": vlms, "encoders": encoders, "speech": speech}


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts; exit status 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", metavar="PART", help="of vlm, encoders, speech; by default all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache" / "streamsvc" / "models")
    parser.add_argument("--speech", type=Path)
    parser.add_argument("--small", action="store_true")
    chosen = parser.parse_args(words)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        plan = Plan(chosen.device, chosen.models, chosen.speech, chosen.small, Path(scratch))
        for part in chosen.parts or PARTS:
            print(f"\n{part}\n", flush=True)
            try:
                PARTS[part](plan)
            except Exception:  # the other parts still run
                failed = 1
                traceback.print_exc()
    return failed


if __name__ == "__main__":
    sys.exit(main())
