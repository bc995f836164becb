"""llama.cpp in this process: no port, a key, no Python lock, and work that ends when its caller leaves."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engines.llama_server import LlamaServer, Size
from streamsvc.core.errors import InvalidRequest, ModelMissing
from tests.builders import chat_gguf

CONTEXT = 4096


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    model = chat_gguf.write(tmp_path_factory.mktemp("llama") / "tiny.gguf")
    made = LlamaServer(model, Size(slots=2, context=CONTEXT))
    yield made
    made.close()


def status(server: LlamaServer, method: str, path: str, key: str | None) -> int:
    connection = server.connect()
    connection.request(method, path, "{}", {"Authorization": f"Bearer {key}"} if key else {})
    with connection.getresponse() as response:
        connection.close()
        return response.status


def test_no_port_is_open_and_the_socket_has_no_name(server: LlamaServer) -> None:
    sockets = psutil.Process().net_connections(kind="all")
    assert not [found for found in sockets if found.type == 1 and found.family != 1 and not found.raddr]
    names = [found.laddr for found in sockets if "model.sock" in str(found.laddr)]
    assert names, "the Unix socket of the server"
    assert not any(Path(name).exists() or Path(name).parent.exists() for name in names)


@pytest.mark.parametrize("path", ["/completion", "/tokenize", "/apply-template"])
def test_without_the_key_nothing_is_told(server: LlamaServer, path: str) -> None:
    assert status(server, "POST", path, None) == 401
    assert status(server, "POST", path, "guessed") == 401


@pytest.mark.parametrize("path", ["/slots", "/metrics"])
def test_what_would_show_prompts_is_off(server: LlamaServer, path: str) -> None:
    assert status(server, "GET", path, None) == 401
    assert status(server, "GET", path, server._key) == 501


def test_a_call_holds_no_python_lock(server: LlamaServer) -> None:
    ticks = 0
    over = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not over.wait(0.002):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    since = time.monotonic()
    server.call("/completion", {"prompt": [66] * (CONTEXT - 8), "n_predict": 0, "cache_prompt": False})
    took = time.monotonic() - since
    during = ticks
    over.set()
    thread.join()
    assert took > 0.05
    assert during > took / 0.002 / 10, "a tenth of the ticks of an idle machine"


def test_generation_stops_when_the_caller_leaves(server: LlamaServer) -> None:
    events: Any = server.stream("/completion", {"prompt": [66, 67], "n_predict": 3900, "ignore_eos": True})
    assert next(events)["content"]
    events.close()
    time.sleep(0.1)
    before = psutil.Process().cpu_times()
    time.sleep(0.3)
    after = psutil.Process().cpu_times()
    assert after.user + after.system - before.user - before.system < 0.1


def test_a_prompt_that_is_too_long_is_refused_without_its_text(server: LlamaServer) -> None:
    with pytest.raises(InvalidRequest, match="status 400") as caught:
        server.call("/completion", {"prompt": "secret " * CONTEXT, "n_predict": 1})
    assert "secret" not in str(caught.value)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelMissing, match=r"broken\.gguf"):
        LlamaServer(tmp_path / "broken.gguf", Size())


def test_without_the_library_what_to_install_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ModelMissing, match="apt install libgomp1"):
        LlamaServer(tmp_path / "any.gguf", Size())


def test_closed_it_leaves_nothing_behind(tmp_path: Path) -> None:
    made = LlamaServer(chat_gguf.write(tmp_path / "tiny.gguf"), Size(slots=1, context=256))
    made.close()
    with pytest.raises((OSError, http.client.HTTPException)):
        made.connect().connect()
