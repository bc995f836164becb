"""The chat engine: any chat GGUF on llama.cpp, which reads along a session's window.

The prompt is laid out by the file's own chat template, with thinking off where the template has a switch:

    template | instruction | template | one item's text a line | blank line | question | template | answer
    `------------------ head: the same from question to question ---'`------- tail -------'

A session's key owns one of the slots, which keeps the keys and values of what was read. Every request sends
its whole prompt as token ids; what is left to read is what the slot's ids do not begin with. Lines are
tokenised one by one, so that a new line never changes the ids before it, and without control tokens, so that
no text of a stream can end its turn.

Ops of the think role: `extend`, `generate` (stream), `count`, `drop`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from engines import Engine, Op, Payload, StreamOp, each
from engines.chat_models import chat_file, chat_model, machine_cores
from engines.continuation import generation_limits
from engines.llama_server import LlamaServer, Size
from engines.lru_cache import LruCache
from streamsvc.core.errors import CapacityError, ConfigError, InvalidRequest

PIECE = 64  # most tokens read in one call
SMALLEST_PIECE = 4
PIECE_SECONDS = 0.2  # a call reads what takes this long; a question waits for it to end
SLOT_SECONDS = 0.2  # that `extend` waits for its slot
QUESTION_SECONDS = 5.0  # that a question waits for its session's slot
ASIDE_SECONDS = 0.3  # that what is aside of the sessions waits for the slot of its kind
_CACHED_LINES = 4096
_ASIDE = "\0aside"  # key of the slot that questions aside share
_INSTRUCTION, _WINDOW, _QUESTION = "@@instruction@@", "@@window@@", "@@question@@"


def load(options: dict[str, Any]) -> Engine:
    """Load the model.

    Args:
        options: "models": the folder of models; "model": a name of the registry, the name of a folder in
            "models" with a GGUF file, or "auto" (default): the best of the registry that is there.
            "window_tokens": context of a slot. "slots": prompts kept. "threads": None: half of the cores,
            because llama.cpp's threads spin while they wait for one another: two on two cores that are
            also busy otherwise read ten times slower than one.

    Raises:
        ModelMissing: the file is missing, broken, or not the registry's.
        ConfigError: the file's chat template cannot be used.
    """
    models = Path(options["models"])
    name = chat_model(models, str(options.get("model", "auto"))).name
    threads = options.get("threads") or max(1, machine_cores() // 2)
    size = Size(
        threads=int(threads),
        slots=int(options.get("slots", 4)),
        context=int(options.get("window_tokens", 4096)),
        batch=PIECE,
    )
    server = LlamaServer(chat_file(name, models), size)
    return Chat(server, size).engine({"llm": name, "runtime": server.version})


Part = TypeVar("Part")  # of a prompt: a token id, or a piece of text with a picture


@dataclass(slots=True)
class Slot(Generic[Part]):
    """One sequence of the server. read: parts whose keys and values it keeps, as far as we know."""

    number: int
    key: str = ""
    read: list[Part] = field(default_factory=list)
    busy: bool = False

    def common(self, ids: Sequence[Part]) -> int:
        """How many of the parts `ids` have been read."""
        return next(
            (
                index
                for index, (kept, wanted) in enumerate(zip(self.read, ids, strict=False))
                if kept != wanted
            ),
            min(len(self.read), len(ids)),
        )


class Slots(Generic[Part]):
    """Slots by session key; the least recently used one is evicted. Thread-safe."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._slots: list[Slot[Part]] = [
            Slot(number) for number in range(count)
        ]  # the least recently used first

    @contextmanager
    def held(self, key: str, seconds: float | None = None) -> Iterator[Slot[Part] | None]:
        """The slot of a key, alone; None if it is not free within `seconds`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._free(key) is not None, seconds):
                slot = None
            elif (slot := self._free(key)) is not None:
                if slot.key != key:
                    slot.key, slot.read = key, []
                slot.busy = True
                self._slots.remove(slot)
                self._slots.append(slot)
        try:
            yield slot
        finally:
            if slot is not None:
                with self._changed:
                    slot.busy = False
                    self._changed.notify_all()

    def drop(self, key: str) -> None:
        """Forget a key; its slot is the next to be taken."""
        with self._changed:
            for slot in [slot for slot in self._slots if slot.key == key]:
                slot.key, slot.read = "", []
                self._slots.remove(slot)
                self._slots.insert(0, slot)

    def read(self) -> list[tuple[str, list[Part]]]:
        """The keys and what was read of each, the most recently used one first."""
        with self._changed:
            return [(slot.key, list(slot.read)) for slot in reversed(self._slots)]

    def _free(self, key: str) -> Slot[Part] | None:
        """The key's slot, else the least recently used one; None if it is busy."""
        for slot in self._slots:
            if slot.key == key:
                return None if slot.busy else slot
        return next((slot for slot in self._slots if not slot.busy), None)


class Chat:
    """The ops on one server.

    Raises:
        ConfigError: the model's chat template cannot be used.
    """

    def __init__(self, server: LlamaServer, size: Size) -> None:
        self._server = server
        self._size = size
        self._slots: Slots[int] = Slots(size.slots)
        self._lines: LruCache[list[int]] = LruCache(_CACHED_LINES)
        self._token_seconds = PIECE_SECONDS / SMALLEST_PIECE  # of reading, as of late
        self._parts = self._template()

    def engine(self, describe: dict[str, str]) -> Engine:
        """The ops with a description."""
        return Engine(
            {
                "extend": Op(each(self.extend)),
                "generate": StreamOp(self.generate, threads=self._size.slots),
                "count": Op(each(self.count)),
                "drop": Op(each(self.drop)),
            },
            describe,
            ("count", {"texts": ["a"]}),
        )

    def extend(self, asked: Payload) -> Payload:
        """Op `extend`: read a piece of what is new in a session's window.

        {"session": key, "items": [{"text": line, ...}], "instruction": str} -> {"left": tokens not yet read,
        "tokens": tokens of the head}. All items are sent each time. At most PIECE tokens are read, and no
        more than takes about PIECE_SECONDS; none while the slot is busy.
        """
        ids = self._head(asked)
        with self._slots.held(_key(asked), SLOT_SECONDS) as slot:
            if slot is None:
                return {"left": len(ids), "tokens": len(ids)}
            if slot.common(ids) < len(ids):
                self._read(slot, ids)
            return {"left": len(ids) - slot.common(ids), "tokens": len(ids)}

    def generate(self, asked: Payload) -> Iterator[Payload]:
        """Op `generate`: answer a question over a session's window.

        As `extend`, with {"question": str, "max_tokens": int, "stop"?: [str], "schema"?: JSON schema,
        "aside"?: bool: in a slot that all questions aside share, so that the session's stays as it is}
        -> {"text": "", "tokens": of the head, "left": of them not yet read}, then {"text": str}. Before the
        answer what is left is read in pieces, with an empty text after each, so that it can be given up.
        """
        question = asked.get("question")
        if not isinstance(question, str) or not question:
            raise InvalidRequest("generate takes a question")
        most, stops = generation_limits(asked)
        head = self._head(asked)
        prompt = head + self._tail(question, self._size.context - len(head) - most)
        body = {"prompt": prompt, "n_predict": most, "temperature": 0.0, "cache_prompt": True, "stop": stops}
        if asked.get("schema"):
            body["json_schema"] = json_grammar(asked["schema"])
        # What is aside of the sessions shares one slot, and must not keep the threads of questions waiting.
        key, seconds = (_ASIDE, ASIDE_SECONDS) if asked.get("aside") else (_key(asked), QUESTION_SECONDS)
        with self._slots.held(key, seconds) as slot:
            if slot is None:
                raise CapacityError("the language model is busy with other questions")
            yield {"text": "", "tokens": len(head), "left": max(0, len(head) - slot.common(head))}
            while len(prompt) - slot.common(prompt) > PIECE:
                self._read(slot, prompt)
                yield {"text": ""}
            events = self._server.stream("/completion", {**body, "id_slot": slot.number})
            with closing(events):  # type: ignore[type-var]
                for event in events:
                    slot.read = prompt  # the answer's own keys and values are overwritten by the next request
                    if text := event.get("content"):
                        yield {"text": text}

    def count(self, asked: Payload) -> Payload:
        """Op `count`: {"texts": [str]} -> {"tokens": [int]}, each as a line of the window costs."""
        return {"tokens": [len(self._line(str(text))) for text in asked.get("texts", ())]}

    def drop(self, asked: Payload) -> Payload:
        """Op `drop`: {"session": key} -> {}: forget a key."""
        self._slots.drop(_key(asked))
        return {}

    def _read(self, slot: Slot[int], ids: list[int]) -> None:
        """Read the next piece of `ids`, as long as takes PIECE_SECONDS at the speed of late."""
        done = slot.common(ids)
        piece = max(SMALLEST_PIECE, min(PIECE, int(PIECE_SECONDS / self._token_seconds)))
        until = min(len(ids), done + piece)
        since = time.monotonic()
        self._server.call(
            "/completion",
            {"prompt": ids[:until], "n_predict": 0, "cache_prompt": True, "id_slot": slot.number},
        )
        slot.read = ids[:until]
        if until - done >= SMALLEST_PIECE:  # fewer take as long
            self._token_seconds += ((time.monotonic() - since) / (until - done) - self._token_seconds) / 2

    def _head(self, asked: Payload) -> list[int]:
        first, second, *_ = self._parts
        ids = [*first, *self._text(str(asked.get("instruction", ""))), *second]
        for item in asked.get("items", ()):
            ids += self._line(str(item["text"]))
        if len(ids) > self._size.context:
            raise InvalidRequest(f"the window has {len(ids)} tokens, a slot {self._size.context}")
        return ids

    def _tail(self, question: str, room: int) -> list[int]:
        """The ids after the window; of a question that does not fit only the beginning."""
        *_, before, after = self._parts
        ids = self._tokens(question)[: max(0, room - len(before) - len(after))]
        if not ids:
            raise CapacityError("the window leaves no room for a question")
        return [*before, *ids, *after]

    def _line(self, text: str) -> list[int]:
        return self._text(text + "\n")

    def _text(self, text: str) -> list[int]:
        ids = self._lines.get(text)
        if ids is None:
            ids = self._tokens(text)
            self._lines.put(text, ids)
        return ids

    def _tokens(self, text: str, *, special: bool = False, begin: bool = False) -> list[int]:
        if not text and not begin:
            return []
        body = {"content": text, "parse_special": special, "add_special": begin}
        return list(self._server.call("/tokenize", body)["tokens"])

    def _template(self) -> list[list[int]]:
        """The template's ids around instruction, window and question: four lists."""
        return [
            self._tokens(text, special=True, begin=index == 0)
            for index, text in enumerate(template_parts(self._server))
        ]


def template_parts(server: LlamaServer) -> list[str]:
    """What a model's chat template has around instruction, window and question: four texts.

    Raises:
        ConfigError: it takes no conversation.
    """
    messages = [
        {"role": "system", "content": _INSTRUCTION},  # llama.cpp moves it where there is no system turn
        {"role": "user", "content": f"{_WINDOW}\n{_QUESTION}"},
    ]
    body = {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}
    left = str(server.call("/apply-template", body)["prompt"])
    texts = []
    for mark in (_INSTRUCTION, _WINDOW, _QUESTION):
        text, found, left = left.partition(mark)
        texts.append(text)
        if not found:
            raise ConfigError("the chat template of the model takes no conversation: choose a chat model")
    return [*texts, left]


def json_grammar(schema: Any) -> dict[str, Any]:
    """A JSON schema as the wheel's llguidance takes it, without free blanks: weak models never stop them."""
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)  # llama.cpp silently generates free text for a broken one
    except SchemaError:
        raise InvalidRequest("schema is not a JSON schema") from None
    return {**schema, "x-guidance": {"whitespace_flexible": False}}


def _key(asked: Payload) -> str:
    return str(asked.get("session", ""))
