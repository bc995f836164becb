"""LoRA adapters of one model, through peft: loaded by name when first wanted, switched for each run of the model.

Many sessions share one model. A switch and the run behind it are under one lock, so a session never runs with another's adapter.
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

MOST = 8  # adapters held; the one that was not used for longest goes
WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Adapters:
    """The adapters below a folder.

    Args:
        model: the whole model. peft puts its layers into it; without an adapter it computes what it did before.
        folder: holds a folder for each adapter, as peft's `save_pretrained` writes it.
        most: how many are held.
    """

    def __init__(self, model: Any, folder: Path, most: int = MOST) -> None:
        self._model, self._folder, self._most = model, folder, most
        self._peft: Any = None  # made with the first adapter
        self._held: OrderedDict[str, None] = OrderedDict()
        self._current = ""
        self._lock = threading.RLock()

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """While this is entered the model has the adapter; "" is none. One caller at a time.

        Raises:
            InvalidRequest: no such adapter, or none that may be used here.
        """
        with self._lock:
            if name:
                self._load(name)
                self._held.move_to_end(name)
            if name != self._current:
                self._switch(name)
            yield

    def _switch(self, name: str) -> None:
        if name:
            self._peft.set_adapter(_inside(name))
            self._peft.base_model.enable_adapter_layers()
        elif self._peft is not None:
            self._peft.base_model.disable_adapter_layers()
        self._model.requires_grad_(False)  # peft makes the adapter that is set trainable
        self._current = name

    def _load(self, name: str) -> None:
        if name in self._held:
            return
        place = named(self._folder, name)
        if not (place / WEIGHTS).is_file():  # security: pickled weights are not read
            raise InvalidRequest("there is no such adapter", code="no_adapter")
        import peft

        try:
            if self._peft is None:
                with quiet():
                    self._peft = peft.PeftModel.from_pretrained(
                        self._model, str(place), adapter_name=_inside(name)
                    )
            else:
                self._peft.load_adapter(str(place), adapter_name=_inside(name))
        except (ValueError, KeyError, RuntimeError, OSError):
            raise ModelMissing(f"the adapter {name} does not fit this model") from None
        self._model.eval().requires_grad_(False)
        self._current = "?"  # whatever peft has set: the next use switches
        self._held[name] = None
        if any(_inside(name) in child.lora_A for child in _eyes(self._model) if hasattr(child, "lora_A")):
            self._forget(name)
            raise InvalidRequest(
                f"the adapter {name} changes the vision tower, whose visual tokens sessions share"
            )
        if len(self._held) > self._most:
            self._forget(next(iter(self._held)))

    def _forget(self, name: str) -> None:
        del self._held[name]
        if self._held:
            self._peft.set_adapter(
                _inside(next(reversed(self._held)))
            )  # peft warns when it must choose another itself
            self._peft.delete_adapter(_inside(name))
        else:  # peft wants one at least: the model gets its own layers back
            self._peft.unload()
            self._peft = None
        self._current = "?"


@contextmanager
def quiet() -> Iterator[None]:
    """Quiet about how peft asks transformers under old names, which transformers says at every model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def named(folder: Path, name: str) -> Path:
    """Where the adapter of a name lies, or would lie.

    Raises:
        InvalidRequest: a name has 1 to 64 letters, digits, '_' and '-'.
    """
    if not _NAME.fullmatch(name):  # security: no path
        raise InvalidRequest("an adapter's name has 1 to 64 letters, digits, '_' and '-'", code="no_adapter")
    return folder / name


def _inside(name: str) -> str:
    """The name inside peft, which takes names that are parts of its own prefix "lora_" for that."""
    return f"of-{name}"


def _eyes(model: Any) -> Iterator[Any]:
    """All modules of the vision tower and its projector: everything but the language model."""
    language = {
        id(module)
        for part in ("language_model", "text_model")
        for module in getattr(model.model, part, model.lm_head).modules()
    }
    return (module for module in model.model.modules() if id(module) not in language)
