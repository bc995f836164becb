"""Training lowers the loss, and an adapter that is not better on held-out examples is refused."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines import Engine, Op, clip, finetune  # noqa: E402
from engines.clip import Matcher, Towers  # noqa: E402
from engines.contrast import Pair  # noqa: E402
from engines.finetune import Example, Training, read, train  # noqa: E402
from engines.vlm_adapters import Adapters  # noqa: E402
from engines.vlm_decoder import Decoder, KvCache  # noqa: E402
from engines.vlm_model import Layout, load_model  # noqa: E402
from streamsvc.core.errors import InvalidRequest  # noqa: E402
from streamsvc.core.types import Sight  # noqa: E402
from streamsvc.timeline.index import Index  # noqa: E402
from streamsvc.timeline.timeline import Timeline  # noqa: E402
from tests.engines import tiny_clip  # noqa: E402
from tests.engines.tiny_vlm import TINY, save  # noqa: E402
from tests.fakes.local_role import LocalRole  # noqa: E402

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def example(name: str, shade: int, answer: str | None = None) -> Example:
    red, green, blue = COLOURS[name]
    return Example(
        Image.new("RGB", (24, 24), (red - shade, green + shade, blue - shade)), "colour?", answer or name
    )


LEARNT = [example(name, shade) for name in COLOURS for shade in (0, 8, 16)]
UNSEEN = [example(name, 12) for name in COLOURS]


@pytest.fixture(scope="module", params=["qwen2_vl", "smolvlm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp("models"), TINY)


@pytest.fixture
def model(folder: Path) -> Any:
    return load_model(folder, "cpu")


def test_training_lowers_the_loss_and_a_better_adapter_is_saved_and_used(model: Any, tmp_path: Path) -> None:
    verdict = train(model, LEARNT, UNSEEN, tmp_path / "colours", Training(steps=15, rate=1e-2))
    assert verdict.last < 0.8 * verdict.first
    assert verdict.after < 0.8 * verdict.before
    assert (verdict.accepted, verdict.place) == (True, tmp_path / "colours")
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]  # no half of one lies about
    layout, decoder = Layout(model[0].config, model[1]), Decoder(model[0], Adapters(model[0], tmp_path).using)
    asked = [layout.head, layout.question("colour?")]
    plain, with_it = decoder.read(KvCache(), asked), decoder.read(KvCache(), asked, "colours")
    assert (plain - with_it).abs().max() > 1e-2


def test_an_adapter_that_is_not_better_is_refused_and_leaves_nothing(model: Any, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in model[0].named_parameters()}
    verdict = train(model, LEARNT, UNSEEN, tmp_path / "none", Training(steps=2, rate=0.0))
    assert verdict.after == verdict.before
    assert (verdict.accepted, verdict.place) == (False, None)
    assert "refused" in verdict.why
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(weight, before[name]) for name, weight in model[0].named_parameters())


def test_a_worse_adapter_does_not_replace_a_better_one(model: Any, tmp_path: Path) -> None:
    good = train(model, LEARNT, UNSEEN, tmp_path / "colours", Training(steps=15, rate=1e-2))
    weights = (tmp_path / "colours" / "adapter_model.safetensors").read_bytes()
    wrong = [example(name, 0, "qqqq") for name in COLOURS]
    worse = train(model, wrong, UNSEEN, tmp_path / "colours", Training(steps=15, rate=1e-2))
    assert worse.last < worse.first  # it has learnt, but the wrong thing
    assert (good.accepted, worse.accepted) == (True, False)
    assert worse.after > good.after
    assert (tmp_path / "colours" / "adapter_model.safetensors").read_bytes() == weights


def test_without_examples_there_is_no_training(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        train(model, LEARNT, [], tmp_path / "x")


def test_every_fifth_line_is_held_out_and_a_bad_line_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = json.dumps({"picture": "a.png", "question": "what?", "answer": "black"})
    (tmp_path / "rows.jsonl").write_text("\n".join([line] * 6))
    learnt, unseen = read(tmp_path / "rows.jsonl")
    assert (len(learnt), len(unseen)) == (4, 2)
    assert isinstance(learnt[0], Example)
    assert learnt[0].answer == "black"
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{{}}")
    with pytest.raises(InvalidRequest, match="line 2"):
        read(tmp_path / "rows.jsonl")


# --- pictures and texts in one space ---

PAINT = {**COLOURS, "green": (30, 200, 30)}


def pair(name: str, shade: int, text: str | None = None) -> Pair:
    red, green, blue = PAINT[name]
    return Pair(
        Image.new("RGB", (32, 32), (red - shade, green + shade, blue - shade)), text or f"a {name} pattern"
    )


PAIRS = [pair(name, shade) for name in PAINT for shade in (0, 6, 12, 18)]
OTHERS = [pair(name, shade) for name in PAINT for shade in (3, 9)]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def towers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save(request.param, tmp_path_factory.mktemp("models") / request.param)


def test_one_step_lowers_the_contrastive_loss(towers: Path, tmp_path: Path) -> None:
    model = clip.load_model(towers, "cpu")
    verdict = train(model, PAIRS, PAIRS, tmp_path / "colours", Training(steps=1, rate=1e-2, batch=len(PAIRS)))
    assert verdict.after < verdict.before


def test_a_better_vision_adapter_is_saved_and_used_and_a_sentence_finds_its_picture(
    towers: Path,
) -> None:
    place = towers.parent / "adapters" / "colours"
    verdict = train(clip.load_model(towers, "cpu"), PAIRS, OTHERS, place, Training(steps=60, rate=1e-2))
    assert verdict.accepted and verdict.after < 0.8 * verdict.before, verdict.why

    pictures = [pair(name, 3).picture for name in PAINT]
    with_it, plain = (
        Towers(towers, "cpu:0", "colours").pictures(pictures),
        Towers(towers, "cpu:0").pictures(pictures),
    )
    assert np.abs(with_it - plain).max() > 1e-2
    texts = Towers(towers, "cpu:0").texts([f"a {name} pattern" for name in PAINT])
    assert (texts @ with_it.T).argmax(axis=1).tolist() == [0, 1, 2]
    compiled = Towers(towers, "cpu", "colours").pictures(pictures)
    assert (compiled * with_it).sum(axis=1) == pytest.approx(
        1.0, abs=0.01
    )  # OpenVINO may compute in bfloat16

    matcher = Matcher({"models": str(towers.parent), "clip": towers.name, "clip_adapter": "colours"})
    for order in (list(PAINT), list(PAINT)[::-1]):
        found = asyncio.run(_searched(matcher, order, "a blue pattern"))
        assert found == 10.0 * order.index("blue"), "the picture is found wherever it stands"


async def _searched(matcher: Matcher, order: list[str], query: str) -> float | None:
    """`at` of the best picture for a query in a session of coloured pictures, through role and timeline."""
    texts = Op(lambda batch: [{"vectors": matcher.texts(payload["texts"])} for payload in batch])
    line = Timeline()
    for place, match in enumerate(matcher.look([pair(name, 3).picture for name in order])):
        line.add(
            Sight(
                "s",
                "main",
                10.0 * place,
                0.0,
                np.ones(1, np.float32),
                (),
                (),
                clip=match.vector.astype(np.float16),
            )
        )
    index = Index(line, None, LocalRole(Engine({"texts": texts})))
    hits = await index.search(query, 10, asyncio.create_task, with_pictures=True)
    return hits[0].frame if hits else None


def test_a_worse_vision_adapter_is_refused_and_the_old_one_stays(towers: Path, tmp_path: Path) -> None:
    model = clip.load_model(towers, "cpu")
    before = {name: weight.clone() for name, weight in model[0].named_parameters()}
    good = train(model, PAIRS, OTHERS, tmp_path / "colours", Training(steps=60, rate=1e-2))
    weights = (tmp_path / "colours" / "adapter_model.safetensors").read_bytes()
    names = list(PAINT)
    shifted = [
        pair(name, shade, f"a {wrong} pattern")
        for name, wrong in zip(names, names[1:] + names[:1], strict=True)
        for shade in (0, 9)
    ]
    worse = train(model, shifted, OTHERS, tmp_path / "colours", Training(steps=60, rate=1e-2))
    assert worse.last < worse.first  # it has learnt, but the wrong thing
    assert (good.accepted, worse.accepted, worse.place) == (True, False, None)
    assert worse.after > good.after
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]
    assert (tmp_path / "colours" / "adapter_model.safetensors").read_bytes() == weights
    assert all(torch.equal(weight, before[name]) for name, weight in model[0].named_parameters())


def test_each_model_is_taught_by_its_own_kind_of_example_alone(
    model: Any, towers: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="answer"):
        train(model, PAIRS, OTHERS, tmp_path / "x")
    with pytest.raises(InvalidRequest, match="text"):
        train(clip.load_model(towers, "cpu"), LEARNT, UNSEEN, tmp_path / "x")


def test_the_command_teaches_either_and_its_status_is_the_verdict(
    towers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, each in enumerate([*OTHERS, *PAIRS]):
        each.picture.save(tmp_path / f"{number}.png")
        rows.append(json.dumps({"picture": f"{number}.png", "text": each.text}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    for rate, status, word in (("0.01", 0, "accepted"), ("0", 1, "refused")):
        asked = [
            str(towers),
            str(tmp_path / "rows.jsonl"),
            "by-command",
            "--steps",
            "60",
            "--rate",
            rate,
            "--batch",
            "12",
        ]
        monkeypatch.setattr(sys, "argv", ["finetune", *asked])
        assert finetune.main() == status
        assert word in capsys.readouterr().out
    assert (towers.parent / "adapters" / "by-command" / "adapter_model.safetensors").is_file()
