"""The process of a source: confined, without our keys, and its end is its source's alone."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from streamsvc.core import clock
from streamsvc.core.config import Ingest
from streamsvc.core.errors import ConfigError, SourceError
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest import sandbox, source_process
from streamsvc.ingest.decode import on_thread
from streamsvc.ingest.decoders import audio_decoder, threads, video_decoder
from streamsvc.ingest.source import Source, SourceSink, open_source
from streamsvc.ingest.source_channel import Broken
from streamsvc.ingest.source_decoders import RemotePicture
from streamsvc.ingest.source_inputs import ServedInputs
from streamsvc.ingest.source_process import SourceProcess, tell_sandbox
from tests.builders.clips import clip


async def opened(path: Path, speed: float | None = 1.0, mode: str = "auto") -> Source:
    settings = Ingest.model_validate({"sandbox": mode})
    return await open_source(str(path), settings, session="s", speed=speed, roots=None)


async def no_wait() -> None:
    return


async def run(source: Source, tap: Callable[[EncodedFrame], None] = lambda frame: None) -> None:
    zero = clock.now()
    await source.run(SourceSink(tap, no_wait, lambda: zero))


def process_of(source: Source) -> SourceProcess:
    assert source._process is not None
    return source._process


async def ended(process: SourceProcess) -> None:
    await asyncio.to_thread(process._process.wait, 20)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return clip(tmp_path / "a.wav", video=None, audio="pcm_s16le", seconds=60.0)


async def test_it_is_confined_and_has_no_key_and_no_file_of_ours(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSVC_SERVER__API_KEY", "a-key-that-is-ours")
    source = await opened(sound)
    place = Path(f"/proc/{process_of(source).pid}")
    status, environment = (place / "status").read_text(), (place / "environ").read_bytes()
    files = {str(one.readlink()) for one in (place / "fd").iterdir()}
    layers = sandbox.examine()
    network = str((place / "ns/net").readlink())
    ours = str((place.parent / "self/ns/net").readlink())
    first_to_go = int((place / "oom_score_adj").read_text())
    limits = {
        line[:26].strip(): line[26:].split()[:2] for line in (place / "limits").read_text().splitlines()
    }
    await source.close()
    assert first_to_go == int(sandbox.OUT_OF_MEMORY)
    assert b"a-key-that-is-ours" not in environment
    assert {name.partition(":")[0] for name in files} == {"/dev/null", "socket"}
    assert "NoNewPrivs:\t1" in status
    assert [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapPrm"))] == [
        "0" * 16
    ] * 2
    assert limits["Max core file size"] == limits["Max file size"] == ["0", "0"]
    assert limits["Max open files"] == [str(sandbox.FILES)] * 2
    assert ("Seccomp:\t2" in status) == (sandbox.SECCOMP in layers)
    assert (network != ours) == (sandbox.NAMESPACE in layers)


@pytest.mark.parametrize(
    ("number", "told", "status"),
    [
        (signal.SIGKILL, "its process ended unexpectedly", -9),
        (signal.SIGSTOP, "its process did not answer in time", None),
    ],
)
async def test_one_that_dies_or_hangs_ends_its_source_with_a_clear_error(
    sound: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, told: str, status: int | None
) -> None:
    monkeypatch.setattr(source_process, "STEP_SECONDS", 1.0)
    source = await opened(sound, speed=20.0)
    process = process_of(source)
    taken: list[EncodedFrame] = []

    def tap(frame: EncodedFrame) -> None:
        if not taken:
            os.kill(process.pid, number)
        taken.append(frame)

    with capture_logs() as logs, pytest.raises(SourceError, match=told) as caught:
        await asyncio.wait_for(run(source, tap), 20)
    assert (caught.value.code, caught.value.retryable) == ("source_crashed", False)
    assert [(entry["event"], entry["status"]) for entry in logs] == [("source process failed", status)]
    assert str(sound.parent) not in str(logs)
    await source.close()
    await ended(process)


async def test_an_exception_that_ends_it_is_logged_by_class_and_place(tmp_path: Path) -> None:
    source = await opened(clip(tmp_path / "a.mp4", video="libx264", audio=None), speed=None)
    frames: list[EncodedFrame] = []
    await run(source, frames.append)
    decoder = video_decoder(source.tracks[0], "s")
    picture = (await asyncio.to_thread(decoder.decode, frames))[-1].handle
    assert isinstance(picture, RemotePicture)
    process = process_of(source)
    with capture_logs() as logs, pytest.raises(SourceError, match="ended unexpectedly"):
        await asyncio.to_thread(picture.pixels, (1,))  # a picture without a width
    raised, failed = logs
    assert (raised["event"], raised["error"]) == ("source process raised", "IndexError")
    assert [place.partition(":")[0] for place in raised["places"]] == [
        "streamsvc.ingest.source_child",  # _serve, serve, _answer
        "streamsvc.ingest.source_child",
        "streamsvc.ingest.source_child",
        "streamsvc.ingest.decode",
    ]
    assert (failed["event"], failed["status"]) == ("source process failed", 1)
    decoder.close()
    await source.close()
    await ended(process)


async def test_one_that_dies_while_it_decodes_is_told_at_the_end(sound: Path) -> None:
    source = await opened(sound, speed=None)
    frames: list[EncodedFrame] = []
    decoder = audio_decoder(source.tracks[0], "s")

    async def taken() -> None:  # everything has been read by now
        os.kill(process_of(source).pid, signal.SIGKILL)
        assert await asyncio.to_thread(decoder.decode, frames[:10]) == []

    zero = clock.now()
    with pytest.raises(SourceError, match="ended unexpectedly"):
        await source.run(SourceSink(frames.append, no_wait, lambda: zero, taken=taken))
    assert decoder.errors == 10
    decoder.close()
    await source.close()


async def test_a_decoder_that_hangs_after_its_source_was_closed_is_ended_too(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_process, "STEP_SECONDS", 0.5)
    source = await opened(sound, speed=None)
    frames: list[EncodedFrame] = []
    decoder = audio_decoder(source.tracks[0], "s")
    process = process_of(source)
    await run(source, frames.append)
    await source.close()
    os.kill(process.pid, signal.SIGSTOP)
    assert await asyncio.to_thread(decoder.decode, frames[:10]) == []
    await ended(process)
    decoder.close()


async def test_one_that_hangs_holds_no_thread_of_other_sessions(sound: Path) -> None:
    source = await opened(sound, speed=None)
    frames: list[EncodedFrame] = []
    decoder = audio_decoder(source.tracks[0], "s")
    process = process_of(source)
    await run(source, frames.append)
    await source.close()
    os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as media:
        hangs = asyncio.create_task(on_thread(threads(decoder, media), decoder.decode, frames[:10]))
        await asyncio.sleep(0)
        assert await asyncio.wait_for(on_thread(media, lambda: "decoded"), 10) == "decoded"
        assert not hangs.done()
        own = [one for one in threading.enumerate() if one in process._threads._threads]
        os.kill(process.pid, signal.SIGKILL)
        assert await hangs == []
        decoder.close()
        assert threads(decoder, media) is media, "nothing waits any more"
    for thread in own:
        await asyncio.to_thread(thread.join, 10)
    assert len(own) == 1
    assert not any(thread.is_alive() for thread in own)


async def test_it_lives_as_long_as_its_source_or_a_decoder(sound: Path) -> None:
    source = await opened(sound, speed=None)
    frames: list[EncodedFrame] = []
    decoder = audio_decoder(source.tracks[0], "s")
    process = process_of(source)
    await run(source, frames.append)
    await source.close()
    assert len(await asyncio.to_thread(decoder.decode, frames)) > 0, "what was queued is still decoded"
    decoder.close()
    decoder.close()
    await ended(process)
    assert await asyncio.to_thread(decoder.decode, frames[:1]) == []


async def test_what_it_spends_counts_while_it_runs(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = await opened(sound)
    process = process_of(source)
    times = SimpleNamespace(user=1.0, system=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(psutil, "Process", lambda pid: SimpleNamespace(cpu_times=lambda: times))
        assert process.cost(0.0) == 0.0
        times.user = 3.0
        assert process.cost(1.0) == 0.0, "not measured again yet"
        assert process.cost(4.0) == 0.25, "half a core, and as much as before"
    assert process in source_process._running
    await source.close()
    await ended(process)
    assert process.cost(8.0) == 0.0
    assert process not in source_process._running


async def test_where_it_must_be_confined_and_is_not_nothing_is_read(
    sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "enough", lambda layers, loopback=False: False)
    with pytest.raises(SourceError) as caught:
        await opened(sound, mode="require")
    assert caught.value.code == "no_sandbox"
    await (await opened(sound)).close()


def test_what_confines_sources_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for layers, level in ((sandbox.LAYERS, "info"), ((sandbox.SECCOMP,), "warning"), ((), "warning")):
        monkeypatch.setattr(sandbox, "examine", lambda layers=layers: layers)
        with capture_logs() as logs:
            tell_sandbox("auto")
        assert [(entry["log_level"], entry["sandbox"]) for entry in logs] == [
            (level, sandbox.described(layers))
        ]
    with pytest.raises(ConfigError, match="confined by nothing"):
        tell_sandbox("require")
    with capture_logs() as logs:
        tell_sandbox("off")
    assert logs[0]["log_level"] == "warning"


@pytest.mark.parametrize(("asks", "most"), [(3, 100.0), (1 << 20, -1.0)], ids=["asks", "seconds"])
async def test_one_that_reads_for_ever_is_ended(
    sound: Path, monkeypatch: pytest.MonkeyPatch, asks: int, most: float
) -> None:
    monkeypatch.setattr(source_process, "ASKS", asks)
    process = SourceProcess("a")

    def endless(seconds: float | None = None) -> tuple[dict[str, Any], memoryview]:
        return {"ask": "open"}, memoryview(b"")

    monkeypatch.setattr(process._demuxing, "receive", endless)
    served = ServedInputs()
    with pytest.raises(SourceError, match="did not answer in time"):
        await asyncio.wait_for(
            asyncio.to_thread(process.demux, {"op": "packets"}, served, lambda *_: None, 0.0, most), 20
        )
    process.release()
    await ended(process)


async def test_who_comes_after_its_end_is_told_and_nothing_is_logged(sound: Path) -> None:
    process = SourceProcess("a")
    process.release()
    await ended(process)
    with capture_logs() as logs:
        process.hold()
        with pytest.raises(SourceError):
            await asyncio.to_thread(process.ask, "audio", {"op": "flush"}, (), lambda *_: None)
        process.release()
    assert logs == []


async def test_a_close_while_it_starts_waits_for_who_uses_its_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = SourceProcess("a")
    began, closed = threading.Event(), threading.Event()
    inside: list[bool] = []

    def receive(seconds: float) -> None:
        began.set()
        inside.append(closed.wait(0.5))
        raise Broken("closed")

    monkeypatch.setattr(process._demuxing, "receive_socket", receive)
    real = process._demuxing.close

    def close() -> None:
        closed.set()
        real()

    monkeypatch.setattr(process._demuxing, "close", close)
    starting = asyncio.create_task(asyncio.to_thread(process.wait_ready))
    await asyncio.to_thread(began.wait, 10)
    process.release()
    with pytest.raises(SourceError):
        await starting
    assert inside == [False]
    assert await asyncio.to_thread(closed.wait, 10)
