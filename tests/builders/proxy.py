"""A proxy in front of a service, as long as a test runs: Debian's nginx, or another program."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@contextlib.contextmanager
def nginx(servers: str, folder: Path, port: int) -> Iterator[None]:
    """Run nginx with these server blocks until the end of the block.

    Args:
        servers: what stands within `http { }`.
        folder: for its files.
        port: one that it listens on.
    """
    paths = "".join(f"{name}_temp_path {folder}/{name};" for name in _FOLDERS)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\n"
        f"events {{ }}\nhttp {{ access_log off; {paths}\n{servers}\n}}\n"
    )
    with subprocess.Popen([NGINX, "-e", "stderr", "-p", str(folder), "-c", str(config)]) as process:
        yield from serving_at(process, port)


def serving_at(process: subprocess.Popen[bytes], port: int) -> Iterator[None]:
    """Yield once, when a process takes connections on a port of loopback; then end it."""
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, f"{process.args!r} has ended"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
