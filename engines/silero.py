"""Silero voice activity detection (v6, from the faster-whisper package), with its state in the request."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from engines import Payload
from engines.audio import request_samples
from streamsvc.core.errors import InvalidRequest, ModelMissing

WINDOW = 512  # samples per voice activity probability: 32 ms
CONTEXT = 64  # samples before each window that the model needs
STATE = 128  # size of each half of the recurrent state


class Silero:
    """The VAD model on ONNX Runtime, one thread.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"], sess_options=options
        )

    def probability(self, payload: Payload) -> Payload:
        """Op `vad`: speech probability of each window; see `engines.asr`.

        Raises:
            InvalidRequest: the samples are not a whole number of windows, or the state has the wrong shape.
        """
        samples = request_samples(payload)
        state = payload.get("state")
        if state is None:
            state = np.zeros(2 * STATE + CONTEXT, np.float32)
        if len(samples) % WINDOW or state.shape != (2 * STATE + CONTEXT,):
            raise InvalidRequest(
                f"vad takes windows of {WINDOW} samples and a state of {2 * STATE + CONTEXT} numbers"
            )
        joined = np.concatenate([state[2 * STATE :], samples])
        view = np.lib.stride_tricks.sliding_window_view(joined, WINDOW + CONTEXT)[::WINDOW]
        probability, h, c = self.session.run(
            None,
            {
                "input": np.ascontiguousarray(view),
                "h": state[:STATE].reshape(1, 1, STATE),
                "c": state[STATE : 2 * STATE].reshape(1, 1, STATE),
            },
        )
        return {
            "probability": probability.reshape(-1).astype(np.float32),
            "state": np.concatenate([h.reshape(-1), c.reshape(-1), joined[-CONTEXT:]]).astype(np.float32),
        }


def silero_file() -> Path:
    """The ONNX file inside the faster-whisper package.

    The package is not imported: its dependencies are large.

    Raises:
        ModelMissing: the package does not contain the file.
    """
    spec = importlib.util.find_spec("faster_whisper")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(folder, "assets").glob("silero_vad_v6*.onnx")):
            return file
    raise ModelMissing("the package faster-whisper has no silero_vad_v6.onnx: reinstall faster-whisper 1.2")
