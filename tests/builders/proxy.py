"""Debian's nginx in front of a service, as long as a test runs."""

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


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


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
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert process.poll() is None, "nginx has ended"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(10)
