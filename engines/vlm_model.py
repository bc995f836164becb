"""Loads a transformers VLM, and tokenizes a session for it.

Chat template, markers around pictures, control tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engines.vlm_window import Ids, Picture, Piece
from streamsvc.core.errors import ModelMissing

INSTRUCTION = "What was said and shown in a live stream, in numbered lines with times:"  # without another
LONGEST = 400  # tokens of one item and of a question; longer ones are truncated
_HERE = "\u2042here\u2042"  # placeholder for the session in the chat template


def load_model(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor. float32 on the CPU, elsewhere the checkpoint's type.

    Raises:
        ModelMissing: torch, transformers or a file of the model is missing, or the model takes no pictures.
    """
    try:
        import torch
        import transformers as library
    except ImportError:
        raise ModelMissing("this model needs torch and transformers: pip install 'streamsvc[gpu]'") from None
    if not (folder / "config.json").is_file():  # otherwise transformers would look for it on a hub
        raise ModelMissing(f"the model {folder.name} is not there")
    transformers: Any = library  # its annotations are narrower than what it accepts
    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32 if device == "cpu" else "auto",
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        template = folder / "chat_template.json"  # older checkpoints have it only for their processor
        if not tokenizer.chat_template and template.is_file():
            tokenizer.chat_template = json.loads(template.read_text(encoding="utf-8"))["chat_template"]
    except (OSError, ValueError, KeyError):
        raise ModelMissing(f"the model {folder.name} cannot be loaded") from None
    return model.to(device).eval().requires_grad_(False), tokenizer, processor


class Layout:
    """The token layout of a session for one model: head, items in order, question, tail.

    Text of the session never becomes a control token, whatever it contains. Thread-safe once constructed.

    Args:
        config: the model's.
        tokenizer: the model's. Nothing else may encode with it: see below.
    """

    # transformers stores the option split_special_tokens in the shared Rust tokenizer and changes it when a
    # call needs another value. Calls that alternate are not thread-safe: a thread may encode text of the
    # session with another thread's option, and so with control tokens. All text with control tokens is
    # encoded in the constructor; afterwards every call uses the same option.

    def __init__(self, config: Any, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._image = int(config.image_token_id)
        before, after = _template(tokenizer)
        lead = self._lead(before)
        self.start = Piece(lead)  # the start of a plain prompt
        before_ids = self._control(before)
        self._tail = self._control(after)
        self._open, self._close = self._marks(config)
        self._before = lead + before_ids  # from here on only `text` encodes
        self.head = self.headed(INSTRUCTION)
        ends = getattr(config.get_text_config(), "eos_token_id", None)
        self.ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}

    def _lead(self, before: str) -> Ids:
        """The BOS token if the tokenizer adds one and the template does not contain it."""
        first = tokenizer_bos(self._tokenizer)
        return () if not first or before.startswith(self._tokenizer.bos_token) else first

    def _control(self, text: str) -> Ids:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _marks(self, config: Any) -> tuple[Ids, Ids]:
        """The tokens before and after the visual tokens of a picture that is not tiled."""
        if config.model_type.startswith("qwen2"):
            return (config.vision_start_token_id,), (config.vision_end_token_id,)
        if config.model_type in ("smolvlm", "idefics3"):
            fake, whole = self._tokenizer.convert_tokens_to_ids(["<fake_token_around_image>", "<global-img>"])
            return (fake, whole), (fake,)
        return (), ()

    def text(self, text: str) -> Ids:
        """Tokens of text, without control tokens."""
        return tuple(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def headed(self, instruction: str) -> Piece:
        """What stands before the items."""
        return Piece(self._before + self.text(f"{instruction}\n"))

    def text_line(self, text: str) -> Piece:
        """An item as text."""
        return Piece(self.text(text)[:LONGEST] + self.text("\n"))

    def picture_line(self, text: str, picture: Picture) -> Piece:
        """A keyframe as its text and visual tokens."""
        before = self.text(f"{text} ")[:LONGEST] + self._open
        return Piece(
            before + (self._image,) * len(picture.tokens) + self._close + self.text("\n"),
            picture,
            len(before),
        )

    def question(self, text: str) -> Piece:
        """The question and the template's end, after which the model answers."""
        return Piece(self.text(f"Question: {text}")[:LONGEST] + self._tail)

    def prompt(self, text: str, longest: int) -> Piece:
        """A plain prompt; of a longer text the last `longest` tokens."""
        return Piece(self.start.ids + self.text(text)[-longest:])

    def decode(self, ids: list[int]) -> str:
        """The text of generated tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def tokenizer_bos(tokenizer: Any) -> Ids:
    """The BOS token that a tokenizer puts before every text; () if it adds none."""
    first = tokenizer.encode("")[:1]
    return tuple(first) if first and first[0] == tokenizer.bos_token_id else ()


def _template(tokenizer: Any) -> tuple[str, str]:
    """The chat template's text before and after the user's message.

    A plain question and answer without a template.
    """
    if tokenizer.chat_template:
        for content in (_HERE, [{"type": "text", "text": _HERE}]):  # templates accept one of the two forms
            try:
                chat = [{"role": "user", "content": content}]
                written = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            except Exception:  # Jinja templates may raise anything
                continue
            if written.count(_HERE) == 1 and "'type'" not in written:
                before, after = written.split(_HERE)
                return before, after
    return "", "\nAnswer:"
