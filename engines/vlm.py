"""A vision language model as an engine: it sees keyframes and answers from what a session said and showed (late fusion).

Op `encode`: {"jpeg": uint8 bytes} -> {"picture": key, "tokens": n, "known": bool}. The key is of the bytes, so a picture that two sessions
show is encoded once.

Op `extend`: {"session", "items", "adapter"?} -> {"tokens", "reused", "computed", "drops", "gone", "unseen", "shown"}. Reads what is new
of a session ahead of any question. "shown": times of the pictures that are before the model as pictures.

Op `generate`, streamed: {"session", "items", "question", "adapter"?, "aside"?} or {"prompt"}, and {"max_tokens"?, "stop"?} -> first the
counts as of `extend` and "text": "", then {"text": more of the answer}. With a prompt it keeps the contract of `engines.llm`. Of what is
asked "aside" nothing is kept: it takes no room that questions need.

An item is {"at": session seconds, "kind": "speech" | "screen" | "picture", "text": str, "picture"?: key}. Items are final, and may
all be told each time: those known already are not read again. A picture whose visual tokens are gone is shown by its text, and counted
in "unseen".
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
from engines.lru_cache import LruCache
from engines.vision import opened
from engines.vlm_adapters import Adapters
from engines.vlm_decoder import Decoder, KvCache, argmax
from engines.vlm_model import LONGEST, Layout, load_model
from engines.vlm_tower import Tower
from engines.vlm_window import Entry, Limits, Picture, Piece, Window, append_entry
from streamsvc.core.errors import InvalidRequest, WorkerError

MAX_ITEMS = 2000  # of one request
BATCH = 8  # pictures of one run
ROOM = 2 * LONGEST + MAX_TOKENS  # tokens beside a window: head, question, answer
SHOWN = 4  # pictures for which the window has room: larger ones are made smaller


@dataclass(slots=True)
class Seat:
    """What is held of one session: it can be rebuilt from its items."""

    window: Window = field(default_factory=Window)
    kept: KvCache = field(default_factory=KvCache)
    unseen: int = 0


def load(options: Mapping[str, Any]) -> Engine:
    """The engine of the model in the folder options["models"] / options["model"].

    Args:
        options: "device" of torch ("cpu"); "tower": "torch" or "onnx"; "adapters": folder of LoRA adapters (by default `adapters` beside
            the models); "window_tokens" (4096), "visual_tokens" (1024); "sessions" (8) whose keys and values, "pictures" (256) whose
            visual tokens are kept.

    Raises:
        ModelMissing: torch or transformers, or a file of the model, is not there.
    """
    folder, name, device = (
        Path(str(options["models"])),
        str(options["model"]),
        str(options.get("device", "cpu")),
    )
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
        "count": Op(
            lambda batch: [
                {"tokens": len(fusion.layout.text(str(asked.get("text", ""))))} for asked in batch
            ],
            batch=16,
        ),
    }
    return Engine(ops, {"vlm": name, "tower": str(options.get("tower", "torch")), "device": device})


class Fusion:
    """The ops, and what they keep."""

    def __init__(self, layout: Layout, tower: Tower, decoder: Decoder, options: Mapping[str, Any]) -> None:
        self.layout, self._tower, self._decoder = layout, tower, decoder
        self._limits = Limits(
            int(options.get("window_tokens", 4096)), int(options.get("visual_tokens", 1024))
        )
        self._pictures: LruCache[Picture] = LruCache(int(options.get("pictures", 256)))
        self._seats: LruCache[Seat] = LruCache(int(options.get("sessions", 8)))

    def encode(self, batch: list[Payload]) -> list[Payload | Exception]:
        """See the head of this file."""
        keys, fresh, bad = [], {}, WorkerError("the picture cannot be read", code="bad_picture")
        for asked in batch:
            try:
                data = asked["jpeg"].tobytes()
                key = hashlib.blake2b(data, digest_size=16).hexdigest()
                if self._pictures.get(key) is None and key not in fresh:
                    fresh[key] = self._tower.fit(opened(asked["jpeg"]), max(1, self._limits.visual // SHOWN))
                keys.append(key)
            except (OSError, ValueError, KeyError, AttributeError):
                keys.append("")
        sights = self._tower.encode(list(fresh.values())) if fresh else []
        seen = {key: Picture(key, *sight) for key, sight in zip(fresh, sights, strict=True)}
        for key, picture in seen.items():
            self._pictures.put(key, picture)
        results: list[Payload | Exception] = []
        for key in keys:
            found = seen.get(key) or self._pictures.get(key)
            results.append(
                {"picture": key, "tokens": len(found.tokens), "known": key not in seen}
                if found is not None
                else bad
            )
        return results

    def extend(self, asked: Payload) -> Payload:
        """See the head of this file."""
        name, adapter = _named(asked)
        seat = self._seats.take(name) or Seat()
        self._grow(seat, asked.get("items"))
        self._decoder.read(seat.kept, [self.layout.head, *seat.window.pieces], adapter)
        self._seats.put(name, seat)
        return _counts(seat)

    def generate(self, asked: Payload) -> Iterator[Payload]:
        """See the head of this file."""
        most, stops = generation_limits(asked)
        prompt, question = asked.get("prompt"), asked.get("question")
        if isinstance(prompt, str) and prompt:
            name, adapter, seats = "", "", self._seats
            seat = seats.take(name) or Seat()  # prompts begin alike, with their examples
            pieces = [self.layout.prompt(prompt, LONGEST_PROMPT)]
        elif isinstance(question, str) and question:
            name, adapter = _named(asked)
            seats = LruCache(1) if asked.get("aside") else self._seats
            seat = seats.take(name) or Seat()
            self._grow(seat, asked.get("items"))
            pieces = [self.layout.head, *seat.window.pieces, self.layout.question(question)]
        else:
            raise InvalidRequest("generate wants a prompt, or a question")
        try:
            yield from self._answer(seat, pieces, adapter, most, stops)
        except GeneratorExit:  # the asker has left between two tokens: what is kept is whole
            seats.put(name, seat)
            raise
        seats.put(name, seat)  # after an error it is not: half a token may be in it

    def _answer(
        self, seat: Seat, pieces: list[Piece], adapter: str, most: int, stops: list[str]
    ) -> Iterator[Payload]:
        logits = self._decoder.read(seat.kept, pieces, adapter)
        yield {"text": "", **_counts(seat)}
        with self._decoder.answering(seat.kept, most) as step:
            tokens = itertools.islice(self._tokens(logits, step), most)
            for text in increments(tokens, self.layout.decode, stops):
                yield {"text": text}

    def _tokens(self, logits: Any, step: Callable[[int], Any]) -> Iterator[int]:
        """The likeliest continuation; what is kept grows by a token when the one after it is asked for."""
        while (token := argmax(logits)) not in self.layout.ends:
            yield token
            logits = step(token)

    def _grow(self, seat: Seat, items: Any) -> None:
        """Put into the window what it does not know yet.

        Raises:
            InvalidRequest: an item is none.
        """
        if not isinstance(items, list) or len(items) > MAX_ITEMS:
            raise InvalidRequest(f"items wants a list of at most {MAX_ITEMS}")
        for item in items:
            try:
                at, kind, text, key = (
                    float(item["at"]),
                    str(item["kind"]),
                    str(item["text"]),
                    str(item.get("picture") or ""),
                )
            except (KeyError, TypeError, ValueError, AttributeError):
                raise InvalidRequest('an item has "at", "kind" and "text"') from None
            name = f"{at} {kind} {key or text}"
            if seat.window.knows(name, at):
                continue
            picture = self._pictures.get(key) if key else None
            seat.unseen += bool(key) and picture is None
            sight = self.layout.picture_line(at, picture) if picture is not None else None
            seat.window = append_entry(
                seat.window, Entry(name, at, self.layout.text_line(at, kind, text), sight), self._limits
            )


def _named(asked: Payload) -> tuple[str, str]:
    name = asked.get("session")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("items belong to a session: say which")
    return name, str(asked.get("adapter") or "")


def _counts(seat: Seat) -> Payload:
    window, kept = seat.window, seat.kept
    counts = {"tokens": kept.tokens, "reused": kept.reused, "computed": kept.computed}
    shown = [entry.at for entry in window.entries if entry.piece.picture]
    return counts | {"drops": window.drops, "gone": window.gone, "unseen": seat.unseen, "shown": shown}
