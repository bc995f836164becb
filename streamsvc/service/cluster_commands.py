"""The commands of a cluster: `streamsvc cluster serve-models`."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from streamsvc.core import config, web_address
from streamsvc.core.errors import ConfigError
from streamsvc.service import ray_models
from streamsvc.workers import ray_deployment

cluster = typer.Typer(no_args_is_help=True, help="Many machines: models on Ray Serve.")


def register(app: typer.Typer) -> None:
    """Add `cluster` to the command line."""
    app.add_typer(cluster, name="cluster")


@cluster.command("serve-models")
def serve_models(
    address: Annotated[
        str | None,
        typer.Option(
            help='Of Ray: "auto", HOST:PORT of its head, or "local": start one here, until this command '
            "ends. Default: workers.address."
        ),
    ] = None,
    worker: Annotated[
        list[str] | None, typer.Option(help="hear, see, think or sight alone (repeatable); else all.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("--config", envvar="STREAMSVC_CONFIG", help="TOML file with settings.")
    ] = None,
) -> None:
    """Deploy the models of the settings on Ray Serve; nodes find them with workers.transport = "ray"."""
    settings = config.read(config_file)
    where = address or settings.workers.address
    if where != ray_deployment.LOCAL:
        try:
            web_address.ray_cluster(where)
        except ValueError as error:
            raise ConfigError(f"--address: {error}") from None
    try:
        workers = ray_models.deploy(settings, where, worker or ())
        at = ray_deployment.address()
        print(f"ready: {', '.join(workers)} on Ray at {at}", flush=True)
        if where == ray_deployment.LOCAL:
            _until_signal()
    finally:
        ray_deployment.disconnect()


def _until_signal() -> None:
    """Wait for SIGINT or SIGTERM."""
    came: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: came.append(number))
    # No threading.Event: a signal just before its wait does not end it, and one within may lock it for good.
    while not came:
        time.sleep(0.2)
