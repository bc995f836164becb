"""Debian's nginx with libnginx-mod-rtmp as the program of the RTMP door: its configuration and how it starts.

One process without a master, so that its death is seen, as our user. It logs nothing. It asks us of each
publisher and player over a Unix socket in a folder of ours (0700), with a secret in the path.

(It could inherit ports that we have bound, but without a master it then crashes: nginx 1.22.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from streamsvc.core import clock, web_address
from streamsvc.core.errors import ConfigError
from streamsvc.ingest.door_process import Start

MODULE = "ngx_rtmp_module.so"
_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/nginx/modules")
_PATH = "/usr/sbin:/usr/local/sbin"  # where nginx is, and PATH of an ordinary user is not
APPLICATION = "live"
CONNECTIONS = 512  # security limit: publishers, players and questions to us together
MESSAGE_BYTES = 4 << 20  # security limit: of one RTMP message, such as a keyframe
UPDATE_SECONDS = 2  # between questions whether a publisher may go on
HANDSHAKE = b"\x03" + bytes(1536)  # C0 and C1 of RTMP
_RETRY_SECONDS = 0.05


def installed() -> tuple[str, str]:
    """Paths of nginx and of its RTMP module. Raises ConfigError: one is missing."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{_PATH}")
    module = next((path for folder in _FOLDERS if (path := Path(folder) / MODULE).is_file()), None)
    if program is None or module is None:
        missing = "nginx" if program is None else f"its module {MODULE}"
        raise ConfigError(
            f"ingest.rtmp_listen needs {missing}: apt-get install nginx-light libnginx-mod-rtmp",
            code="no_door",
        )
    return program, str(module)


def free(listen: str) -> tuple[str, int]:
    """The address and port, which nobody has; port 0: a free one. Raises ConfigError: it cannot be bound."""
    host, port = web_address.host_and_port(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return host, probe.getsockname()[1]
    except OSError as error:
        raise ConfigError(
            f"ingest.rtmp_listen: TCP {listen} cannot be bound: {error.strerror}", code="no_door"
        ) from None


@dataclass(frozen=True, slots=True)
class RtmpNginx:
    """See door_process.Program.

    Attributes:
        public: address and port for publishers.
        play_port: on 127.0.0.1, for our own players.
        hooks: path of the Unix socket on which it asks us.
        secret: that it shows there.
        idle_seconds: without media, after which a publisher is disconnected.
    """

    public: tuple[str, int]
    play_port: int
    hooks: Path
    secret: str
    idle_seconds: float
    name: str = "rtmp"

    def prepare(self, folder: Path) -> Start:
        """See Program."""
        program, module = installed()
        path = folder / "nginx.conf"
        path.write_text(self._configuration(module), encoding="utf-8")
        path.chmod(0o600)
        return Start((program, "-p", str(folder), "-e", "stderr", "-c", str(path)))

    def _configuration(self, module: str) -> str:
        """What it may do: take publishers, whom we allow, and play to us. It keeps and logs nothing."""
        ask = f"http://unix:{self.hooks}:/{self.secret}"
        host, port = self.public
        public = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return (
            f"load_module {module};\n"
            "daemon off;\nmaster_process off;\nerror_log stderr emerg;\npid nginx.pid;\n"
            f"events {{ worker_connections {CONNECTIONS}; }}\n"
            "rtmp {\n  access_log off;\n  server {\n"
            f"    listen {public};\n    listen 127.0.0.1:{self.play_port};\n"
            f"    max_message {MESSAGE_BYTES};\n    chunk_size 4096;\n    timeout {_ms(self.idle_seconds)};\n"
            f"    application {APPLICATION} {{\n      live on;\n      wait_key off;\n"
            f"      drop_idle_publisher {_ms(self.idle_seconds)};\n"
            "      allow play 127.0.0.1;\n      deny play all;\n"
            "      notify_method post;\n"
            f"      notify_update_timeout {UPDATE_SECONDS}s;\n      notify_update_strict on;\n"
            f"      on_publish {ask};\n      on_play {ask};\n      on_update {ask};\n"
            f"      on_publish_done {ask};\n"
            "    }\n  }\n}\n"
        )

    async def ready(self, folder: Path) -> None:
        """See Program: it answers a handshake."""
        while True:
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.play_port)
                try:
                    writer.write(HANDSHAKE)
                    await reader.readexactly(1)
                    return
                finally:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()
            await clock.sleep(_RETRY_SECONDS)


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
