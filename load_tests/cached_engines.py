"""Engines whose slow ops answer from a cache on disk, for repeated runs over the same recordings.

A run of `streamsvc eval` takes about as long as its recordings, nearly all of it in these ops; on a virtual
clock the same recording gives the same payloads, so that a second run takes a tenth. Empty the folder after
a change of weights or of the engines' code.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from load_tests.worker_models import CACHED_OPS, digest
from streamsvc.evaluation import session_run
from streamsvc.evaluation.session_run import Load

ELSEWHERE = ("think", "embed", "remote")  # options that the cached ops do not read


@dataclass(frozen=True, slots=True)
class CachedEngines:
    """`CachedEngines(folder).load` is a `load` for `session_run.fixed_time_service`.

    `folder`: exists. `plain`: loads an engine, once one of its ops has to be computed.
    """

    folder: Path
    plain: Load = session_run.load_engine

    def load(self, module: str, options: Mapping[str, Any]) -> Any:
        """An engine of any op. Raises ModelMissing: at the first op that is not in the cache."""
        engine = functools.cache(functools.partial(self.plain, module, options))
        used = {name: value for name, value in options.items() if name not in ELSEWHERE}
        return SimpleNamespace(
            ops=_Ops(self.folder, engine, digest({"module": module, "options": repr(used)}))
        )


class _Ops(dict[str, Any]):
    def __init__(self, folder: Path, engine: Callable[[], Any], of: str) -> None:
        super().__init__()
        self._folder = folder
        self._engine = engine
        self._of = of

    def __missing__(self, op: str) -> Any:
        self[op] = (
            self._engine().ops[op]
            if op not in CACHED_OPS
            else SimpleNamespace(run=functools.partial(self._run, op))
        )
        return self[op]

    def _run(self, op: str, batch: list[Mapping[str, Any]]) -> list[Any]:
        return [self._one(op, payload) for payload in batch]

    def _one(self, op: str, payload: Mapping[str, Any]) -> Any:
        file = self._folder / f"{op}-{digest({**payload, 'engine of': self._of})}"
        if file.is_file():
            return pickle.loads(file.read_bytes())
        (result,) = self._engine().ops[op].run([payload])
        if not isinstance(result, Exception):
            part = file.with_suffix(".part")  # renamed when complete: an aborted run leaves no half file
            part.write_bytes(pickle.dumps(result))
            part.replace(file)
        return result
