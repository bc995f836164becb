"""Only the doors of the settings are opened; one that cannot be opened keeps the service from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsvc.core.errors import ConfigError
from streamsvc.ingest import libsrt, rtmp_nginx
from streamsvc.service import doors
from tests.builders.fake_service import serving


def not_installed() -> tuple[str, str]:
    raise ConfigError("ingest.rtmp_listen needs nginx", code="no_door")


async def test_a_door_whose_program_is_missing_is_told_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtmp_nginx, "installed", not_installed)
    async with serving(tmp_path) as running, doors.opened(running):
        pass
    ingest = {"rtmp_listen": "127.0.0.1:0"}
    async with serving(tmp_path, ingest=ingest) as running:
        with pytest.raises(ConfigError, match="needs nginx"):
            async with doors.opened(running):
                pass
    monkeypatch.setattr(libsrt, "_NAMES", ())
    async with serving(tmp_path, ingest={"srt_listen": "127.0.0.1:0"}) as running:
        with pytest.raises(ConfigError, match="libsrt is missing"):
            async with doors.opened(running):
                pass
