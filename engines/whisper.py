"""Whisper through CTranslate2, with an encoder input that is not padded to 30 s.

Whisper was trained on windows of 30 s. Padding a window of 5 s to 30 s is three quarters of the work. A
shorter input gives correct results if about 5 s of padding follow the speech; with less, the decoder loops.
So the input is the speech plus PADDING frames, the number of tokens is capped by the duration, loops are
rejected, and a rejected hypothesis is decoded once more with the full padding.

A hypothesis that will soon be replaced (`quick`) encodes only NEAR frames of the padding. The encoder's
output for the rest hardly depends on the speech and comes from a precomputed average. This halves the
encoder's work.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from engines import Payload
from engines.audio import RATE, Samples, log_mel, pad, request_samples
from streamsvc.core.errors import InvalidRequest

FULL = 3000  # mel frames of Whisper's training window
PADDING = 500  # mel frames after the speech; with fewer the decoder loops (FIELD_NOTES, speech 3)
NEAR = 160  # padding frames encoded for a quick hypothesis; with 100 word errors rise by a third of a point
BEHIND = 2000  # mel frames up to which the output for padding is precomputed
SOUNDS = 6  # synthetic sounds over which the output for padding is averaged
# Few input sizes let the allocator reuse memory: 290 MB after 1 min of speech, else 470 MB after 2 min.
GRAIN = 100  # mel frames
TOKENS_PER_SECOND = 7.0  # token cap; fast speakers reach 5.5 tokens a second
TOKENS_MORE = 8  # added to the cap
PROMPT_TOKENS = 100  # at most, of the hotwords and of the text before
ALIGN_PROMPT = (
    12  # last prompt tokens passed to the alignment: enough context for the first words; each costs 0.4 ms
)
SEPARATOR = ", "  # between screen terms in the prompt
# Mean log probability of a term's tokens without the terms in the prompt, from which it counts as spoken. Where
# it was chosen (two recordings), spoken terms had -2.8 and more, others in their places -5.0.
HEARD_LOG_PROBABILITY = -4.0
# Probability of no speech above which a window is decoded without the terms: in music and noise a prompt of
# terms makes the model write something, though hardly ever a term.
NO_SPEECH_DOUBT = 0.1
COMPRESSION = 2.4  # zlib ratio above which a text repeats itself (Whisper's own threshold)
SPACELESS = ("zh", "ja", "th", "lo", "my", "yue")  # written without spaces: each character is a word


def token_cap(seconds: float) -> int:
    """The largest number of tokens that speech of this duration can have."""
    return int(seconds * TOKENS_PER_SECOND) + TOKENS_MORE


def runs_away(text: str, tokens: int, cap: int, *, strict: bool = True) -> bool:
    """Whether a hypothesis is a decoding loop: it reaches the cap, repeats a phrase, or compresses too well.

    With `strict` false a repeated phrase alone is accepted (people do say "no, no, no, no").
    """
    if tokens >= cap:
        return True
    data = text.encode()
    if len(data) / max(1, len(zlib.compress(data))) > COMPRESSION:
        return True
    return strict and repeats([word.strip(".,!?-").lower() for word in text.split()])


def repeats(words: Sequence[str]) -> bool:
    """Whether a word occurs four times in a row, or a phrase of two to six words three times."""
    for size in range(1, 7):
        times = 4 if size == 1 else 3
        run = 0
        for at in range(size, len(words)):
            run = run + 1 if words[at] == words[at - size] else 0
            if run >= size * (times - 1):
                return True
    return False


class Whisper:
    """One Whisper model. All methods are thread-safe. The ops' payloads are described in `engines.asr`.

    Args:
        model: a ctranslate2.models.Whisper, or a fake with encode, generate, align and detect_language.
        tokenizer: a tokenizers.Tokenizer.
        multilingual: whether the model supports languages other than English.
        mels: mel bands of the features.
    """

    def __init__(self, model: Any, tokenizer: Any, *, multilingual: bool, mels: int = 80) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.multilingual = multilingual
        self.mels = mels
        self._padding: Samples | None = None  # float32 (1, BEHIND / 2, d): the encoder's output for padding

    def prepare(self) -> None:
        """Precompute the encoder's output for padding (half a second).

        Without it `quick` has no effect on the encoder.
        """
        encoded = [
            np.asarray(self._encode(log_mel(_noise(seed), self.mels), BEHIND)) for seed in range(SOUNDS)
        ]
        self._padding = np.mean(encoded, axis=0, dtype=np.float32)

    def transcribe(self, payload: Payload) -> Payload:
        """Op `transcribe`.

        Raises:
            InvalidRequest: the samples are invalid (`audio.request_samples`), or the model does not support
                the language.
        """
        return self._decode(payload, "transcribe")

    def translate(self, payload: Payload) -> Payload:
        """Op `translate`.

        Raises:
            InvalidRequest: as for `transcribe`, or the model supports only English.
        """
        if not self.multilingual:
            raise InvalidRequest("an English-only speech model cannot translate", code="cannot_translate")
        return self._decode(payload, "translate")

    def detect_language(self, payload: Payload) -> Payload:
        """Op `detect_language`: the most probable language; "en" for an English-only model."""
        if not self.multilingual:
            return {"language": "en", "probability": 1.0}
        features = log_mel(request_samples(payload), self.mels)
        encoded = self._encode(features, min(FULL, features.shape[1] + PADDING))
        token, probability = self.model.detect_language(encoded)[0][0]
        return {"language": token.strip("<|>"), "probability": float(probability)}

    def _decode(self, payload: Payload, task: str) -> Payload:
        began = time.perf_counter()
        samples = request_samples(payload)
        features = log_mel(samples, self.mels)
        frames = features.shape[1]
        cap = token_cap(len(samples) / RATE)
        language = payload.get("language") or "en"
        terms = tuple(payload.get("screen_terms") or ())
        prompt, plain = self._prompt(payload, terms), self._prompt(payload)
        task_tokens = self._task_tokens(language, task)
        padded = False
        quick = bool(payload.get("quick"))
        beam = 1 if quick else int(payload.get("beam", 1))
        for total in (-(-(frames + PADDING) // GRAIN) * GRAIN, FULL):
            padded = total >= FULL
            encoded = self._encode(features, min(total, FULL), quick=quick)
            ids, no_speech, log_probability = self._generate(encoded, [*prompt, *task_tokens], cap, beam)
            start = [*plain, *task_tokens]
            doubtful = bool(terms) and no_speech > NO_SPEECH_DOUBT
            if doubtful or self._only_prompted(encoded, start, ids, frames, terms):
                ids, no_speech, log_probability = self._generate(encoded, start, cap, beam)
            text = self.tokenizer.decode(ids).strip()
            rejected = runs_away(text, len(ids), cap, strict=not padded)
            if not rejected:
                break
        if rejected:
            ids, text = [], ""
        words: list[list[Any]] = []
        if ids and task == "transcribe":
            start = [*plain[:1], *plain[1:][-ALIGN_PROMPT:], *task_tokens]
            words = self._words(ids, language, self.model.align(encoded, start, [ids], [frames])[0])
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

    def _encode(self, features: Samples, frames: int, *, quick: bool = False) -> Any:
        """The encoder's output for features padded to `frames`.

        With `quick` its end is precomputed, up to BEHIND frames.
        """
        import ctranslate2

        frames += frames % 2
        near = -(-(features.shape[1] + NEAR) // GRAIN) * GRAIN
        if not quick or self._padding is None or not near < frames <= BEHIND:
            return self.model.encode(ctranslate2.StorageView.from_array(pad(features, frames)[None]))
        encoded = self.model.encode(ctranslate2.StorageView.from_array(pad(features, near)[None]))
        whole = np.concatenate([np.asarray(encoded), self._padding[:, near // 2 : frames // 2]], axis=1)
        return ctranslate2.StorageView.from_array(whole)

    def _task_tokens(self, language: str, task: str) -> list[int]:
        names = ["<|startoftranscript|>"]
        if self.multilingual:
            names += [f"<|{language}|>", f"<|{task}|>"]
        ids = [self.tokenizer.token_to_id(name) for name in names]
        if None in ids:
            raise InvalidRequest(
                f"the speech model does not support the language {language!r}", code="unknown_language"
            )
        return ids

    def _prompt(self, payload: Payload, terms: Sequence[str] = ()) -> list[int]:
        """Tokens that the model takes for the preceding text.

        The hotwords, the terms of the screen, then the words before the samples.
        """
        expected = self._text_tokens(payload.get("hotwords")) + self._text_tokens(SEPARATOR.join(terms))
        before = self._text_tokens(payload.get("before"))
        if not expected and not before:
            return []
        start = self.tokenizer.token_to_id("<|startofprev|>")
        return [start, *expected[:PROMPT_TOKENS], *before[-PROMPT_TOKENS:]]

    def _only_prompted(
        self, encoded: Any, start: list[int], ids: list[int], frames: int, terms: Sequence[str]
    ) -> bool:
        """Whether a hypothesis has a term of the screen that the audio alone does not support.

        `start`: the prompt without the terms.
        """
        groups = self._groups(ids, "en") if terms and ids else []
        known = {_letters(part) for term in terms for part in (term, *term.split("-"))}
        if not any(_letters(self.tokenizer.decode(group)) in known for group in groups):
            return False
        probabilities = self.model.align(encoded, start, [ids], [frames])[0].text_token_probs
        first = 0
        for group in groups:
            logs = np.log(np.maximum(probabilities[first : first + len(group)], 1e-9))
            first += len(group)
            if _letters(self.tokenizer.decode(group)) in known and logs.mean() < HEARD_LOG_PROBABILITY:
                return True
        return False

    def _text_tokens(self, text: str | None) -> list[int]:
        return list(self.tokenizer.encode(" " + text, add_special_tokens=False).ids) if text else []

    def _generate(
        self, encoded: Any, start: list[int], cap: int, beam: int
    ) -> tuple[list[int], float, float]:
        """Token ids, probability of no speech, mean log probability."""
        prompt = [*start, self.tokenizer.token_to_id("<|notimestamps|>")]
        result = self.model.generate(
            encoded,
            [prompt],
            beam_size=beam,
            max_length=len(prompt) + cap,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        end = self.tokenizer.token_to_id("<|endoftext|>")
        ids = [token for token in result.sequences_ids[0] if token < end]
        return ids, float(result.no_speech_prob), float(result.scores[0])

    def _words(self, ids: list[int], language: str, alignment: Any) -> list[list[Any]]:
        """[text, start, end, probability] of each word, from the model's alignment of the tokens."""
        text_at = np.array([pair[0] for pair in alignment.alignments])
        time_at = np.array([pair[1] for pair in alignment.alignments])
        new_token = np.pad(np.diff(text_at), (1, 0), constant_values=1).astype(bool)
        starts = time_at[new_token] * 0.02  # the encoder's frames are 20 ms
        words: list[list[Any]] = []
        first = 0
        for group in self._groups(ids, language):
            last = first + len(group)
            text = self.tokenizer.decode(group).strip()
            start = float(starts[min(first, len(starts) - 1)])
            end = float(starts[min(last, len(starts) - 1)])
            probability = float(np.mean(alignment.text_token_probs[first:last]))
            first = last
            if any(letter.isalnum() for letter in text):
                words.append([text, round(start, 3), round(end, 3), round(probability, 4)])
            elif words and language in SPACELESS:  # there a punctuation mark is a group of its own
                words[-1][0] += text
        return words

    def _groups(self, ids: list[int], language: str) -> list[list[int]]:
        """Tokens grouped into words.

        At a leading space, or, in languages without spaces, at each whole character.
        """
        groups: list[list[int]] = []
        whole = True
        for token in ids:
            if language in SPACELESS:
                opens = whole
                whole = "\ufffd" not in self.tokenizer.decode([*([] if opens else groups[-1]), token])
            else:
                opens = self.tokenizer.id_to_token(token).startswith("\u0120")  # byte-level BPE's space
            if opens or not groups:
                groups.append([token])
            else:
                groups[-1].append(token)
        return groups


def _letters(text: str) -> str:
    """A word to compare: its letters and digits in lower case, without the 's of a name."""
    plain = text.strip().lower().replace("\u2019", "'").rstrip('.,!?;:"')
    return "".join(filter(str.isalnum, plain.removesuffix("'s")))


def _noise(seed: int) -> Samples:
    """1.6 s of noise modulated at the rate of syllables.

    Enough like speech for the encoder to treat what follows as padding.
    """
    times = np.arange(int(1.6 * RATE)) / RATE
    envelope = np.clip(np.sin(8 * np.pi * times), 0.0, 1.0)
    noise = np.random.default_rng(seed).standard_normal(len(times))
    sound: Samples = (0.05 * noise * envelope).astype(np.float32)
    return sound
