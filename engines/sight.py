"""The engine of a model that sees, on llama.cpp: a model and its projector, two GGUF files in one folder.

The prompt is laid out by the model's own chat template. A session's window stands before the question, a
picture at its line, so that what a slot has read is kept while the window grows:

    template | instruction | template | line (picture) line ... | question | template | answer

A picture costs seconds of a core: llama.cpp encodes it twice (as a tile and as an overview), 154 tokens. So a
session's pictures are read by `extend` alone, in idle time, and of those that wait only the newest NEWEST;
the others become text. A question never waits for one: what is unread when it comes is told as its line. What
was read as a picture stays one, for another prompt would have to be read anew.

Ops: `encode`, `extend`, `generate` (stream), `count`, `drop`; see `engines.vlm`. An "aside" request that is
"kept" is answered from what the session's slot has read; CapacityError ("unread") where its picture is not
there yet. One without reads its picture itself.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engines import Engine, Op, Payload, StreamOp, each
from engines.chat import PIECE, QUESTION_SECONDS, SLOT_SECONDS, Slot, Slots, json_grammar, template_parts
from engines.chat_models import machine_cores
from engines.continuation import generation_limits
from engines.fetch import folder_of
from engines.image import decode_image
from engines.llama_server import LlamaServer, Size
from engines.lru_cache import LruCache
from streamsvc.core.errors import CapacityError, InvalidRequest, ModelMissing

NEWEST = 4  # pictures that are read of those that wait
SIDE = 512  # pixels of a picture: more than one tile of the tower costs seconds for each
PICTURE_TOKENS = 154  # until it is measured
SLOTS = 3  # prompts kept: a session, its next window after a fold, and what is aside
ROOM = 400  # tokens of a slot that no picture takes: a question and its answer
_PICTURES = 256  # cached
_LINES = 4096  # cached counts
_ASIDE = "\0aside"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prompt: text, and the key of the picture behind it, or ""."""

    text: str
    picture: str = ""


def load(options: Mapping[str, Any]) -> Engine:
    """Load model and projector.

    Args:
        options: "models": the folder of models; "sees": a name of the registry or of a folder in "models"
            with two GGUF files, the projector's name beginning with "mmproj". "window_tokens", "threads": as
            of `engines.chat`.

    Raises:
        ModelMissing: a file is missing, broken, or not the registry's.
        ConfigError: the model's chat template cannot be used.
    """
    name = str(options["sees"])
    model, projector = sight_files(name, Path(options["models"]))
    size = Size(
        threads=int(options.get("threads") or max(1, machine_cores() // 2)),
        slots=SLOTS,
        context=int(options.get("window_tokens", 4096)),
        batch=PIECE,
    )
    server = LlamaServer(model, size, projector)
    return Sight(server, size).engine({"sight": name, "runtime": server.version})


def sight_files(name: str, models_dir: Path) -> tuple[Path, Path]:
    """The GGUF files of a model that sees: model and projector.

    Raises:
        ModelMissing: one is missing, or it is a model of the registry and not the registry's file.
    """
    folder = folder_of(name, models_dir)
    found = sorted(folder.glob("*.gguf"))
    projectors = [path for path in found if path.name.startswith("mmproj")]
    models = [path for path in found if path not in projectors]
    if not projectors or not models:
        raise ModelMissing(
            f"there is no *.gguf with its mmproj*.gguf in {folder}: run `streamsvc models pull {name}`"
        )
    return models[0], projectors[0]


class Sight:
    """The ops on one server that has a projector.

    Raises:
        ConfigError: the model's chat template cannot be used.
    """

    def __init__(self, server: LlamaServer, size: Size) -> None:
        self._server = server
        self._size = size
        self._marker = server.media_marker()
        self._parts = template_parts(server)
        self._slots: Slots[Piece] = Slots(size.slots)
        self._pictures: LruCache[str] = LruCache(_PICTURES)  # base64 of a JPEG
        self._counts: LruCache[int] = LruCache(_LINES)
        self._picture_tokens = PICTURE_TOKENS

    def engine(self, describe: dict[str, str]) -> Engine:
        """The ops with a description."""
        return Engine(
            {
                "encode": Op(each(self.encode)),
                "extend": Op(each(self.extend)),
                "generate": StreamOp(self.generate, threads=self._size.slots),
                "count": Op(each(self.count)),
                "drop": Op(each(self.drop)),
            },
            describe,
            ("count", {"texts": ["a"]}),
        )

    def encode(self, asked: Payload) -> Payload:
        """Op `encode`: scale and cache a picture; llama.cpp encodes it when it is read."""
        data = asked["jpeg"].tobytes() if "jpeg" in asked else b""
        key = hashlib.blake2b(data, digest_size=16).hexdigest()
        known = self._pictures.get(key) is not None
        if not known:
            out = io.BytesIO()
            # The tower sees a square: its class squeezes a whole picture into one tile likewise.
            decode_image(asked).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
            self._pictures.put(key, base64.b64encode(out.getvalue()).decode())
        return {"picture": key, "tokens": self._picture_tokens, "known": known}

    def extend(self, asked: Payload) -> Payload:
        """Op `extend`: read one picture, or about PIECE tokens, of what is new in a session's window.

        -> {"left": tokens not yet read, "tokens": of the head, "visual": of its pictures, "shown": numbers of
        the items whose pictures have been read}.
        """
        key = _key(asked)
        with self._slots.held(key, SLOT_SECONDS) as slot:
            if slot is None:
                return {"left": PIECE, "tokens": 0, "visual": 0, "shown": []}
            pieces = self._head(asked, slot, unread=True)
            done = slot.common(pieces)
            until = done
            while until < len(pieces) and self._tokens(pieces[done:until]) < PIECE:
                until += 1
                if pieces[until - 1].picture:
                    break
            if until > done:
                self._read(slot, pieces[:until])
            shown = _shown(asked, pieces[:until])
            return {
                "left": self._tokens(pieces[until:]),
                "tokens": self._tokens(pieces),
                "visual": len(shown) * self._picture_tokens,
                "shown": shown,
            }

    def generate(self, asked: Payload) -> Iterator[Payload]:
        """Op `generate`: answer a question over what has been read of a session's window; see the module."""
        question = asked.get("question")
        if not isinstance(question, str) or not question:
            raise InvalidRequest("generate takes a question")
        most, stops = generation_limits(asked)
        aside = bool(asked.get("aside"))
        own = aside and not asked.get("kept")
        key = _ASIDE if own else self._kept_key(asked) if aside else _key(asked)
        with self._slots.held(key, QUESTION_SECONDS) as slot:
            if slot is None:
                raise CapacityError("the model that sees is reading a picture")
            if aside and not own:
                pieces, shown = _up_to_picture(slot, asked), [int(asked["items"][-1]["number"])]
                question = f"Of the last picture alone: {question}"
            else:
                pieces = self._head(asked, slot, unread=own)
                shown = _shown(asked, pieces)
            done = slot.common(pieces)
            sure = len(pieces) if aside else _first_skipped(asked, pieces, done)
            yield {
                "text": "",
                "tokens": self._tokens(pieces),
                "left": self._tokens(pieces[done:]),
                "shown": shown,
            }
            for until in range(done + 1, len(pieces) + 1):  # each alone, so that it can be given up between
                if pieces[until - 1].picture:
                    self._read(slot, pieces[:until])
                    yield {"text": ""}
            body = self._body(slot, [*pieces, Piece(self._tail(question, most, pieces))])
            body |= {"n_predict": most, "temperature": 0.0, "stop": stops}
            if asked.get("schema"):
                body["json_schema"] = json_grammar(asked["schema"])
            with closing(self._server.stream("/completion", body)) as events:  # type: ignore[type-var]
                for event in events:
                    slot.read = pieces[:sure]
                    if text := event.get("content"):
                        yield {"text": text}

    def count(self, asked: Payload) -> Payload:
        """Op `count`: {"texts": [str]} -> {"tokens": [int]}, each as a line of the window costs."""
        return {"tokens": [self._count(str(text) + "\n") for text in asked.get("texts", ())]}

    def drop(self, asked: Payload) -> Payload:
        """Op `drop`: {"session": key} -> {}: forget a key."""
        self._slots.drop(_key(asked))
        return {}

    def _kept_key(self, asked: Payload) -> str:
        """The key of a slot of the same session that has read the newest picture of the items."""
        session, picture = _key(asked).rpartition(" ")[0], _newest_picture(asked)
        for key, read in self._slots.read():
            if key.rpartition(" ")[0] == session and any(piece.picture == picture for piece in read):
                return key
        raise CapacityError("the picture has not been read yet", code="unread")

    def _head(self, asked: Payload, slot: Slot[Piece], *, unread: bool) -> list[Piece]:
        """The pieces before the question: the template's beginning, then one an item.

        What the slot has read stays as it was read. `unread`: the newest pictures of the rest stand in it as
        pictures, else as text.
        """
        first, second, *_ = self._parts
        pieces = [Piece(first + _plain(str(asked.get("instruction", ""))) + second)]
        items = [Piece(_plain(str(item["text"])) + "\n", _picture(item)) for item in asked.get("items", ())]
        if slot.common(pieces):
            for item, read in zip(items, slot.read[1:], strict=False):
                if read.text != item.text or not self._stands(read.picture, item.picture):
                    break
                pieces.append(read)
        rest = items[len(pieces) - 1 :]
        waiting = [place for place, item in enumerate(rest) if self._pictures.get(item.picture) is not None]
        size = self._tokens([*pieces, *(Piece(item.text) for item in rest)])
        if size > self._size.context:
            raise InvalidRequest(f"the window has {size} tokens, a slot {self._size.context}")
        room = max(0, self._size.context - ROOM - size) // self._picture_tokens
        visual = waiting[-min(NEWEST, room) :] if unread and room else []
        return [*pieces, *(item if place in visual else Piece(item.text) for place, item in enumerate(rest))]

    def _stands(self, read: str, picture: str) -> bool:
        """Whether an item that was read with picture `read`, or as text, can stay as it is."""
        return not read or (read == picture and self._pictures.get(read) is not None)

    def _read(self, slot: Slot[Piece], pieces: list[Piece]) -> None:
        found = self._server.call("/completion", self._body(slot, pieces) | {"n_predict": 0})
        pictures = sum(bool(piece.picture) for piece in pieces)
        if pictures:
            words = sum(self._count(piece.text) for piece in pieces)
            self._picture_tokens = max(1, round((int(found["tokens_evaluated"]) - words) / pictures))
        slot.read = list(pieces)

    def _body(self, slot: Slot[Piece], pieces: Sequence[Piece]) -> dict[str, Any]:
        """A request with these pieces as its prompt. Raises CapacityError: a picture has left the cache."""
        data = [self._pictures.get(piece.picture) for piece in pieces if piece.picture]
        if None in data:
            raise CapacityError("a picture has left the cache")
        text = "".join(piece.text + (self._marker + "\n" if piece.picture else "") for piece in pieces)
        prompt = {"prompt_string": text, "multimodal_data": data}
        return {"prompt": prompt, "cache_prompt": True, "id_slot": slot.number}

    def _tail(self, question: str, most: int, pieces: Sequence[Piece]) -> str:
        """The text after the window; of a question that does not fit only the beginning."""
        *_, before, after = self._parts
        room = self._size.context - most - self._tokens(pieces) - self._count(before) - self._count(after)
        if room < 1:
            raise CapacityError("the window leaves no room for a question")
        words = _plain(question)
        if self._count(words) > room:
            words = words[:room]  # a token has a character or more
        return before + words + after

    def _tokens(self, pieces: Sequence[Piece]) -> int:
        pictures = sum(bool(piece.picture) for piece in pieces)
        return sum(self._count(piece.text) for piece in pieces) + pictures * self._picture_tokens

    def _count(self, text: str) -> int:
        count = self._counts.get(text)
        if count is None:
            body = {"content": text, "parse_special": True}
            count = len(self._server.call("/tokenize", body)["tokens"]) if text else 0
            self._counts.put(text, count)
        return count


def _plain(text: str) -> str:
    """A text without what could be a control token, or llama.cpp's mark of a picture: all begin with "<".

    llama.cpp reads control tokens wherever they stand in a prompt with pictures.
    """
    return text.replace("<", "‹")


def _up_to_picture(slot: Slot[Piece], asked: Payload) -> list[Piece]:
    """What a slot has read, up to the newest picture of the items."""
    picture = _newest_picture(asked)
    places = [place for place, piece in enumerate(slot.read, 1) if piece.picture == picture]
    if not places:
        raise CapacityError("the picture has not been read yet", code="unread")
    return slot.read[: places[-1]]


def _shown(asked: Payload, pieces: Sequence[Piece]) -> list[int]:
    """Numbers of the items that stand as pictures in these pieces, of which the first is the template's."""
    items = asked.get("items", ())
    return [int(item["number"]) for item, piece in zip(items, pieces[1:], strict=False) if piece.picture]


def _first_skipped(asked: Payload, pieces: Sequence[Piece], done: int) -> int:
    """The place of the first piece, from `done` on, that stands as text though it has a picture."""
    for place, item in enumerate(asked.get("items", ()), 1):
        if place >= done and _picture(item) and not pieces[place].picture:
            return place
    return len(pieces)


def _newest_picture(asked: Payload) -> str:
    return next((key for item in reversed(asked.get("items", ())) if (key := _picture(item))), "")


def _picture(item: Payload) -> str:
    return str(item.get("picture") or "")


def _key(asked: Payload) -> str:
    return str(asked.get("session", ""))
