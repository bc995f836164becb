"""`streamsvc token`: a token of the service with this key, made without asking it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamsvc.core import config
from streamsvc.core.errors import ConfigError
from streamsvc.core.types import Grants
from streamsvc.service.auth import OWNER, PERMISSIONS, Auth
from streamsvc.service.broadcast_ids import check_name


def token(
    name: Annotated[str, typer.Argument(help='Of the session, or "*" for all.')],
    may: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(PERMISSIONS)} (repeatable; publish).")
    ] = None,
    hours: Annotated[float, typer.Option(help="That it is valid, 24 at most.")] = 24.0,
    short: Annotated[bool, typer.Option("--short", help="For a stream key: about 100 characters.")] = False,
    config_file: Annotated[
        Path | None, typer.Option("--config", envvar="STREAMSVC_CONFIG", help="TOML file with settings.")
    ] = None,
) -> None:
    """Print a token; what it may, for how long, and its id stand beside it (stderr)."""
    server = config.load(config_file).server
    if server.api_key is None:
        raise ConfigError("without a key (STREAMSVC_SERVER__API_KEY) the service asks for no token")
    if name != "*":
        check_name(name)
    owner = Grants("owner", "*", frozenset(PERMISSIONS), None, OWNER)
    wanted = tuple(may or ("publish",))
    made = Auth(server).token(owner, session=name, may=wanted, seconds=hours * 3600, short=short)
    typer.echo(f"{', '.join(wanted)} for {name}, {made.seconds / 3600:g} h; jti {made.id}", err=True)
    typer.echo(made.token)
