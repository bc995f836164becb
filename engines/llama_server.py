"""llama.cpp's server inside this process, spoken to over a Unix socket that has no name.

llama.cpp always opens an HTTP listener. Here it is a Unix socket in a folder of our own, behind a random key,
and its name is removed once it listens: it is reached through a descriptor of this process. So there is no
TCP port, nobody else can connect, and a call is socket I/O that holds no Python lock while the model reads.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamsvc.core.errors import InvalidRequest, ModelMissing, WorkerError

_DESCRIPTORS = Path("/proc/self/fd")  # Linux: opens what a descriptor refers to, whether it has a name or not


@dataclass(frozen=True, slots=True)
class Size:
    """threads: of one model. slots: prompts kept. context: tokens a slot. batch: most tokens of a step."""

    threads: int = 1
    slots: int = 4
    context: int = 4096
    batch: int = 64


class LlamaServer:
    """A GGUF model, loaded.

    Args:
        model: the GGUF file.
        size: see `Size`; fixed for the life of the server.
        projector: the GGUF file by which the model sees pictures; None: it reads text alone.

    Raises:
        ModelMissing: llama.cpp cannot load the file, or cannot itself be loaded.
    """

    def __init__(self, model: Path, size: Size, projector: Path | None = None) -> None:
        try:
            import xllamacpp
        except ImportError as error:  # its wheel brings no libgomp.so.1, which a bare machine lacks
            raise ModelMissing(
                f"llama.cpp cannot be loaded: {error}. On Debian or Ubuntu: apt install libgomp1"
            ) from None

        self.version = f"llama.cpp, xllamacpp {xllamacpp.__version__}"
        self._key = secrets.token_urlsafe(32)
        folder = Path(tempfile.mkdtemp(prefix="streamsvc-"))  # mode 0700
        name = folder / "model.sock"  # llama.cpp: a host name that ends in .sock is a Unix socket
        try:
            parameters = _parameters(xllamacpp, model, size, str(name), self._key)
            if projector is not None:
                parameters.mmproj.path = str(projector)
                # The tower's 1,024 patches attend to one another: a picture costs a fifth less with it.
                flash = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
                parameters.flash_attn_type = flash
            self._server = xllamacpp.Server(parameters)
        except RuntimeError:
            shutil.rmtree(folder, ignore_errors=True)
            raise ModelMissing(f"llama.cpp cannot load {model.name}: run `streamsvc models verify`") from None
        self._address = str(name)
        self._release: Callable[[], Any] = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        if _DESCRIPTORS.is_dir():
            descriptor = os.open(name, os.O_PATH)
            self._address = str(_DESCRIPTORS / str(descriptor))
            self._release()
            self._release = weakref.finalize(self, os.close, descriptor)
        # Until its loop has done something, llama.cpp may wait for ever when it is closed.
        self.call("/completion", {"prompt": [0], "n_predict": 0})

    def close(self) -> None:
        """Stop the server and free the model."""
        self._server = None
        self._release()

    def call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """POST JSON and return the JSON of the response.

        Raises:
            InvalidRequest: llama.cpp refuses the request: a prompt too long, a schema that it cannot follow.
            WorkerError: it fails.
        """
        with closing(self.connect()) as connection:
            response = self._post(connection, path, body)  # read to its end, it closes itself
            found: dict[str, Any] = json.loads(response.read())
            return found

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """POST JSON and yield the server-sent events. Closing the iterator ends the work on them.

        Raises:
            InvalidRequest, WorkerError: as `call`.
        """
        with closing(self.connect()) as connection:
            response = self._post(connection, path, {**body, "stream": True})
            with closing(response):
                for line in response:
                    if line.startswith(b"data: {"):
                        yield json.loads(line.removeprefix(b"data: "))
                    elif line.startswith(b"error:"):
                        raise WorkerError("llama.cpp gave up an answer")

    def media_marker(self) -> str:
        """The text that stands for a picture in a prompt: random, and another in each server."""
        with closing(self.connect()) as connection:
            return str(json.loads(self._send(connection, "GET", "/props").read())["media_marker"])

    def connect(self) -> http.client.HTTPConnection:
        """A new connection."""
        return _UnixConnection(self._address)

    def _post(
        self, connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any]
    ) -> http.client.HTTPResponse:
        return self._send(connection, "POST", path, json.dumps(body))

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise WorkerError(f"llama.cpp does not answer: {type(error).__name__}") from None
        if response.status == 200:
            return response
        response.close()
        if response.status >= 500:
            raise WorkerError(f"llama.cpp failed with status {response.status}")
        # Its text may quote the prompt.
        raise InvalidRequest(f"llama.cpp refused the request with status {response.status}")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, address: str) -> None:
        super().__init__("localhost")
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        try:
            self.sock.connect(self._address)
        except OSError:
            self.sock.close()
            raise


def _parameters(xllamacpp: Any, model: Path, size: Size, address: str, key: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model)
    parameters.hostnames = [address]
    parameters.api_keys = [key]
    parameters.endpoint_slots = False
    parameters.endpoint_props = False
    parameters.endpoint_metrics = False
    parameters.ui = False
    parameters.offline = True
    parameters.n_parallel = size.slots
    parameters.n_ctx = size.slots * size.context
    parameters.n_batch = parameters.n_ubatch = size.batch
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = size.threads
    # On a CPU it is slower the more has been read: SmolLM2, 1,781 tokens, one thread: 57 to 82 tokens/s and
    # 32 to 38 ms a token of an answer with it, 108 and 25 without (load_tests.reading).
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.slot_prompt_similarity = 0.0  # we choose the slot
    parameters.cache_ram_mib = 0  # else up to 8 GiB of prompts that left their slots are kept
    parameters.n_ctx_checkpoints = 0
    parameters.fit_params = False  # else it may shrink the context
    parameters.warmup = False
    parameters.verbosity = 0  # its log may quote prompts
    return parameters
