"""How Debian's TURN server (coturn) is started for a test."""

from __future__ import annotations

from pathlib import Path


def coturn_command(folder: Path, address: str, port: int, secret: str) -> list[str]:
    """A TURN server at an address, which takes credentials of a secret; its files are in `folder`."""
    return f"""turnserver -n --use-auth-secret --static-auth-secret={secret} --realm=example.org
        --no-cli --no-tls --no-dtls --listening-ip={address} --relay-ip={address} --listening-port={port}
        --pidfile={folder}/turn.pid --userdb={folder}/turn.db --log-file=stdout""".split()
