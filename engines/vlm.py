"""The VLM engine: encodes keyframes, and answers questions from a session's text and pictures (late fusion).

Op `encode`: {"jpeg": uint8 bytes} -> {"picture": key, "tokens": n, "known": bool}. The key is a hash of the
bytes, so a picture that two sessions share is encoded once.

Op `extend`: {"session", "items", "instruction"?, "adapter"?} -> {"left", "tokens", "visual", "reused",
"computed", "drops", "gone", "unseen", "shown"}. Reads about READ_TOKENS at most of what is new in a session,
before any question: "left" are the tokens not yet read, "tokens" all, "visual" those of pictures. "shown":
numbers of the items whose pictures the model has as visual tokens.

Op `generate`, streamed: {"session", "items", "question", "instruction"?, "adapter"?, "aside"?} or {"prompt"},
and {"max_tokens"?, "stop"?} -> first the counts of `extend` with "text": "", then {"text": next part of the
answer}. With "prompt" it follows the contract of `engines.llm`. An "aside" request leaves nothing in the
cache, so it does not evict the KV cache of a session. A "schema" is not enforced.

Op `drop`: {"session"} -> {}: forgets what it has read of a session. Op `count`: {"texts"} -> {"tokens": [n]}.

An item is {"number": int, "at": session seconds, "text": one line, "picture"?: key}. Items are final, and
their numbers are never reused. A request repeats all items; known items are not read again. A picture whose
visual tokens were evicted is shown as its text, and counted in "unseen".
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import Engine, Op, Payload, StreamOp, each
from engines.continuation import LONGEST_PROMPT, MAX_TOKENS, generation_limits, increments
from engines.image import decode_image
from engines.lru_cache import LruCache
from engines.vlm_adapters import Adapters
from engines.vlm_decoder import Decoder, KvCache, argmax
from engines.vlm_model import LONGEST, Layout, load_model
from engines.vlm_tower import Tower
from engines.vlm_window import Entry, Limits, Picture, Piece, Window, append_entry, common_prefix
from streamsvc.core.errors import InvalidRequest, WorkerError

MAX_ITEMS = 2000  # per request
READ_TOKENS = 512  # that one `extend` reads: a question waits for so much at most
BATCH = 8  # pictures per inference
ROOM = 2 * LONGEST + MAX_TOKENS  # tokens in addition to the window: head, question, answer
VISIBLE_PICTURES = 4  # that must fit the window's visual tokens; larger pictures are scaled down


@dataclass(slots=True)
class SessionState:
    """The cached state of one session. It can be rebuilt from the session's items.

    `taken`: numbers of the items that are in the window, or have left it.
    """

    window: Window = field(default_factory=Window)
    taken: set[int] = field(default_factory=set)
    kv: KvCache = field(default_factory=KvCache)
    unseen: int = 0


def load(options: Mapping[str, Any]) -> Engine:
    """Load the model in the folder options["models"] / options["model"].

    Args:
        options: "device": torch device ("cpu"); "tower": "torch" or "onnx"; "adapters": folder of LoRA
            adapters (default: `adapters` beside the models); "window_tokens" (4096); "visual_tokens" (1024);
            "sessions" (8): cached KV caches; "pictures" (256): cached visual tokens.

    Raises:
        ModelMissing: torch, transformers or a file of the model is missing.
    """
    folder = Path(str(options["models"]))
    name = str(options["model"])
    device = str(options.get("device", "cpu"))
    model, tokenizer, processor = load_model(folder / name, device)
    tower = Tower(model, processor)
    if options.get("tower", "torch") == "onnx":
        from engines.export_vlm import exported

        tower = Tower(model, processor, exported(model, tower, folder / name))
    adapters = Adapters(model, Path(str(options.get("adapters", folder / "adapters"))))
    room = int(options.get("window_tokens", 4096)) + ROOM if device != "cpu" else 0
    fusion = Fusion(Layout(model.config, tokenizer), tower, Decoder(model, adapters.using, room), options)
    ops: dict[str, Op | StreamOp] = {
        "encode": Op(fusion.encode, batch=BATCH),
        "extend": Op(each(fusion.extend)),
        "generate": StreamOp(fusion.generate),
        "count": Op(each(fusion.count), batch=16),
        "drop": Op(each(fusion.drop)),
    }
    describe = {"vlm": name, "tower": str(options.get("tower", "torch")), "device": device}
    return Engine(ops, describe, ("count", {"texts": ["a"]}))


class Fusion:
    """The ops and their caches."""

    def __init__(self, layout: Layout, tower: Tower, decoder: Decoder, options: Mapping[str, Any]) -> None:
        self.layout = layout
        self._tower = tower
        self._decoder = decoder
        self._limits = Limits(
            int(options.get("window_tokens", 4096)), int(options.get("visual_tokens", 1024))
        )
        self._pictures: LruCache[Picture] = LruCache(int(options.get("pictures", 256)))
        self._sessions: LruCache[SessionState] = LruCache(int(options.get("sessions", 8)))

    def encode(self, batch: list[Payload]) -> list[Payload | Exception]:
        """Op `encode`: see the module."""
        keys: list[str | WorkerError] = []
        images: dict[str, Any] = {}  # not cached yet, by key
        pictures: dict[str, Picture] = {}  # all of the batch, as the cache may evict some of them meanwhile
        for asked in batch:
            key = _picture_key(asked)
            keys.append(key)
            if picture := self._pictures.get(key):
                pictures[key] = picture
            elif key not in images:
                try:
                    image = decode_image(asked)
                    images[key] = self._tower.fit(image, max(1, self._limits.visual // VISIBLE_PICTURES))
                except WorkerError as error:
                    keys[-1] = error
        encoded = self._tower.encode(list(images.values())) if images else []
        for key, visual in zip(images, encoded, strict=True):
            pictures[key] = Picture(key, *visual)
            self._pictures.put(key, pictures[key])
        return [
            key
            if isinstance(key, WorkerError)
            else {"picture": key, "tokens": len(pictures[key].tokens), "known": key not in images}
            for key in keys
        ]

    def extend(self, asked: Payload) -> Payload:
        """Op `extend`: see the module."""
        name, adapter = _session_and_adapter(asked)
        state = self._sessions.take(name) or SessionState()
        self._grow(state, asked.get("items"))
        pieces = [self._head(asked), *state.window.pieces]
        known = common_prefix(state.kv.pieces, pieces) if state.kv.adapter == adapter else 0
        ends = list(itertools.accumulate(len(piece.ids) for piece in pieces))
        now = next((n for n, end in enumerate(ends, 1) if end >= known + READ_TOKENS), len(pieces))
        self._decoder.read(state.kv, pieces[:now], adapter)
        self._sessions.put(name, state)
        return _counts(state) | {"tokens": ends[-1], "left": ends[-1] - ends[now - 1]}

    def _head(self, asked: Payload) -> Piece:
        instruction = asked.get("instruction")
        return self.layout.headed(str(instruction)) if instruction else self.layout.head

    def drop(self, asked: Payload) -> Payload:
        """Op `drop`: see the module."""
        self._sessions.take(str(asked.get("session")))
        return {}

    def count(self, asked: Payload) -> Payload:
        """Op `count`: see the module."""
        return {"tokens": [len(self.layout.text(str(text))) for text in asked.get("texts", ())]}

    def generate(self, asked: Payload) -> Iterator[Payload]:
        """Op `generate`: see the module."""
        most, stops = generation_limits(asked)
        prompt, question = asked.get("prompt"), asked.get("question")
        if isinstance(prompt, str) and prompt:
            name, adapter, sessions = "", "", self._sessions
            state = sessions.take(name) or SessionState()  # prompts share their beginning: the same examples
            pieces = [self.layout.prompt(prompt, LONGEST_PROMPT)]
        elif isinstance(question, str) and question:
            name, adapter = _session_and_adapter(asked)
            sessions = LruCache(1) if asked.get("aside") else self._sessions
            state = sessions.take(name) or SessionState()
            self._grow(state, asked.get("items"))
            pieces = [self._head(asked), *state.window.pieces, self.layout.question(question)]
        else:
            raise InvalidRequest("generate takes a prompt or a question")
        try:
            yield from self._answer(state, pieces, adapter, most, stops)
        except GeneratorExit:  # cancelled between two tokens: the KV cache is consistent
            sessions.put(name, state)
            raise
        sessions.put(name, state)  # not after an error, which may leave the KV cache inconsistent

    def _answer(
        self, state: SessionState, pieces: list[Piece], adapter: str, most: int, stops: list[str]
    ) -> Iterator[Payload]:
        logits = self._decoder.read(state.kv, pieces, adapter)
        yield {"text": "", **_counts(state)}
        with self._decoder.answering(state.kv, most) as step:
            tokens = itertools.islice(self._tokens(logits, step), most)
            for text in increments(tokens, self.layout.decode, stops):
                yield {"text": text}

    def _tokens(self, logits: Any, step: Callable[[int], Any]) -> Iterator[int]:
        """Greedy decoding. The KV cache grows by a token when the next one is requested."""
        while (token := argmax(logits)) not in self.layout.ends:
            yield token
            logits = step(token)

    def _grow(self, state: SessionState, items: Any) -> None:
        """Append new items to the window.

        Raises:
            InvalidRequest: an item is invalid.
        """
        if not isinstance(items, list) or len(items) > MAX_ITEMS:
            raise InvalidRequest(f"items takes a list of at most {MAX_ITEMS} items")
        for item in items:
            try:
                number = int(item["number"])
                text = str(item["text"])
                key = str(item.get("picture") or "")
            except (KeyError, TypeError, ValueError, AttributeError):
                raise InvalidRequest('an item needs "number", "at" and "text"') from None
            if number in state.taken:
                continue
            state.taken.add(number)
            picture = self._pictures.get(key) if key else None
            state.unseen += bool(key) and picture is None
            visual = self.layout.picture_line(text, picture) if picture is not None else None
            state.window = append_entry(
                state.window, Entry(number, self.layout.text_line(text), visual), self._limits
            )


def _picture_key(asked: Payload) -> str:
    """Hash of the picture's bytes; "" if there are none."""
    try:
        return hashlib.blake2b(asked["jpeg"].tobytes(), digest_size=16).hexdigest()
    except (KeyError, AttributeError):
        return ""


def _session_and_adapter(asked: Payload) -> tuple[str, str]:
    name = asked.get("session")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("a request with items must name its session")
    return name, str(asked.get("adapter") or "")


def _counts(state: SessionState) -> Payload:
    window, kv = state.window, state.kv
    counts = {"tokens": kv.tokens, "reused": kv.reused, "computed": kv.computed}
    counts["visual"] = window.visual
    shown = [entry.number for entry in window.entries if entry.piece.picture]
    return counts | {"drops": window.drops, "gone": window.gone, "unseen": state.unseen, "shown": shown}
