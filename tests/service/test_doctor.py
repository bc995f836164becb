"""The doctor finds each fault that it looks for, and says what to do; a healthy machine has none."""

from __future__ import annotations

import asyncio
import resource
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aioice import stun

from streamsvc.core import clock, config
from streamsvc.ingest import libsrt, rtmp_nginx, sandbox
from streamsvc.service import certificate, doctor
from streamsvc.service.doctor import Finding, examine
from streamsvc.workers import ray_deployment

HAS_GPU = Path("/dev/nvidiactl").exists()


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """All models are whole."""
    monkeypatch.setattr(doctor, "wrong_models", lambda settings: {})
    monkeypatch.setattr(doctor, "vision_runtime", lambda settings: "a runtime")


async def findings(tmp_path: Path, **groups: dict[str, Any]) -> list[Finding]:
    server = {"data_dir": tmp_path, "port": 0} | groups.pop("server", {})
    settings = config.load(None, server=server, **groups)
    return [finding async for finding in examine(settings)]


def of(found: list[Finding], check: str) -> Finding:
    return next(finding for finding in found if finding.check == check)


@pytest.mark.usefixtures("weights")
async def test_the_runtime_of_the_vision_encoder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of(await findings(tmp_path), "vision")
    assert (found.verdict, found.text) == ("ok", "the vision encoder runs in a runtime")
    monkeypatch.setattr(doctor, "vision_runtime", lambda settings: "")
    found = of(await findings(tmp_path), "vision")
    assert (found.verdict, "models pull" in found.advice) == ("warning", True)


async def test_of_models_on_ray_only_that_ray_is_installed_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: dict[str, dict[str, Any]] = {
        "models": {"dir": tmp_path},
        "think": {"model": "smollm2-135m-instruct"},
        "workers": {"transport": "ray"},
    }
    for installed, verdict in ((True, "ok"), (False, "fault")):
        monkeypatch.setattr(ray_deployment, "is_installed", lambda installed=installed: installed)
        found = await findings(tmp_path, **groups)
        assert of(found, "models").verdict == verdict
        assert not {"weights", "vision", "gpu"} & {finding.check for finding in found}
    assert "streamsvc[cluster]" in of(found, "models").advice


@pytest.mark.usefixtures("weights")
async def test_a_machine_as_it_should_be_has_no_fault(tmp_path: Path) -> None:
    found = await findings(tmp_path)
    assert [finding for finding in found if finding.verdict == "fault"] == []
    assert {finding.check for finding in found} >= {"port", "udp", "tls", "weights", "gpu", "clock", "disk"}


@pytest.mark.usefixtures("weights")
async def test_srt_without_its_library_or_with_a_taken_port_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "srt" not in {finding.check for finding in await findings(tmp_path)}
    monkeypatch.setattr(libsrt, "_NAMES", ())
    found = of(await findings(tmp_path, ingest={"srt_listen": "127.0.0.1:0"}), "srt")
    assert (found.verdict, "libsrt is missing" in found.text) == ("fault", True)
    monkeypatch.setattr(libsrt, "load", lambda: None)
    assert of(await findings(tmp_path, ingest={"srt_listen": "127.0.0.1:0"}), "srt").verdict == "ok"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        found = of(await findings(tmp_path, ingest={"srt_listen": listen}), "srt")
        assert (found.verdict, listen in found.text) == ("fault", True)


@pytest.mark.usefixtures("weights")
async def test_rtmp_without_its_program_or_with_a_taken_port_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "rtmp" not in {finding.check for finding in await findings(tmp_path)}
    monkeypatch.setattr(rtmp_nginx, "_FOLDERS", ())
    found = of(await findings(tmp_path, ingest={"rtmp_listen": "127.0.0.1:0"}), "rtmp")
    assert found.verdict == "fault"
    assert "apt-get install" in found.text
    monkeypatch.setattr(rtmp_nginx, "installed", lambda: ("nginx", "module"))
    assert of(await findings(tmp_path, ingest={"rtmp_listen": "127.0.0.1:0"}), "rtmp").verdict == "ok"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        found = of(await findings(tmp_path, ingest={"rtmp_listen": listen}), "rtmp")
    assert (found.verdict, listen in found.text) == ("fault", True)


async def test_a_taken_port_is_a_fault(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = of(await findings(tmp_path, server={"port": taken.getsockname()[1]}), "port")
    assert found.verdict == "fault"
    assert "--port" in found.advice


@pytest.mark.usefixtures("weights")
async def test_fewer_ports_than_publishers_are_told(tmp_path: Path) -> None:
    found = of(await findings(tmp_path, ingest={"udp_ports": "50000-50001"}, limits={"sessions": 3}), "udp")
    assert (found.verdict, found.text) == ("warning", "ingest.udp_ports has 2 ports for 3 publishers")
    enough = of(await findings(tmp_path, ingest={"udp_ports": "50000-50002"}, limits={"sessions": 3}), "udp")
    assert enough.verdict == "ok"


async def test_broken_weights_are_named_with_the_command(tmp_path: Path) -> None:
    broken = tmp_path / "models" / "whisper-base" / "model.bin"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(bytes(4096))
    found = of(await findings(tmp_path, models={"dir": tmp_path}, hear={"model": "whisper-base"}), "weights")
    assert found.verdict == "fault"
    assert "model whisper-base: model.bin: broken (4096 of 145217532 bytes)" in found.text
    assert found.advice.startswith("streamsvc models pull whisper-base efficientnet-lite3 ")


class StunServer(asyncio.DatagramProtocol):
    """Answers binding requests."""

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        request = stun.parse_message(data)
        answer = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, request.transaction_id)
        self.transport.sendto(bytes(answer), address)


async def test_an_ice_server_answers_or_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ICE_SECONDS", 0.3)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(StunServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        urls = (f"stun:127.0.0.1:{port}", f"stun:127.0.0.1:{silent.getsockname()[1]}")
        found = await findings(tmp_path, ingest={"ice_servers": urls})
    transport.close()
    answers, dead = (finding for finding in found if finding.check == "ice")
    assert (answers.verdict, dead.verdict) == ("ok", "warning")
    assert "does not answer" in dead.text


async def test_a_certificate_that_expires_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key = certificate.self_signed(tmp_path, "127.0.0.1")
    server = {"tls_cert": Path(chain), "tls_key": Path(key)}
    assert of(await findings(tmp_path, server=server), "tls").verdict == "ok"
    for days, verdict in ((20, "warning"), (40, "fault")):
        later = clock.utc() + timedelta(days=days)
        with monkeypatch.context() as patched:
            patched.setattr(clock, "utc", lambda later=later: later)
            assert of(await findings(tmp_path, server=server), "tls").verdict == verdict
    (tmp_path / "broken.pem").write_text("no certificate")
    server["tls_cert"] = tmp_path / "broken.pem"
    assert of(await findings(tmp_path, server=server), "tls").verdict == "fault"


async def test_a_missing_gpu_is_a_fault_where_it_is_needed(tmp_path: Path) -> None:
    found = of(await findings(tmp_path, hear={"device": "cuda"}), "gpu")
    assert found.verdict == ("ok" if HAS_GPU else "fault")


async def test_little_disk_memory_and_few_descriptors_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_FREE_DISK", 1e18)
    monkeypatch.setattr(doctor, "_FREE_MEMORY", 1e18)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 100_000))
    found = await findings(tmp_path)
    assert of(found, "disk").verdict == "warning"
    assert of(found, "memory").verdict == "fault"
    assert of(found, "descriptors").advice.startswith("ulimit -n 4096")


async def test_what_confines_sources_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layers, mode, verdict in (
        (sandbox.LAYERS, "require", "ok"),
        (("seccomp",), "auto", "warning"),
        (("landlock",), "auto", "warning"),
        (("landlock",), "require", "fault"),
        (sandbox.LAYERS, "off", "warning"),
    ):
        monkeypatch.setattr(sandbox, "examine", lambda layers=layers: layers)
        found = of(await findings(tmp_path, ingest={"sandbox": mode}), "sandbox")
        assert found.verdict == verdict
        assert bool(found.advice) == (verdict != "ok")
        assert mode == "off" or sandbox.described(layers) in found.text
