"""The engine of a model that sees: a tiny random pair of SmolVLM's architecture on llama.cpp."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import Op, Payload, StreamOp, sight
from engines.llama_server import LlamaServer, Size
from engines.sight import NEWEST, Sight, sight_files
from streamsvc.core.errors import CapacityError, InvalidRequest, ModelMissing, WorkerError
from tests.builders import vlm_gguf

SIZE = Size(slots=3, context=2048)
CONTROLS = ("<|im_start|>", "<end_of_utterance>", "<image>", "<__media__>")


class Recorded(LlamaServer):
    """Records each prompt, its pictures, and how many of its tokens llama.cpp read and had kept."""

    def __init__(self, model: Path, size: Size, projector: Path | None) -> None:
        self.prompts: list[str] = []
        self.pictures: list[int] = []
        self.read: list[int] = []
        self.kept: list[int] = []
        super().__init__(model, size, projector)

    def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        found = super().call(path, body)
        self._note(path, body, found)
        return found

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for event in super().stream(path, body):
            if event.get("stop"):
                self._note(path, body, event)
            yield event

    def _note(self, path: str, body: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        if path == "/completion" and isinstance(body["prompt"], dict):
            self.prompts.append(body["prompt"]["prompt_string"])
            self.pictures.append(len(body["prompt"]["multimodal_data"]))
            self.read.append(found["timings"]["prompt_n"])
            self.kept.append(found["timings"]["cache_n"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vlm_gguf.write(tmp_path_factory.mktemp("sight") / "tiny")


@pytest.fixture(scope="module")
def started(folder: Path) -> Iterator[Recorded]:
    server = Recorded(folder / vlm_gguf.MODEL, SIZE, folder / vlm_gguf.PROJECTOR)
    yield server
    server.close()


@pytest.fixture
def server(started: Recorded) -> Recorded:
    for noted in (started.prompts, started.pictures, started.read, started.kept):
        noted.clear()
    return started


@pytest.fixture
def engine(server: Recorded, monkeypatch: pytest.MonkeyPatch) -> Sight:
    monkeypatch.setattr(sight, "SIDE", vlm_gguf.TINY.tower.image)
    return Sight(server, SIZE)


def picture(seed: int) -> Payload:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    page = io.BytesIO()
    Image.fromarray(noise).resize((96, 54)).save(page, "JPEG")
    return {"jpeg": np.frombuffer(page.getvalue(), np.uint8)}


def item(engine: Sight, number: int, seed: int | None = None) -> Payload:
    """A line, with a picture where there is a seed."""
    key = "" if seed is None else engine.encode(picture(seed))["picture"]
    text = f"[{number}] 0:{number:02d} picture: a cat"
    return {"number": number, "at": float(number), "text": text, "picture": key}


def window(items: list[Payload], session: str, **more: Any) -> Payload:
    # Another instruction a session: llama.cpp keeps what a slot read before it was given to this session.
    return {"session": f"{session} 0", "items": items, "instruction": f"{session}: look.", **more}


def read_all(engine: Sight, asked: Payload) -> list[Payload]:
    found: list[Payload] = []
    while not found or found[-1]["left"]:
        found.append(engine.extend(asked))
        assert len(found) < 50
    return found


def answer(engine: Sight, asked: Payload) -> list[Payload]:
    return list(engine.generate({"question": "What is there?", "max_tokens": 3, **asked}))


def spoken(pieces: list[Payload]) -> str:
    return "".join(piece["text"] for piece in pieces)


# --- reading ------------------------------------------------------------------------------------------------


def test_a_picture_is_read_along_once_and_a_question_then_costs_its_own_tokens(
    engine: Sight, server: Recorded
) -> None:
    items = [item(engine, 1, 1), item(engine, 2), item(engine, 3, 2)]
    found = read_all(engine, window(items, "once"))
    assert found[-1]["shown"] == [1, 3]
    assert found[-1]["visual"] > 0
    reads = len(server.read)
    assert engine.extend(window(items, "once"))["left"] == 0
    assert len(server.read) == reads, "nothing is left, so nothing is called"
    for question in ("What is there?", "And what else is there?"):
        server.read.clear()
        server.kept.clear()
        pieces = answer(engine, window(items, "once", question=question))
        assert (pieces[0]["left"], pieces[0]["shown"]) == (0, [1, 3])
        assert len(server.read) == 1
        assert server.read[0] <= len(question) + 40 < server.kept[0]


def test_a_new_picture_costs_its_own_tokens_and_keeps_the_head(engine: Sight, server: Recorded) -> None:
    items = [item(engine, 1, 1), item(engine, 2, 2)]
    read_all(engine, window(items, "grows"))
    before = server.kept[-1] + server.read[-1]
    server.read.clear()
    server.kept.clear()
    read_all(engine, window([*items, item(engine, 3, 3)], "grows"))
    assert len(server.read) == 1
    assert server.kept[0] >= before - 1


def test_what_the_model_says_depends_on_the_picture(engine: Sight) -> None:
    said = set()
    for seed in range(6):
        items = [item(engine, 1, seed)]
        read_all(engine, window(items, "seen"))
        said.add(spoken(answer(engine, window(items, "seen", max_tokens=8))))
    assert len(said) > 1


def test_of_pictures_that_wait_only_the_newest_are_read_as_pictures(engine: Sight, server: Recorded) -> None:
    items = [item(engine, number, number) for number in range(1, NEWEST + 4)]
    assert read_all(engine, window(items, "late"))[-1]["shown"] == [4, 5, 6, 7]
    assert server.pictures[-1] == NEWEST
    items.append(item(engine, 8, 8))
    assert read_all(engine, window(items, "late"))[-1]["shown"] == [4, 5, 6, 7, 8], "the head stays"
    assert max(server.pictures) == NEWEST + 1


def test_one_call_reads_one_picture_at_most(engine: Sight, server: Recorded) -> None:
    read_all(engine, window([item(engine, number, number) for number in range(1, 4)], "one"))
    assert server.pictures == [1, 2, 3]


def test_a_question_does_not_wait_for_a_picture_which_is_read_after_it(
    engine: Sight, server: Recorded
) -> None:
    items = [item(engine, 1, 1)]
    read_all(engine, window(items, "asked"))
    items.append(item(engine, 2, 2))
    server.pictures.clear()
    pieces = answer(engine, window(items, "asked"))
    assert pieces[0]["shown"] == [1]
    assert server.pictures == [1]
    assert items[1]["text"] in server.prompts[-1], "it is told as its line"
    assert read_all(engine, window(items, "asked"))[-1]["shown"] == [1, 2]


def test_no_picture_is_read_beyond_the_room_of_a_slot(engine: Sight) -> None:
    measured = read_all(engine, window([item(engine, 1, 1)], "size"))[-1]["visual"]
    told = [item(engine, n) for n in (6, 7, 8, 9)]
    lines = engine.extend(window([{**item(engine, 1), "text": ""}, *told], "full"))["tokens"]
    long = {**item(engine, 1), "text": "x" * (SIZE.context - sight.ROOM - lines - 2 * measured)}
    found = read_all(engine, window([long, *(item(engine, n, n) for n in (6, 7, 8, 9))], "full"))
    assert found[-1]["shown"] == [8, 9]
    with pytest.raises(InvalidRequest, match="the window has"):
        engine.extend(window([long] * 3, "fuller"))


# --- aside --------------------------------------------------------------------------------------------------


def test_a_caption_is_made_of_what_the_session_has_read_and_reads_no_picture(
    engine: Sight, server: Recorded
) -> None:
    items = [item(engine, 1, 1), item(engine, 2, 2)]
    caption = {**window([{**items[1], "number": 9}], "cap", aside=True, kept=True), "session": "cap aside"}
    with pytest.raises(CapacityError) as unread:
        answer(engine, caption)
    assert unread.value.code == "unread"
    read_all(engine, window(items, "cap"))
    server.read.clear()
    pieces = answer(engine, caption)
    assert pieces[0]["shown"] == [9]
    assert server.read == [server.read[0]]
    assert server.read[0] < 120, "the question alone"
    assert read_all(engine, window(items, "cap"))[-1]["shown"] == [1, 2]


def test_no_other_session_is_captioned_from_what_a_session_has_read(engine: Sight) -> None:
    items = [item(engine, 1, 1)]
    read_all(engine, window(items, "mine"))
    with pytest.raises(CapacityError):
        answer(engine, {**window(items, "yours", aside=True, kept=True), "session": "yours aside"})


def test_an_image_that_comes_with_a_question_is_read_aside_and_the_sessions_slot_stays(
    engine: Sight, server: Recorded
) -> None:
    items = [item(engine, 1, 1)]
    read_all(engine, window(items, "host"))
    image = {**window([item(engine, 1, 7)], "host", aside=True), "session": "host 0 image"}
    pieces = answer(engine, image)
    assert pieces[0]["shown"] == [1]
    assert pieces[1] == {"text": ""}, "it can be given up after the picture"
    reads = len(server.read)
    assert engine.extend(window(items, "host"))["left"] == 0
    assert len(server.read) == reads


# --- text ---------------------------------------------------------------------------------------------------


def test_text_of_a_stream_or_question_can_neither_end_its_turn_nor_stand_for_a_picture(
    engine: Sight, server: Recorded
) -> None:
    said = [{"number": 1, "at": 0.0, "text": " ".join(CONTROLS) + server.media_marker()}]
    answer(engine, window(said, "x", question=CONTROLS[1] + server.media_marker()))
    prompt = server.prompts[-1]
    assert prompt.count("<end_of_utterance>") == 2, "the template's own ends of turn"
    assert prompt.count("<|im_start|>") == 1
    assert "<image>" not in prompt
    assert server.media_marker() not in prompt


def test_a_schema_is_followed(engine: Sight) -> None:
    schema = {"type": "object", "properties": {"holds": {"type": "boolean"}}, "required": ["holds"]}
    asked = window([item(engine, 1)], "schema", aside=True, schema=schema, max_tokens=40)
    assert spoken(answer(engine, {**asked, "session": "schema 0 watch"})).startswith('{"holds":')


def test_a_question_too_long_loses_its_end_and_bad_requests_are_refused(
    engine: Sight, server: Recorded
) -> None:
    assert spoken(answer(engine, window([item(engine, 1)], "long", question="why " * 900))) is not None
    assert server.read[-1] + server.kept[-1] <= SIZE.context
    with pytest.raises(InvalidRequest):
        answer(engine, window([], "s", question=""))
    with pytest.raises(WorkerError):
        engine.encode({"jpeg": np.zeros(3, np.uint8)})


def test_counts_and_drops(engine: Sight, server: Recorded) -> None:
    assert engine.count({"texts": ["ab", ""]})["tokens"] == [3, 1]
    items = [item(engine, 1, 1)]
    read_all(engine, window(items, "gone"))
    engine.drop({"session": "gone 0"})
    assert engine.extend(window(items, "gone"))["shown"] in ([], [1])
    assert server.pictures[-1] <= 1


# --- loading ------------------------------------------------------------------------------------------------


def test_it_loads_model_and_projector_of_a_folder(folder: Path) -> None:
    engine = sight.load({"models": str(folder.parent), "sees": "tiny", "window_tokens": 512, "threads": 1})
    assert engine.describe["sight"] == "tiny"
    assert isinstance(engine.ops["generate"], StreamOp)
    assert isinstance(engine.ops["extend"], Op)
    assert engine.probe is not None
    counting = engine.ops["count"]
    assert isinstance(counting, Op)
    assert counting.run([engine.probe[1]]) == [{"tokens": [2]}]


def test_a_folder_without_a_projector_is_refused(tmp_path: Path) -> None:
    vlm_gguf.write(tmp_path / "half")
    (tmp_path / "half" / vlm_gguf.PROJECTOR).unlink()
    with pytest.raises(ModelMissing, match="mmproj"):
        sight_files("half", tmp_path)
    with pytest.raises(ModelMissing, match="smolvlm"):
        sight_files("smolvlm-500m", tmp_path)
