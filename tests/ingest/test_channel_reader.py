"""A file's channels, read by a process of their own: the same samples, and no answer is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError, TooLarge
from streamsvc.ingest.channel_reader import ChannelReader
from streamsvc.ingest.channels import Block
from streamsvc.ingest.source_channel import Broken, Fields
from streamsvc.ingest.source_policy import Place
from streamsvc.ingest.source_process import SourceProcess
from tests.builders.clips import clip

MODES = ["off", "auto"]


def reader_of(path: Path, mode: str = "auto") -> ChannelReader:
    return ChannelReader(Place("file", "the file", path), Ingest.model_validate({"sandbox": mode}))


async def ended(reader: ChannelReader) -> None:
    reader.close()
    if reader._process is not None:
        await asyncio.to_thread(reader._process._process.wait, 20)


async def read(path: Path, mode: str) -> np.ndarray:
    reader = reader_of(path, mode)
    try:
        return np.concatenate(await asyncio.to_thread(lambda: list(reader.blocks())))
    finally:
        await ended(reader)


async def test_what_is_read_apart_is_what_is_read_within(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.m4a", video=None, audio="aac", seconds=10.0)
    within, apart = await read(path, "off"), await read(path, "auto")
    assert within.shape[0] == pytest.approx(160_000, rel=0.02)
    assert np.array_equal(within, apart)


@pytest.mark.parametrize("mode", MODES)
async def test_a_file_that_is_none_is_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "audio"
    path.write_bytes(b"no media at all")
    with pytest.raises(SourceError, match="the file is damaged") as caught:
        await read(path, mode)
    assert caught.value.code == "corrupt"


async def test_a_file_that_ends_its_process_is_an_error_of_that_file_alone(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=20.0)
    reader = reader_of(path)
    process = reader._process
    assert process is not None

    def blocks() -> Iterator[object]:
        for block in reader.blocks():
            psutil.Process(process.pid).kill()
            yield block

    with pytest.raises(SourceError, match="ended unexpectedly") as caught:
        await asyncio.to_thread(lambda: list(blocks()))
    assert caught.value.code == "source_crashed"
    await ended(reader)


async def test_no_answer_of_its_process_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(tmp_path / "a", "off")

    def checked(channels: object, body: bytes) -> Block | None:
        return reader._checked(Fields({"channels": channels}), memoryview(body))

    assert checked(2, bytes(8)) == Block(2, bytes(8))
    for channels, body in (
        (2, bytes(6)),
        (2, b""),
        (1, bytes(8)),
        (-1, b""),
        (1 << 40, b""),
        ("2", bytes(8)),
    ):
        with pytest.raises(Broken):
            checked(channels, body)
    assert checked(0, bytes(8)) is None
    monkeypatch.setattr(reader, "_within", lambda: (checked(9, bytes(99)) for _ in range(1)))
    with pytest.raises(TooLarge, match="at most 8 channels, not 9"):
        list(reader.blocks())


async def test_where_it_must_be_confined_it_is(tmp_path: Path) -> None:
    for mode in ("auto", "require"):
        reader = reader_of(tmp_path / "a", mode)
        assert isinstance(reader._process, SourceProcess)
        assert reader._process._require is (mode == "require")
        await ended(reader)
