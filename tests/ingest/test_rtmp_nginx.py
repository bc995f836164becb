"""nginx is told what it may do, and holds no secret where others can read it; what is missing is named."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from streamsvc.core.errors import ConfigError
from streamsvc.ingest import rtmp_nginx
from streamsvc.ingest.rtmp_nginx import RtmpNginx, free, installed


def test_the_secret_is_in_a_file_of_ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmp_nginx, "installed", lambda: ("/usr/sbin/nginx", "/m.so"))
    start = RtmpNginx(("::1", 1935), 4000, tmp_path / "hooks", "s3cret", 10.0).prepare(tmp_path)
    assert "s3cret" not in " ".join(start.arguments) + " ".join(start.environment.values())
    path = tmp_path / "nginx.conf"
    assert path.stat().st_mode & 0o777 == 0o600
    told = path.read_text()
    assert f"on_publish http://unix:{tmp_path}/hooks:/s3cret;" in told
    for line in (
        "listen [::1]:1935;",
        "listen 127.0.0.1:4000;",
        "access_log off;",
        "error_log stderr emerg;",
        "deny play all;",
        "drop_idle_publisher 10000ms;",
        "notify_update_strict on;",
    ):
        assert line in told, line


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtmp_nginx, "_FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(shutil, "which", lambda name, path: "/usr/sbin/nginx")
    with pytest.raises(ConfigError, match=r"ngx_rtmp_module.*apt-get install nginx-light lib"):
        installed()
    (tmp_path / rtmp_nginx.MODULE).touch()
    assert installed() == ("/usr/sbin/nginx", str(tmp_path / rtmp_nginx.MODULE))
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(ConfigError, match="needs nginx: apt-get"):
        installed()


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=f"rtmp_listen: TCP {listen} cannot be bound"):
            free(listen)
    assert free("127.0.0.1:0")[1] > 0
