"""Training lowers the loss, and an adapter that is no better on what it has not seen is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines.finetune import Example, read, trained  # noqa: E402
from engines.vlm_adapters import Adapters  # noqa: E402
from engines.vlm_decoder import Decoder, Kept  # noqa: E402
from engines.vlm_model import Layout, loaded  # noqa: E402
from streamsvc.errors import InvalidRequest  # noqa: E402
from tests.engines.tiny_vlm import TINY, save  # noqa: E402

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def example(name: str, shade: int, answer: str | None = None) -> Example:
    red, green, blue = COLOURS[name]
    return Example(Image.new("RGB", (24, 24), (red - shade, green + shade, blue - shade)), "colour?", answer or name)


LEARNT = [example(name, shade) for name in COLOURS for shade in (0, 8, 16)]
UNSEEN = [example(name, 12) for name in COLOURS]


@pytest.fixture(scope="module", params=["qwen2_vl", "smolvlm"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(request.param, tmp_path_factory.mktemp("models"), TINY)


@pytest.fixture
def model(folder: Path) -> Any:
    return loaded(folder, "cpu")


def test_steps_lower_the_loss_and_a_better_adapter_is_kept_and_serves(model: Any, tmp_path: Path) -> None:
    verdict = trained(model, LEARNT, UNSEEN, tmp_path / "colours", steps=15, rate=1e-2)
    assert verdict.last < 0.8 * verdict.first
    assert verdict.after < 0.8 * verdict.before
    assert (verdict.accepted, verdict.place) == (True, tmp_path / "colours")
    assert [path.name for path in tmp_path.iterdir()] == ["colours"]  # no half of one lies about
    layout, decoder = Layout(model[0].config, model[1]), Decoder(model[0], Adapters(model[0], tmp_path).using)
    asked = [layout.head, layout.question("colour?")]
    plain, with_it = decoder.read(Kept(), asked), decoder.read(Kept(), asked, "colours")
    assert (plain - with_it).abs().max() > 1e-2


def test_an_adapter_that_is_no_better_is_refused_and_nothing_of_it_stays(model: Any, tmp_path: Path) -> None:
    before = {name: weight.clone() for name, weight in model[0].named_parameters()}
    verdict = trained(model, LEARNT, UNSEEN, tmp_path / "none", steps=2, rate=0.0)
    assert verdict.after == verdict.before
    assert (verdict.accepted, verdict.place) == (False, None)
    assert "refused" in verdict.why
    assert list(tmp_path.iterdir()) == []
    assert all(torch.equal(weight, before[name]) for name, weight in model[0].named_parameters())


def test_a_worse_adapter_does_not_replace_a_better_one(model: Any, tmp_path: Path) -> None:
    good = trained(model, LEARNT, UNSEEN, tmp_path / "colours", steps=15, rate=1e-2)
    weights = (tmp_path / "colours" / "adapter_model.safetensors").read_bytes()
    wrong = [example(name, 0, "qqqq") for name in COLOURS]
    worse = trained(model, wrong, UNSEEN, tmp_path / "colours", steps=15, rate=1e-2)
    assert worse.last < worse.first  # it has learnt, but the wrong thing
    assert (good.accepted, worse.accepted) == (True, False)
    assert worse.after > good.after
    assert (tmp_path / "colours" / "adapter_model.safetensors").read_bytes() == weights


def test_without_examples_there_is_no_training(model: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        trained(model, LEARNT, [], tmp_path / "x")


def test_each_fifth_line_of_a_file_is_held_out_and_a_bad_line_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    line = json.dumps({"picture": "a.png", "question": "what?", "answer": "black"})
    (tmp_path / "rows.jsonl").write_text("\n".join([line] * 6))
    learnt, unseen = read(tmp_path / "rows.jsonl")
    assert (len(learnt), len(unseen)) == (4, 2)
    assert learnt[0].answer == "black"
    (tmp_path / "rows.jsonl").write_text(f"{line}\n{{}}")
    with pytest.raises(InvalidRequest, match="line 2"):
        read(tmp_path / "rows.jsonl")
