"""The vectors of examples: computed once a process, and kept in a file, since they take seconds of a core."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import structlog

from streamsvc.answers.example_votes import Vector
from streamsvc.core import clock
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.roles import Role, innermost

log = structlog.get_logger()
EMBED_SECONDS = 0.4  # for the vector of one text
BATCH = 16  # examples a call: another caller waits for one batch at most, about 0.1 s
BATCH_SECONDS = 10.0  # the first batch may load the model

Voters = TypeVar("Voters")


class ExampleVectors(Generic[Voters]):
    """The vectors of some examples by the embed role that was used last, and who votes with them.

    Args:
        name: of the examples, for the file.
        texts: returns the examples.
        voters: made of their vectors, shape (n, d), once all are there.
    """

    def __init__(
        self, name: str, texts: Callable[[], Sequence[str]], voters: Callable[[Vector], Voters]
    ) -> None:
        self._name = name
        self._texts = texts
        self._make = voters
        self._role: weakref.ref[Role] | None = None
        self._vectors: dict[str, Vector] = {}
        self._voters: Voters | None = None

    async def prepare(self, embed: Role, seconds: float | None = None, folder: Path | None = None) -> bool:
        """Compute what is missing.

        Args:
            embed: role with the op "texts".
            seconds: after which no further batch is begun; None: all are computed.
            folder: where the vectors are read from, if they are this model's, and kept; None: nowhere.

        Returns whether all are there. Never fails: without a model there are none.
        """
        # The vectors are of all sessions: no session's recording is to hold the calls.
        embed = innermost(embed)
        self._use(embed)
        if self._voters is not None:
            return True
        deadline = None if seconds is None else clock.now() + seconds
        kept = self.path_in(folder) if folder is not None else None
        is_kept = kept is not None and await self._take_kept(embed, kept)
        while batch := [text for text in self._texts() if text not in self._vectors][:BATCH]:
            left = BATCH_SECONDS if deadline is None else deadline - clock.now()
            if left <= 0 or (vectors := await vectors_of(embed, batch, left)) is None:
                return False
            self._vectors.update(zip(batch, vectors, strict=True))
        if self._voters is None:
            all_vectors = np.stack([self._vectors[text] for text in self._texts()])
            if kept is not None and not is_kept:
                await asyncio.to_thread(save, kept, all_vectors)
            self._voters = await asyncio.to_thread(self._make, all_vectors)
        return True

    async def voters(self, embed: Role, seconds: float) -> Voters | None:
        """Who votes; None: their vectors are not there within `seconds`."""
        return self._voters if await self.prepare(embed, seconds) else None

    def all(self, embed: Role) -> list[Vector]:
        """All vectors by a role, in the order of the examples; empty where they are not ready."""
        self._use(innermost(embed))
        return [] if self._voters is None else [self._vectors[text] for text in self._texts()]

    def adopt(self, embed: Role, vectors: Sequence[Vector]) -> None:
        """Take all vectors from elsewhere, in the order of the examples."""
        self._use(innermost(embed))
        self._vectors.update(zip(self._texts(), vectors, strict=True))
        self._voters = self._make(np.stack(vectors))

    def _use(self, embed: Role) -> None:
        """Forget what another role has computed."""
        if self._role is None or self._role() is not embed:
            self._role, self._vectors, self._voters = weakref.ref(embed), {}, None

    async def _take_kept(self, embed: Role, kept: Path) -> bool:
        """Take the kept vectors, if the model gives the same for two of the examples."""
        vectors = await asyncio.to_thread(load, kept, len(self._texts()))
        if vectors is None:
            return False
        probe = await vectors_of(embed, self._texts()[:2], BATCH_SECONDS)
        if (
            probe is None
            or probe.shape != vectors[:2].shape
            or not np.allclose(probe, vectors[:2], atol=0.01)
        ):
            return False
        self._vectors.update(zip(self._texts(), vectors, strict=True))
        return True

    def path_in(self, folder: Path) -> Path:
        """Where the vectors of the examples as they are now are kept."""
        digest = hashlib.sha256("\n".join(self._texts()).encode()).hexdigest()
        return folder / f"{self._name}-{digest[:16]}.npy"


async def vectors_of(embed: Role, texts: Sequence[str], seconds: float) -> Vector | None:
    """The vectors of some texts, shape (n, d); None: the model fails or is late."""
    try:
        payload = {"texts": list(texts), "kind": "query"}
        result = await embed.call("texts", payload, deadline_in_s=seconds)
    except StreamsvcError as error:
        log.warning("texts are not compared with examples", reason=error.code)
        return None
    vectors: Vector = np.asarray(result["vectors"], dtype=np.float32)
    return vectors


def load(path: Path, count: int) -> Vector | None:
    """The kept vectors, float32 (count, d); None where there are none, or the file is damaged."""
    try:
        vectors: Vector = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = vectors.ndim == 2 and len(vectors) == count and vectors.dtype == np.float32
    return vectors if is_whole else None


def save(path: Path, vectors: Vector) -> None:
    """Keep vectors, shape (n, d). Another process may do the same; where it fails they are computed again."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors.astype(np.float32))
            Path(part).replace(path)
        finally:
            Path(part).unlink(missing_ok=True)
