"""The registry of models: complete, pinned, and unable to name a path outside the cache."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines import fetch, registry
from streamsvc.core.errors import ConfigError


def test_an_unknown_model_is_named_with_the_known_ones(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model 'gpt-9'; the registry has toy"):
        fetch.pull(["gpt-9"], tmp_path)


@pytest.mark.parametrize("name", ["../model.bin", "/etc/passwd", ".hidden", ""])
def test_a_registry_cannot_name_a_path_outside_the_model_folder(index: Path, name: str) -> None:
    registry.REGISTRY.write_text(
        registry.REGISTRY.read_text().replace('"labels.txt", size', f'"{name}", size')
    )
    with pytest.raises(ConfigError, match="not a valid file name"):
        registry.registry()


def test_every_entry_of_the_registry_is_complete() -> None:
    entries = registry.registry()
    ears_and_eyes = {"whisper-tiny.en", "ssd-mobilenet-v2-coco", "efficientnet-lite3"}
    assert set(registry.defaults()) == ears_and_eyes | {
        "smollm2-135m-instruct",
        "e5-small-v2",
        "ms-marco-minilm-l12-v2",
    }
    for entry in entries.values():
        assert entry.role in {"asr", "llm", "detector", "tagger", "embed", "rank", "sight"}
        assert entry.licence in {"MIT", "Apache-2.0"}
        names = {file.name for file in entry.files}
        for source in entry.sources:
            if source.hub:
                assert re.fullmatch(r"[0-9a-f]{40}", source.revision), "a hub source is pinned to a commit"
            else:
                assert source.members is not None
                assert set(source.members) == names, "wheels hold every file of the model"
                tops = {wheel.name.replace("-", "_") for wheel in source.wheels}
                assert {path.split("/")[0] for paths in source.members.values() for path in paths} == tops
                assert all(re.fullmatch(r"[0-9a-f]{64}", wheel.sha256) for wheel in source.wheels)
        optional = entry.role == "sight" or (entry.chat is not None and entry.chat.reads)
        assert entry.packaged or optional, f"{entry.name} can be had without the hub"
        assert all(re.fullmatch(r"[0-9a-f]{64}", file.sha256) and file.size > 0 for file in entry.files)


def test_chat_models_stand_from_the_least_to_the_best_and_their_memory_holds_their_weights() -> None:
    chat = [entry for entry in registry.registry().values() if entry.chat is not None]
    assert [entry.name for entry in chat] == [
        "smollm2-135m-instruct",
        "qwen2.5-0.5b-instruct",
        "qwen2.5-1.5b-instruct",
        "qwen3-1.7b",
    ]
    needs = [entry.chat for entry in chat if entry.chat is not None]
    assert [need.reads for need in needs] == [False, True, True, True]
    assert [need.memory for need in needs] == sorted(need.memory for need in needs)
    assert all(
        entry.chat is not None and entry.chat.memory > 2 * entry.size for entry in chat if not entry.default
    )
    assert all(name.endswith(".gguf") for entry in chat for name in (file.name for file in entry.files))


def test_the_model_that_sees_is_pinned_as_published_model_and_projector() -> None:
    entry = registry.registry()["smolvlm-500m"]
    assert [(file.name, file.size, file.sha256[:8]) for file in entry.files] == [
        ("SmolVLM-500M-Instruct-Q8_0.gguf", 436_806_912, "9d4612de"),
        ("mmproj-SmolVLM-500M-Instruct-Q8_0.gguf", 108_783_360, "d1eb8b6b"),
    ]
    assert [(source.hub, source.revision[:8]) for source in entry.sources] == [
        ("ggml-org/SmolVLM-500M-Instruct-GGUF", "72e98600")
    ]
    assert entry.chat is None, "it is never chosen to read"
    assert not entry.default
