"""The speech engine: voice activity (Silero) and transcription (Whisper).

Ops:
    vad              {samples: float32 (n * 512,), state?: float32 (320,)} ->
                     {probability: float32 (n,), state}
    transcribe       {samples: float32 (n,), language?, hotwords?, screen_terms?, before?, beam?, quick?} ->
                     {words: [[text, start, end, probability], ...], text, no_speech, log_probability, padded,
                     rejected, language, seconds}; times in seconds from the first sample
    translate        as transcribe, with `language` that of the speech: English text, no words; multilingual
        models only
    detect_language  {samples} -> {language, probability}

`before`: the words before the samples. `hotwords`: names and terms to expect. `screen_terms`: a list of words
that may be spoken, since the screen shows them; one that is unlikely without them in the prompt is not
returned. `quick`: the hypothesis will soon be replaced; `beam` is ignored. All samples are mono at 16 kHz.
The engine keeps no session state: the VAD state travels with the request.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engines import Engine, Op, each
from engines.audio import RATE
from engines.fetch import folder_of
from engines.processor import flags
from engines.silero import WINDOW, Silero, silero_file
from engines.whisper import Whisper
from streamsvc.core.errors import ModelMissing

FILES = ("model.bin", "config.json", "tokenizer.json")


def load(options: Mapping[str, Any]) -> Engine:
    """Load and warm up the speech engine.

    Args:
        options: "models": the folder of models; "model": its name; "workers": parallel transcriptions, one
            thread each; "device": "cpu" or "cuda".

    Raises:
        ModelMissing: a file is missing or cannot be read.
    """
    workers = int(options.get("workers", 2))
    name = str(options.get("model", "whisper-tiny.en"))
    device = str(options.get("device", "cpu"))
    whisper = load_whisper(folder_of(name, Path(str(options["models"]))), workers, device)
    silero = Silero(silero_file())
    silence = np.zeros(RATE, np.float32)
    whisper.transcribe({"samples": silence})  # the first call packs weights and allocates memory
    silero.probability({"samples": silence[:WINDOW]})
    return Engine(
        ops={
            "vad": Op(each(silero.probability), threads=1, batch=16),
            "transcribe": Op(each(whisper.transcribe), threads=workers, batch=1),
            "translate": Op(each(whisper.translate), threads=1, batch=1),
            "detect_language": Op(each(whisper.detect_language), threads=1, batch=1),
        },
        describe={
            "asr": name,
            "device": device,
            "ctranslate2": importlib.metadata.version("ctranslate2"),
            "vad": "silero-v6",
        },
        probe=("vad", {"samples": silence[:WINDOW]}),
    )


def load_whisper(folder: Path, workers: int, device: str = "cpu") -> Whisper:
    """Load a Whisper model in CTranslate2's format: int8 on the CPU, float16 on a GPU ("cuda").

    Raises:
        ModelMissing: a file is missing or cannot be read, or (code "no_gpu") the device cannot be used.
    """
    for file in FILES:
        if not (folder / file).is_file():
            raise ModelMissing(
                f"the speech model {folder.name} lacks {file}: run `streamsvc models pull {folder.name}`"
            )
    if "avx512f" in flags().split():  # CTranslate2 defaults to AVX2 on Intel; AVX-512 encodes 10 % faster
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")
    try:
        whisper = _read(folder, workers, device)
    except Exception as error:  # the libraries raise RuntimeError, ValueError and bare Exception
        if device != "cpu":
            raise ModelMissing(
                f"the speech model {folder.name} cannot run on {device}: {error}", code="no_gpu"
            ) from error
        raise ModelMissing(
            f"the speech model {folder.name} is broken ({error}): run `streamsvc models pull {folder.name}`"
        ) from error
    if device == "cpu":  # a GPU encodes padding fast enough, and its output stays on the GPU
        whisper.prepare()
    return whisper


def _read(folder: Path, workers: int, device: str) -> Whisper:
    import ctranslate2
    import tokenizers

    preprocessor = folder / "preprocessor_config.json"
    mels = int(json.loads(preprocessor.read_text())["feature_size"]) if preprocessor.is_file() else 80
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    # A multilingual model gets one more replica, so that transcription never waits for translation.
    replicas = workers if folder.name.endswith(".en") else workers + 1
    precision = "int8" if device == "cpu" else "float16"
    model = ctranslate2.models.Whisper(
        str(folder), device=device, compute_type=precision, inter_threads=replicas, intra_threads=1
    )
    if device != "cpu":  # CTranslate2 loads the CUDA libraries at the first use
        model.encode(ctranslate2.StorageView.from_array(np.zeros((1, mels, 2), np.float32)))
    return Whisper(model, tokenizer, multilingual=model.is_multilingual, mels=mels)
