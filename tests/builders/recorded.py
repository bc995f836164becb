"""A recorded session with fake models: its bundle, and the bundle changed in one place."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock
from streamsvc.core.options import SpeechOptions
from streamsvc.core.roles import Payload
from streamsvc.evaluation.bundle import Record, records
from streamsvc.service.bundle_writer import MAGIC
from streamsvc.service.recording import NAME
from streamsvc.service.session import Session
from streamsvc.workers.framing import pack
from tests.builders.fake_service import serving
from tests.builders.session import OPUS, VP8, Models, Sender, packets, send
from tests.fakes.embed_role import word_scores, word_vectors
from tests.fakes.role import FakeRole

Changed = tuple[str, dict[str, Any], Payload]


async def recorded(
    folder: Path,
    *,
    seconds: float = 3.0,
    pictures: bool = False,
    clients: bool = False,
    models: Models | None = None,
) -> Path:
    """Record a session in a service; returns a copy of its bundle.

    Args:
        folder: for all files.
        seconds: of media.
        pictures: with video.
        clients: they ask, watch and change it, and the load changes.
        models: None: those of the stage, and an encoder of words.
    """
    models = models or Models(embed=FakeRole({"texts": word_vectors, "rank": word_scores}))
    frames = [frame for frame in packets(folder, seconds) if pictures or frame.kind == "audio"]
    async with serving(folder / "data", models, store={"record": "all"}) as service:
        session = await service.sessions.create(name="taped")
        await asyncio.sleep(0)
        session.media.attach(Sender(*((OPUS, VP8) if pictures else (OPUS,))))
        acting = asyncio.create_task(_act(service.sessions.update, session)) if clients else None
        await send(session, frames)
        if acting is not None:
            await acting
        session.end("done")
        await session.over.wait()
        shutil.copy(folder / "data" / session.id / NAME, folder / "a.bundle")
    return folder / "a.bundle"


async def _act(update: Callable[..., Session], session: Session) -> None:
    watch = await session.watches.add("a cat appears", 0.5)
    await clock.sleep(0.7)
    session.questions.ask(QuestionRequest("What is shown now?", client="me", asker="host:192.0.2.7"))
    session.questions.ask(QuestionRequest("What has been said about la?", client="you", audience="session"))
    session.questions.ask(QuestionRequest("Is a dog there?", "mine", asker="host:192.0.2.7"))
    session.answering.cancel("mine", "host:192.0.2.7")
    session.apply_level(1, "test")
    update(session.id, SpeechOptions(vocabulary=("Nasreddin",)), {"vocabulary"})
    await session.speech.flush("me")
    session.watches.remove(watch["id"])
    session.apply_level(0, "")
    await clock.sleep(3.0)


def changed(bundle: Path, change: Callable[[Record], Changed | None]) -> Path:
    """A copy of a bundle with each record as `change` gives it (kind, fields, payload); None: without it."""
    copy = bundle.with_suffix(".changed")
    copy.write_bytes(MAGIC + b"".join(_packed(records(bundle), change)))
    return copy


def _packed(found: Iterable[Record], change: Callable[[Record], Changed | None]) -> Iterable[bytes]:
    for record in found:
        if (given := change(record)) is not None:
            kind, fields, payload = given
            yield pack({"kind": kind, "t": record.t, **fields}, payload)


def same(record: Record) -> Changed:
    """The record as it is."""
    return record.kind, dict(record.fields), record.payload
