"""LoRA adapters of one model, through peft: loaded by name at first use, switched before each forward pass.

Many sessions share one model. A switch and the forward pass after it hold one lock, so a session never runs
with another's adapter.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamsvc.core.errors import InvalidRequest, ModelMissing

MAX_ADAPTERS = 8  # loaded at once; the least recently used one is evicted
WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Adapters:
    """The adapters in a folder. Thread-safe.

    Args:
        model: the whole model. peft inserts its layers; without an active adapter its output is unchanged.
        folder: one subfolder per adapter, as written by peft's `save_pretrained`.
        capacity: how many are loaded at once.
    """

    def __init__(self, model: Any, folder: Path, capacity: int = MAX_ADAPTERS) -> None:
        self._model = model
        self._folder = folder
        self._capacity = capacity
        self._peft: Any = None  # created with the first adapter
        self._loaded: OrderedDict[str, None] = OrderedDict()
        self._current = ""
        self._lock = threading.RLock()

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Activate an adapter ("": none) for the duration of the context. Other callers wait.

        Raises:
            InvalidRequest: there is no such adapter, or it changes the vision tower.
            ModelMissing: the adapter does not fit the model.
        """
        with self._lock:
            if name:
                self._load(name)
                self._loaded.move_to_end(name)
            if name != self._current:
                self._switch(name)
            yield

    def _switch(self, name: str) -> None:
        if name:
            self._peft.set_adapter(_peft_name(name))
            self._peft.base_model.enable_adapter_layers()
        elif self._peft is not None:
            self._peft.base_model.disable_adapter_layers()
        self._model.requires_grad_(False)  # peft makes the active adapter trainable
        self._current = name

    def _load(self, name: str) -> None:
        if name in self._loaded:
            return
        place = adapter_path(self._folder, name)
        if not (place / WEIGHTS).is_file():  # security: pickled weights are not loaded
            raise InvalidRequest("there is no such adapter", code="no_adapter")
        import peft

        try:
            if self._peft is None:
                with suppress_future_warnings():
                    self._peft = peft.PeftModel.from_pretrained(
                        self._model, str(place), adapter_name=_peft_name(name)
                    )
            else:
                self._peft.load_adapter(str(place), adapter_name=_peft_name(name))
        except (ValueError, KeyError, RuntimeError, OSError):
            raise ModelMissing(f"the adapter {name} does not fit this model") from None
        self._model.eval().requires_grad_(False)
        self._current = "?"  # unknown: the next use switches
        self._loaded[name] = None
        if any(
            _peft_name(name) in child.lora_A
            for child in _vision_modules(self._model)
            if hasattr(child, "lora_A")
        ):
            self._evict(name)
            raise InvalidRequest(
                f"the adapter {name} changes the vision tower, whose visual tokens sessions share"
            )
        if len(self._loaded) > self._capacity:
            self._evict(next(iter(self._loaded)))

    def _evict(self, name: str) -> None:
        del self._loaded[name]
        if self._loaded:
            # Choose the next adapter here: peft warns if it has to.
            self._peft.set_adapter(_peft_name(next(reversed(self._loaded))))
            self._peft.delete_adapter(_peft_name(name))
        else:  # peft needs at least one adapter: restore the model's own layers
            self._peft.unload()
            self._peft = None
        self._current = "?"


@contextmanager
def suppress_future_warnings() -> Iterator[None]:
    """Suppress transformers' FutureWarnings about deprecated names that peft uses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def adapter_path(folder: Path, name: str) -> Path:
    """The folder of an adapter, whether it exists or not.

    Raises:
        InvalidRequest: the name is not 1 to 64 letters, digits, '_' and '-'.
    """
    if not _NAME.fullmatch(name):  # security: a name must not be a path
        raise InvalidRequest("an adapter's name has 1 to 64 letters, digits, '_' and '-'", code="no_adapter")
    return folder / name


def _peft_name(name: str) -> str:
    """The adapter's name inside peft. The prefix avoids clashes with peft's own prefix "lora_"."""
    return f"of-{name}"


def _vision_modules(model: Any) -> Iterator[Any]:
    """The modules of the vision tower and its projector: all except the language model."""
    language = {
        id(module)
        for part in ("language_model", "text_model")
        for module in getattr(model.model, part, model.lm_head).modules()
    }
    return (module for module in model.model.modules() if id(module) not in language)
