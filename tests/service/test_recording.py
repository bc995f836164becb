"""A session is recorded where it may be; the bundle holds no secret, and is erased with its session."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from streamsvc.core import config, metrics
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.core.options import SessionOptions
from streamsvc.evaluation.bundle import records
from streamsvc.events.store import size_of
from streamsvc.service import recording
from streamsvc.service.recording import NAME, digest, settings_of
from tests.builders.fake_service import kept, serving
from tests.builders.recorded import recorded
from tests.builders.session import OPUS, Sender, packets, send
from tests.fakes.role import FakeRole

CANARY = "canary-of-a-secret"


def test_the_bundle_lies_in_the_sessions_folder_for_its_owner_and_is_erased_with_it(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"record": "all", "retention": 30.0}) as service:
            session = service.sessions.start("x")
            await asyncio.sleep(0)
            session.media.attach(Sender(OPUS))
            await send(session, [frame for frame in packets(tmp_path, 1.0) if frame.kind == "audio"])
            session.end("done")
            await session.over.wait()
            bundle = tmp_path / "x" / NAME
            assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
            assert size_of(tmp_path / "x") > bundle.stat().st_size > 1000
            assert list(records(bundle))[-1].kind == "over"
            await asyncio.sleep(20)
            assert kept(tmp_path) == {"x", "stage.webm"}
            await asyncio.sleep(20)
            assert kept(tmp_path) == {"stage.webm"}

    stage.run(main())


@pytest.mark.parametrize(
    ("server", "options", "code"),
    [
        ("off", SessionOptions(record=True), "recording_off"),
        ("all", SessionOptions(record=True, stored=False), "cannot_record"),
        ("asked", SessionOptions(record=True, stored=False), "cannot_record"),
    ],
)
def test_what_may_not_be_recorded_is_refused(
    server: str, options: SessionOptions, code: str, stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"record": server}) as service:
            with pytest.raises(InvalidRequest) as caught:
                await service.sessions.create(options=options)
            assert caught.value.code == code
            assert not service.sessions.by_id

    stage.run(main())


@pytest.mark.parametrize(
    ("server", "options", "is_recorded"),
    [
        ("off", SessionOptions(), False),
        ("asked", SessionOptions(), False),
        ("asked", SessionOptions(record=True), True),
        ("all", SessionOptions(), True),
        ("all", SessionOptions(record=False), False),
        ("all", SessionOptions(stored=False), False),
    ],
)
def test_a_session_is_recorded_where_it_was_asked_for_and_never_without_a_store(
    server: str, options: SessionOptions, is_recorded: bool, stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"record": server}) as service:
            session = await service.sessions.create(options=options)
            assert kept(tmp_path / session.id) & {NAME} == ({NAME} if is_recorded else set())
            await asyncio.sleep(0)

    stage.run(main())


def test_no_key_address_or_path_of_the_settings_is_in_the_bundle(tmp_path: Path) -> None:
    settings = config.load(
        None,
        server={
            "api_key": CANARY,
            "data_dir": tmp_path / CANARY,
            "sources": (tmp_path / CANARY,),
            "public_url": f"https://{CANARY}.example",
            "origins": (f"https://{CANARY}.example",),
            "trusted_proxies": (CANARY,),
        },
        ingest={
            "ice_servers": (f"turn:user:{CANARY}@127.0.0.1",),
            "turn": {"urls": (f"turn:{CANARY}",), "secret": CANARY},
            "srt_passphrase": CANARY,
            "hooks": {"ome": f"rtmp://{CANARY}.example/live/{{name}}", "ome_secret": CANARY},
        },
        remote={"key": CANARY, "url": f"http://{CANARY}.example/v1", "model": "m"},
        see={"labels": tmp_path / CANARY, "clip": "c"},
        models={"dir": tmp_path / CANARY},
    )
    assert CANARY not in str(settings_of(settings))
    assert settings_of(settings)["hear"]["model"] == settings.hear.model
    json.dumps(settings_of(settings))


def test_who_asks_is_not_in_the_bundle(stage: asyncio.Runner, tmp_path: Path) -> None:
    bundle = stage.run(recorded(tmp_path, seconds=1.0, clients=True))
    asked = [record.fields["told"] for record in records(bundle) if record.kind == "ask"]
    assert asked[0]["text"] == "What is shown now?"
    assert {told["client"] for told in asked} == {"client-1", "client-3", None}
    names = {record.fields["told"] for record in records(bundle) if record.kind == "flush"}
    cancelled = {tuple(record.fields["told"]) for record in records(bundle) if record.kind == "cancel"}
    assert (names, cancelled) == ({"client-1"}, {("mine", "client-2")})
    assert b"192.0.2.7" not in bundle.read_bytes()


def test_a_recording_that_stops_early_is_told_and_the_session_goes_on(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        before = metrics.recordings_stopped.labels("limit")._value.get()
        async with serving(tmp_path, store={"record": "all", "record_bytes": 5000}) as service:
            session = service.sessions.start("x")
            heard = session.log.subscribe(["error", "caption.final"])
            await asyncio.sleep(0)
            session.media.attach(Sender(OPUS))
            await send(session, [frame for frame in packets(tmp_path, 2.0) if frame.kind == "audio"])
            session.end("done")
            await session.over.wait()
            told = [text for _, text in await heard.next() or ()]
            assert "recording_stopped" in told[0]
            assert "caption.final" in told[-1]
        assert metrics.recordings_stopped.labels("limit")._value.get() == before + 1
        assert list(records(tmp_path / "x" / NAME))[-1].fields == {"reason": "limit"}

    stage.run(main())


def test_what_cannot_be_written_ends_the_recording_and_not_the_session(
    stage: asyncio.Runner, tmp_path: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, store={"record": "all"}) as service:
            session = service.sessions.start("x")
            await asyncio.sleep(0)
            cast(recording.Recorder, session.context.tape).write("ask", {"told": object()})
            session.end("done")
            await session.over.wait()
        assert list(records(tmp_path / "x" / NAME))[-1].fields == {"reason": "format"}

    stage.run(main())


def test_a_bundle_that_cannot_be_made_refuses_the_session(
    stage: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise OSError

    async def main() -> None:
        monkeypatch.setattr(recording, "BundleWriter", fails)
        async with serving(tmp_path, store={"record": "all"}) as service:
            with pytest.raises(StreamsvcError) as caught:
                await service.sessions.create(name="x")
            assert caught.value.code == "store_failed"
            assert kept(tmp_path) == set()
            assert service.sessions.by_id == {}

    stage.run(main())


def test_no_signed_address_is_in_the_bundle(stage: asyncio.Runner, tmp_path: Path) -> None:
    async def main() -> None:
        server = {"api_key": "a-key-of-enough-length"}
        async with serving(tmp_path, store={"record": "all"}, server=server) as service:
            session = service.sessions.start("x")
            await asyncio.sleep(0)
            assert "sig=" in session.frame_url(1.0)
            told = {"of": "1", "reason": "change", "url": session.frame_url(1.0)}
            session.log.emit("keyframe.sampled", told)
            session.end("done")
            await session.over.wait()

    stage.run(main())
    bundle = tmp_path / "x" / NAME
    events = [str(record.fields["told"]) for record in records(bundle) if record.kind == "event"]
    assert any('/v1/sessions/x/frames/1.000.jpg"' in text for text in events)
    assert b"sig=" not in bundle.read_bytes()


def test_a_digest_tells_requests_apart_by_values_and_arrays() -> None:
    samples = np.zeros(4, np.float32)
    requests = [
        {"samples": samples, "beam": 3},
        {"samples": samples, "beam": 1},
        {"samples": samples + 1, "beam": 3},
        {"samples": samples.reshape(2, 2), "beam": 3},
        {"samples": samples.view(np.int32), "beam": 3},
        {"other": samples, "beam": 3},
    ]
    assert len({digest(request) for request in requests}) == len(requests)
    assert digest({"beam": 3, "samples": samples.copy()}) == digest(requests[0])


@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_that_is_cancelled_is_recorded_as_dropped(streams: bool) -> None:
    written: list[str] = []

    class Notes:
        def call(self, *_: object) -> int:
            return 7

        def write(self, kind: str, fields: dict[str, Any]) -> None:
            written.append(f"{kind} {fields['call']}")

    class Slow(FakeRole):
        async def call(self, *_: Any, **__: Any) -> Any:
            await asyncio.Event().wait()

        async def stream(self, *_: Any, **__: Any) -> Any:
            yield await asyncio.Event().wait()

    role = recording._RecordedRole("think", Slow({}), cast(Any, Notes()))

    async def ask() -> None:
        if streams:
            async for _ in role.stream("x", {}, deadline_in_s=1.0):
                pass
        else:
            await role.call("x", {}, deadline_in_s=1.0)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await ask()
    assert written == ["dropped 7"]
