"""Each forward pass uses the requested adapter, and no other."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")
peft = pytest.importorskip("peft", reason="needs the extra `gpu`")

from engines.vlm_adapters import Adapters, adapter_path, suppress_future_warnings  # noqa: E402
from engines.vlm_decoder import Decoder, KvCache  # noqa: E402
from engines.vlm_model import Layout, load_model  # noqa: E402
from streamsvc.core.errors import InvalidRequest, ModelMissing  # noqa: E402
from tests.builders.adapters import save_adapter  # noqa: E402
from tests.engines.tiny_vlm import save  # noqa: E402

EYE = r".*\.visual\..*\.qkv"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models")
    save("qwen2_vl", place / "tiny")
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        save_adapter(place / "tiny", place / "adapters" / name, seed)
    save_adapter(place / "tiny", place / "adapters" / "eye", 4, EYE)
    return place


class Case:
    def __init__(self, folder: Path, most: int = 8) -> None:
        self.model, tokenizer, _ = load_model(folder / "tiny", "cpu")
        self.layout = Layout(self.model.config, tokenizer)
        self.adapters = Adapters(self.model, folder / "adapters", most)
        self.decoder = Decoder(self.model, self.adapters.using)

    def logits(self, adapter: str, kept: KvCache | None = None) -> Any:
        pieces = [
            self.layout.head,
            self.layout.text_line("Hello."),
            self.layout.question("what?"),
        ]
        return self.decoder.read(kept or KvCache(), pieces, adapter)


def alone(folder: Path, adapter: str) -> Any:
    """What peft itself makes of one adapter on a model of its own."""
    case = Case(folder)
    if adapter:
        with suppress_future_warnings():
            peft.PeftModel.from_pretrained(case.model, str(folder / "adapters" / adapter)).eval()
    return case.logits("")


def test_sessions_with_different_adapters_are_independent(folder: Path) -> None:
    case = Case(folder)
    wanted = {name: alone(folder, name) for name in ("", "a", "b")}
    assert (wanted["a"] - wanted["b"]).abs().max() > 1e-2
    assert (wanted["a"] - wanted[""]).abs().max() > 1e-2
    for name in ("a", "", "b", "a", "b", ""):
        assert torch.allclose(case.logits(name), wanted[name], atol=1e-4), name


def test_concurrent_threads_keep_their_adapters(folder: Path) -> None:
    case, wrong = Case(folder), list[str]()
    wanted = {name: case.logits(name) for name in ("", "a", "b")}

    def ask(name: str) -> None:
        for _ in range(10):
            if not torch.allclose(case.logits(name), wanted[name], atol=1e-4):
                wrong.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_kv_cache_of_one_adapter_is_not_used_with_another(folder: Path) -> None:
    case, kept = Case(folder), KvCache()
    case.logits("a", kept)
    assert torch.allclose(case.logits("b", kept), alone(folder, "b"), atol=1e-4)
    assert kept.reused == 0
    case.logits("b", kept)
    assert kept.computed == 1


def test_interleaved_steps_of_two_answers_keep_their_adapters(folder: Path) -> None:
    case, one, other = Case(folder), KvCache(), KvCache()
    case.logits("a", one)
    case.logits("b", other)
    turns = [case.decoder.step(kept, 40 + n) for n in range(3) for kept in (one, other)]
    single = KvCache()
    case.logits("a", single)
    assert all(torch.allclose(turns[2 * n], case.decoder.step(single, 40 + n), atol=1e-4) for n in range(3))


@pytest.mark.parametrize("most", [1, 2])
def test_the_least_recently_used_adapter_is_evicted_and_reloaded_on_demand(folder: Path, most: int) -> None:
    case = Case(folder, most)
    wanted = {name: alone(folder, name) for name in ("", "a", "b", "c")}
    for name in ("a", "b", "c", "", "a", "c"):
        assert torch.allclose(case.logits(name), wanted[name], atol=1e-4), name
        held = {key for module in case.model.modules() if hasattr(module, "lora_A") for key in module.lora_A}
        assert len(held) <= most


def test_an_adapter_of_the_shared_tower_is_refused_and_leaves_no_trace(folder: Path) -> None:
    case = Case(folder)
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="vision tower"):
            case.logits("eye")
        assert torch.allclose(case.logits(""), alone(folder, ""), atol=1e-5)
    assert torch.allclose(case.logits("a"), alone(folder, "a"), atol=1e-4)


def test_paths_missing_names_and_broken_files_are_refused(folder: Path, tmp_path: Path) -> None:
    case = Case(folder)
    for name in ("absent", "../tiny", "a/../b", ".", "x" * 65):
        with pytest.raises(InvalidRequest):
            case.logits(name)
    with pytest.raises(InvalidRequest):
        adapter_path(tmp_path, "")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_model.safetensors").write_bytes(b"none")
    with pytest.raises(ModelMissing, match="broken"), Adapters(case.model, tmp_path).using("broken"):
        pass
