"""Speech: voice activity (Silero) and words (Whisper through CTranslate2), with an encoder that is not padded to 30 s.

Whisper was trained on 30 s windows, and padding a 5 s window to 30 s is three quarters of the work. The encoder takes
fewer frames, and is right if about 5 s of padding are left after the speech; with less it falls into loops. So: the
speech plus PADDING frames, a cap on tokens by duration, refusal of loops, and one retry with the full padding. Where a
hypothesis will be replaced in a moment (`quick`), only NEAR of these frames are encoded: what the encoder makes of the
padding behind them hardly depends on the speech, and is taken from memory. That halves the encoder's work.

Ops:
    vad              {samples: float32 (n * 512,), state?: float32 (320,)} -> {probability: float32 (n,), state}
    transcribe       {samples: float32 (n,), language?, hotwords?, before?, beam?, quick?} ->
                     {words: [[text, start, end, probability], ...], text, no_speech, log_probability, padded, rejected, language,
                     seconds}; times in seconds from the first sample
    translate        the same, `language` being that of the speech: the text is English, and there are no words; multilingual models only
    detect_language  {samples} -> {language, probability}
`before`: what was said before the samples; `hotwords`: names and terms to expect; `quick`: soon replaced, `beam` does not hold.
All samples are mono at 16 kHz. Nothing of a session is kept: the voice activity's state travels with the request.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import Engine, Op, Payload, each
from engines.processor import flags
from streamsvc.core.errors import InvalidRequest, ModelMissing

Samples = NDArray[np.float32]

RATE = 16_000  # Hz
HOP = 160  # samples per mel frame: 10 ms
FFT = 400  # samples
FULL = 3000  # mel frames of Whisper's own window
PADDING = 500  # mel frames after the speech; fewer than 500 loop (FIELD_NOTES, speech 3)
NEAR = 160  # of them, encoded for a quick hypothesis; with 100 a third of a point more words are wrong
BEHIND, SOUNDS = (
    2000,
    6,
)  # mel frames up to which padding is known, and made-up sounds over which it is averaged
GRAIN = 100  # mel frames: few different sizes let the allocator find its memory again (290 MB after a minute of talk, else 470 after two)
LONGEST = 29.0  # seconds of samples in one request
TOKENS_PER_SECOND, TOKENS_MORE = 7.0, 8  # the cap; fast readers reach 5.5 tokens a second
PROMPT_TOKENS = 100  # at most, of each kind
ALIGN_PROMPT = 12  # of them, how many last ones alignment sees: some, to judge the first words by, but each costs it 0.4 ms
COMPRESSION = 2.4  # zlib ratio of a text that repeats itself (Whisper's own threshold)
WINDOW = 512  # samples per voice-activity probability: 32 ms
CONTEXT = 64  # samples before each window that Silero wants to see
STATE = 128  # size of each half of Silero's recurrent state
SPACELESS = ("zh", "ja", "th", "lo", "my", "yue")  # written without blanks: every character is a word
FILES = ("model.bin", "config.json", "tokenizer.json")


# --- features -----------------------------------------------------------------------------------------------------


@cache
def mel_filters(mels: int = 80) -> Samples:
    """The triangular filters of Slaney's mel scale that Whisper was trained with. Shape (mels, FFT / 2 + 1)."""
    step, knee = 200.0 / 3, 1000.0  # Hz a mel below the knee, logarithmic above it
    log_step = np.log(6.4) / 27.0
    knee_mel = knee / step
    top = knee_mel + np.log(RATE / 2 / knee) / log_step
    marks = np.linspace(0.0, top, mels + 2)
    hertz = np.where(marks < knee_mel, step * marks, knee * np.exp(log_step * (marks - knee_mel)))
    bins = np.fft.rfftfreq(FFT, 1.0 / RATE)
    slopes = hertz[:, None] - bins[None, :]
    widths = np.diff(hertz)[:, None]
    triangles = np.maximum(0.0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    area = 2.0 / (hertz[2:] - hertz[:-2])
    filters: Samples = (triangles * area[:, None]).astype(np.float32)
    return filters


@cache
def _hann() -> Samples:
    window: Samples = np.hanning(FFT + 1)[:-1].astype(np.float32)
    return window


def log_mel(samples: Samples, mels: int = 80) -> Samples:
    """Whisper's features of the samples: shape (mels, ceil(n / HOP)), without padding."""
    frames = -(-len(samples) // HOP)
    framed = np.pad(samples, (FFT // 2, FFT // 2 + frames * HOP - len(samples)), mode="constant")
    framed[: FFT // 2] = (
        framed[FFT // 2 + 1 : FFT + 1][::-1] if len(samples) > FFT else 0.0
    )  # reflected, as trained
    view = np.lib.stride_tricks.sliding_window_view(framed, FFT)[: frames * HOP : HOP]
    power = np.abs(np.fft.rfft(view * _hann(), axis=1).astype(np.complex64)) ** 2
    mel = np.log10(np.maximum(mel_filters(mels) @ power.T, 1e-10))
    features: Samples = ((np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
    return features


def pad(features: Samples, frames: int) -> Samples:
    """The features with silence to `frames` columns (an even number; the encoder halves it).

    Silence is the features' floor, as in training. Zeros, which are loud here, cost words at the end of the speech.
    """
    floor = float(features.min(initial=0.0))
    return np.pad(features, ((0, 0), (0, max(0, frames - features.shape[1]))), constant_values=floor)


# --- refusal of loops ---------------------------------------------------------------------------------------------


def token_cap(seconds: float) -> int:
    """How many tokens speech of so many seconds can be at most."""
    return int(seconds * TOKENS_PER_SECOND) + TOKENS_MORE


def runs_away(text: str, tokens: int, cap: int, *, strict: bool = True) -> bool:
    """Whether a hypothesis is a loop: it filled the cap, repeats a phrase, or compresses too well.

    `strict` false: a repeated phrase alone is not held against it (people do say "no, no, no, no").
    """
    if tokens >= cap:
        return True
    data = text.encode()
    if len(data) / max(1, len(zlib.compress(data))) > COMPRESSION:
        return True
    return strict and repeats([word.strip(".,!?-").lower() for word in text.split()])


def repeats(words: Sequence[str]) -> bool:
    """Whether a phrase of one to six words follows itself: four times one word, three times more words."""
    for size in range(1, 7):
        times = 4 if size == 1 else 3
        run = 0
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= size * (times - 1):
                return True
    return False


# --- Whisper ------------------------------------------------------------------------------------------------------


class Whisper:
    """One Whisper model. Every method may run on several threads at once.

    Args:
        model: a ctranslate2.models.Whisper, or a stand-in with encode, generate, align and detect_language.
        tokenizer: a tokenizers.Tokenizer.
        multilingual: whether the model knows languages other than English.
        mels: mel bands of the features.
    """

    def __init__(self, model: Any, tokenizer: Any, *, multilingual: bool, mels: int = 80) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.multilingual, self.mels = multilingual, mels
        self._behind: Samples | None = None  # float32 (1, BEHIND / 2, d): the encoder's output for padding

    def prepare(self) -> None:
        """Learn what the encoder makes of padding, for quick hypotheses: half a second of work. Without it they are as the others."""
        encoded = [
            np.asarray(self._encode(log_mel(_sound(seed), self.mels), BEHIND)) for seed in range(SOUNDS)
        ]
        self._behind = np.mean(encoded, axis=0, dtype=np.float32)

    def transcribe(self, payload: Payload) -> Payload:
        """See the head of this file.

        Raises:
            InvalidRequest: the samples are not mono float32, empty, or longer than LONGEST, or the model does not know the language.
        """
        return self._hear(payload, "transcribe")

    def translate(self, payload: Payload) -> Payload:
        """See the head of this file.

        Raises:
            InvalidRequest: as for `transcribe`, or the model knows English alone.
        """
        if not self.multilingual:
            raise InvalidRequest(
                "a speech model that knows English alone cannot translate", code="cannot_translate"
            )
        return self._hear(payload, "translate")

    def _hear(self, payload: Payload, task: str) -> Payload:
        began = time.perf_counter()
        samples = _samples(payload, LONGEST)
        features = log_mel(samples, self.mels)
        frames = features.shape[1]
        cap = token_cap(len(samples) / RATE)
        language = payload.get("language") or "en"
        prompt, begin = self._prompt(payload), self._start(language, task)
        start = [*prompt, *begin]
        padded, quick = False, bool(payload.get("quick"))
        beam = 1 if quick else int(payload.get("beam", 1))
        for total in (-(-(frames + PADDING) // GRAIN) * GRAIN, FULL):
            padded = total >= FULL
            encoded = self._encode(features, min(total, FULL), quick=quick)
            ids, no_speech, log_probability = self._generate(encoded, start, cap, beam)
            text = self.tokenizer.decode(ids).strip()
            rejected = runs_away(text, len(ids), cap, strict=not padded)
            if not rejected:
                break
        if rejected:
            ids, text = [], ""
        before = [*prompt[:1], *prompt[1:][-ALIGN_PROMPT:]]
        words = (
            self._words(encoded, [*before, *begin], ids, frames, language)
            if ids and task == "transcribe"
            else []
        )
        return {
            "words": words,
            "text": text,
            "no_speech": no_speech,
            "log_probability": log_probability,
            "padded": padded,
            "rejected": rejected,
            "language": language,
            "seconds": time.perf_counter() - began,
        }

    def detect_language(self, payload: Payload) -> Payload:
        """The most probable language of the samples; models that know one language say "en"."""
        if not self.multilingual:
            return {"language": "en", "probability": 1.0}
        features = log_mel(_samples(payload, LONGEST), self.mels)
        encoded = self._encode(features, min(FULL, features.shape[1] + PADDING))
        token, probability = self.model.detect_language(encoded)[0][0]
        return {"language": token.strip("<|>"), "probability": float(probability)}

    def _encode(self, features: Samples, frames: int, *, quick: bool = False) -> Any:
        """The encoder's output for features that are padded to `frames`; `quick`: its far end from memory, if that reaches so far."""
        import ctranslate2

        frames += frames % 2
        near = -(-(features.shape[1] + NEAR) // GRAIN) * GRAIN
        if not quick or self._behind is None or not near < frames <= BEHIND:
            return self.model.encode(ctranslate2.StorageView.from_array(pad(features, frames)[None]))
        heard = self.model.encode(ctranslate2.StorageView.from_array(pad(features, near)[None]))
        whole = np.concatenate([np.asarray(heard), self._behind[:, near // 2 : frames // 2]], axis=1)
        return ctranslate2.StorageView.from_array(whole)

    def _start(self, language: str, task: str) -> list[int]:
        names = ["<|startoftranscript|>"]
        if self.multilingual:
            names += [f"<|{language}|>", f"<|{task}|>"]
        ids = [self.tokenizer.token_to_id(name) for name in names]
        if None in ids:
            raise InvalidRequest(
                f"the speech model does not know the language {language!r}", code="unknown_language"
            )
        return ids

    def _prompt(self, payload: Payload) -> list[int]:
        """The text that the model takes for what came before: terms to expect, then the words before the samples."""
        hot, before = (
            self.tokenizer.encode(" " + payload[name], add_special_tokens=False).ids
            if payload.get(name)
            else []
            for name in ("hotwords", "before")
        )
        if not hot and not before:
            return []
        return [self.tokenizer.token_to_id("<|startofprev|>"), *hot[:PROMPT_TOKENS], *before[-PROMPT_TOKENS:]]

    def _generate(
        self, encoded: Any, start: list[int], cap: int, beam: int
    ) -> tuple[list[int], float, float]:
        prompt = [*start, self.tokenizer.token_to_id("<|notimestamps|>")]
        result = self.model.generate(
            encoded,
            [prompt],
            beam_size=beam,
            max_length=len(prompt) + cap,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        ids = [i for i in result.sequences_ids[0] if i < self.tokenizer.token_to_id("<|endoftext|>")]
        return ids, float(result.no_speech_prob), float(result.scores[0])

    def _words(
        self, encoded: Any, start: list[int], ids: list[int], frames: int, language: str
    ) -> list[list[Any]]:
        groups = self._groups(ids, language)
        alignment = self.model.align(encoded, start, [ids], [frames])[0]
        text_at = np.array([pair[0] for pair in alignment.alignments])
        time_at = np.array([pair[1] for pair in alignment.alignments])
        starts = (
            time_at[np.pad(np.diff(text_at), (1, 0), constant_values=1).astype(bool)] * 0.02
        )  # the encoder's frames are 20 ms
        words: list[list[Any]] = []
        first = 0
        for group in groups:
            last = first + len(group)
            text = self.tokenizer.decode(group).strip()
            begin, end = float(starts[min(first, len(starts) - 1)]), float(starts[min(last, len(starts) - 1)])
            probability = float(np.mean(alignment.text_token_probs[first:last]))
            first = last
            if any(letter.isalnum() for letter in text):
                words.append([text, round(begin, 3), round(end, 3), round(probability, 4)])
            elif words and language in SPACELESS:  # a full stop is a character of its own there
                words[-1][0] += text
        return words

    def _groups(self, ids: list[int], language: str) -> list[list[int]]:
        """Tokens grouped to words: a token with a leading blank begins one; without blanks, every whole character does."""
        groups: list[list[int]] = []
        whole = True
        for token in ids:
            if language in SPACELESS:
                opens = whole
                whole = "�" not in self.tokenizer.decode([*([] if opens else groups[-1]), token])
            else:
                opens = self.tokenizer.id_to_token(token).startswith("Ġ")
            if opens or not groups:
                groups.append([token])
            else:
                groups[-1].append(token)
        return groups


def _sound(seed: int) -> Samples:
    """1.6 s of noise that swells as often as syllables do: speech enough for the encoder to know padding after it."""
    times = np.arange(int(1.6 * RATE)) / RATE
    swelling = np.clip(np.sin(8 * np.pi * times), 0.0, 1.0)
    sound: Samples = (0.05 * np.random.default_rng(seed).standard_normal(len(times)) * swelling).astype(
        np.float32
    )
    return sound


def _samples(payload: Mapping[str, Any], longest: float) -> Samples:
    samples = payload.get("samples")
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype != np.float32:
        raise InvalidRequest("samples must be a float32 array of shape (n,)")
    if not 0 < len(samples) <= longest * RATE:
        raise InvalidRequest(
            f"samples must last at most {longest} s, and more than nothing; not {len(samples) / RATE:.1f} s"
        )
    return samples


# --- voice activity -----------------------------------------------------------------------------------------------


class Silero:
    """Silero's voice activity model (v6, as shipped in the faster-whisper package), run with its state in the open.

    Args:
        path: the ONNX file.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            str(path), providers=["CPUExecutionProvider"], sess_options=options
        )

    def probability(self, payload: Payload) -> Payload:
        """See the head of this file.

        Raises:
            InvalidRequest: the samples are no whole number of windows, or the state is not one of ours.
        """
        samples = _samples(payload, LONGEST)
        state = payload.get("state")
        if state is None:
            state = np.zeros(2 * STATE + CONTEXT, np.float32)
        if len(samples) % WINDOW or state.shape != (2 * STATE + CONTEXT,):
            raise InvalidRequest(
                f"voice activity wants windows of {WINDOW} samples and a state of {2 * STATE + CONTEXT} numbers"
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


# --- loading ------------------------------------------------------------------------------------------------------


def load(options: Mapping[str, Any]) -> Engine:
    """Load and warm up the speech engine.

    Args:
        options: "models": the folder of models; "model": its name; "workers": decodes at once, one thread each; "device": "cpu" or "cuda".

    Raises:
        ModelMissing: a file is missing or cannot be read.
    """
    workers = int(options.get("workers", 2))
    name = str(options.get("model", "whisper-tiny.en"))
    device = str(options.get("device", "cpu"))
    whisper = load_whisper(Path(str(options["models"])) / name, workers, device)
    silero = Silero(silero_file())
    silence = np.zeros(RATE, np.float32)
    whisper.transcribe(
        {"samples": silence}
    )  # the first call packs weights and allocates: not in anybody's deadline
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
    )


def load_whisper(folder: Path, workers: int, device: str = "cpu") -> Whisper:
    """Load one Whisper folder in CTranslate2's format, int8 on the CPU, float16 on a GPU ("cuda").

    Raises:
        ModelMissing: a file is missing or cannot be read.
    """
    for file in FILES:
        if not (folder / file).is_file():
            raise ModelMissing(
                f"the speech model {folder.name} lacks {file}: run `streamsvc models pull {folder.name}`"
            )
    if (
        "avx512f" in flags().split()
    ):  # CTranslate2 takes AVX2 on Intel's unless it is told; the encoder is a tenth faster
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")
    import ctranslate2
    import tokenizers

    try:
        mels = (
            int(json.loads((folder / "preprocessor_config.json").read_text())["feature_size"])
            if (folder / "preprocessor_config.json").is_file()
            else 80
        )
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        copies = (
            workers if folder.name.endswith(".en") else workers + 1
        )  # one more for translation: transcription never waits for it
        kind = "int8" if device == "cpu" else "float16"
        model = ctranslate2.models.Whisper(
            str(folder), device=device, compute_type=kind, inter_threads=copies, intra_threads=1
        )
        if device != "cpu":  # its libraries are looked for at the first use
            model.encode(ctranslate2.StorageView.from_array(np.zeros((1, mels, 2), np.float32)))
    except Exception as error:  # each library raises its own kind, down to a bare Exception
        if device != "cpu":
            raise ModelMissing(
                f"the speech model {folder.name} cannot run on {device}: {error}", code="no_gpu"
            ) from error
        raise ModelMissing(
            f"the speech model {folder.name} is broken ({error}): run `streamsvc models pull {folder.name}`"
        ) from error
    made = Whisper(model, tokenizer, multilingual=model.is_multilingual, mels=mels)
    if device == "cpu":  # a GPU encodes the padding in no time, and what it made stays there
        made.prepare()
    return made


def silero_file() -> Path:
    """The ONNX file inside the faster-whisper package (which is not imported: it would bring half the world).

    Raises:
        ModelMissing: the package has no such file.
    """
    spec = importlib.util.find_spec("faster_whisper")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for file in sorted(Path(place, "assets").glob("silero_vad_v6*.onnx")):
            return file
    raise ModelMissing("the package faster-whisper holds no silero_vad_v6.onnx: reinstall faster-whisper 1.2")
