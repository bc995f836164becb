"""The command line: serve, watch, ask, transcribe, models, token, eval, replay, bench.

`token` is defined in streamsvc/service/token_command.py, the last three in streamsvc/evaluation/commands.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import streamsvc
from streamsvc.core import clock, config, malloc
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.core.logs import configure_logs
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.types import Cue, Gap
from streamsvc.evaluation import commands
from streamsvc.ingest import source_process
from streamsvc.ingest.source import Source, open_source
from streamsvc.service import app as http_app
from streamsvc.service import cluster_commands, terminal, token_command
from streamsvc.service import doctor as doctor_checks
from streamsvc.service.certificate import certificate
from streamsvc.service.http_server import Listener
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.speech import captions

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help=streamsvc.__doc__, pretty_exceptions_enable=False
)
HURRY_SECONDS = 1.5  # after a second signal
TRIM_INTERVAL = 60.0  # seconds between two calls of malloc.trim
# Bytes. Small, so that backpressure of a slow subscriber shows in its queue, not in the kernel.
_SEND_BUFFER = 64 * 1024

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="STREAMSVC_CONFIG", help="TOML file with settings.")
]
Ask = Annotated[
    list[str] | None, typer.Option("--ask", help="Ask this when the source has ended (repeatable).")
]


def main() -> None:
    """Entry point of `streamsvc`. A StreamsvcError is printed as one line; exit status 2."""
    hint = terminal.json_hint(sys.argv[1:])
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app()
    except StreamsvcError as error:
        console.print("[red]error:[/red]", end=" ")
        console.print(f"{error.message}; {hint}" if hint else error.message, markup=False)
        raise SystemExit(2) from None
    except SystemExit as ended:
        if ended.code == 2 and hint:
            console.print(hint, markup=False)
        raise


def _print_version(requested: bool) -> None:
    if requested:
        print(f"streamsvc {streamsvc.__version__}")
        raise typer.Exit


@app.callback()
def _before_command(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    configure_logs(as_json=False)


# --- serve --------------------------------------------------------------------------------------------------


@app.command()
def serve(  # typer: one parameter an option
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; anything but a loopback address needs a key.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0: any free one.")] = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option("--sources", help="Folder below which file: sources may lie (repeatable)."),
    ] = None,
    tls: Annotated[
        str | None, typer.Option("--tls", help='"self-signed": make a certificate at start.')
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="Private key, PEM.")] = None,
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where sessions are kept.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Record sessions, for `replay`.")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Logs as JSON lines.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Serve the page, WHIP, the event socket and the REST interface."""
    configure_logs(as_json=log_json)
    if tls not in (None, "self-signed"):
        raise ConfigError(
            f'--tls is "self-signed", not {tls!r}; for your own certificate use --tls-cert and --tls-key'
        )
    flags = {
        "host": host,
        "port": port,
        "sources": tuple(sources) if sources else None,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_self_signed": tls == "self-signed" or None,
        "data_dir": data_dir,
    }
    groups = {"server": {name: value for name, value in flags.items() if value is not None}}
    settings = config.load(config_file, **groups, **({"store": {"record": "all"}} if record else {}))
    for folder in settings.server.sources:
        if not folder.is_dir():
            raise ConfigError(f"--sources {folder}: there is no such folder")
    asyncio.run(_serve(settings))


async def tend_memory() -> None:
    """Keep what is loaded out of garbage collections; return freed memory every TRIM_INTERVAL seconds.

    The heap of a session fragments by some MB an hour of stream.
    """
    malloc.freeze()
    while True:
        await clock.sleep(TRIM_INTERVAL)
        malloc.trim()


async def _serve(settings: config.Settings) -> None:
    malloc.fix_mmap_threshold()
    malloc.freeze()  # nobody waits yet; `tend_memory` then has little to look through
    await asyncio.to_thread(source_process.tell_sandbox, settings.ingest.sandbox)
    with contextlib.closing(_listen(settings.server.host, settings.server.port)) as listener:
        async with http_app.listening(settings, listener, certificate(settings)) as (service, serving):
            stop, hurry, patience = asyncio.Event(), asyncio.Event(), 0.0

            def on_signal(number: int) -> None:
                nonlocal patience
                if stop.is_set():
                    hurry.set()
                    asyncio.get_running_loop().call_later(HURRY_SECONDS, os._exit, 1)
                patience = settings.server.drain_seconds if number == signal.SIGTERM else 0.0
                stop.set()

            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
            await _first(service.ready(), stop.wait(), serving)
            if not stop.is_set() and not serving.done():
                _announce(settings, listener)
                await _first(stop.wait(), serving, tend_memory())
            if patience and service.sessions.live:
                await _first(service.drain(patience=patience), hurry.wait(), serving)


async def _first(*awaitables: Any) -> None:
    """Wait for the first to finish and raise its error; cancel the others, except tasks of the caller."""
    tasks = [item if isinstance(item, asyncio.Task) else asyncio.create_task(item) for item in awaitables]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, item in zip(tasks, awaitables, strict=True):
        if task is not item and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for task in done:
        task.result()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns TCP_NODELAY on: an answer on a kept connection is 40 ms earlier.
    listener = Listener(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port",
            code="port_in_use",
        ) from None
    listener.setblocking(False)
    return listener


def _announce(settings: config.Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    print(terminal.ready_line(settings.server, host, port), flush=True)


# --- watch, ask and transcribe ------------------------------------------------------------------------------


async def _opened(settings: config.Settings, source: str) -> Source:
    """Open a source and close it, before the models load. Raises SourceError."""
    opened = await open_source(
        source, settings.ingest, session="", roots=None, private_urls=settings.server.private_urls
    )
    await opened.close()
    return opened


@contextlib.asynccontextmanager
async def _playing(
    settings: config.Settings, source: str, speed: float | None, *, language: str | None, sees: bool
) -> AsyncIterator[tuple[Service, Session]]:
    """A session that plays one source, without the HTTP interface."""
    async with Service(settings, at_once=("hear", "see") if sees else ("hear",), keeps=False) as service:
        await service.ready()
        yield (
            service,
            await service.sessions.create(
                source,
                SessionOptions(SpeechOptions(language=language), VisionOptions(enabled=sees), stored=False),
                speed=speed,
                roots=None,
            ),
        )


@app.command()
def watch(
    source: Annotated[str, typer.Argument(help="File, rtsp://… or http(s)://… (HLS too).")],
    at_end: Ask = None,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line.")] = False,
    speed: Annotated[str, typer.Option(help='Of a file: 1 is real time, "max" as fast as possible.')] = "1",
    language: Annotated[str | None, typer.Option(help="Of the speech, e.g. en.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Live captions, scenes and answers in the terminal."""
    configure_logs(as_json=as_json, level=logging.WARNING)
    # Private addresses are allowed: the source is the user's own argument.
    settings = config.load(config_file, server={"private_urls": True})
    asyncio.run(_watch(settings, source, _speed(speed), at_end or [], as_json=as_json, language=language))


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 100:
        raise ConfigError(f'--speed is a number from 0.1 to 100, or "max", not {text!r}')
    return value


async def _watch(
    settings: config.Settings,
    source: str,
    speed: float | None,
    ask: list[str],
    *,
    as_json: bool,
    language: str | None,
) -> None:
    await _opened(settings, source)
    with terminal.EventPrinter(as_json) as printer:
        async with _playing(settings, source, speed, language=language, sees=True) as (_, session):
            subscription = session.log.subscribe(client="terminal")
            entries, _ = await session.log.since(0, None, session.log.seq)
            batch: list[tuple[int | None, str]] | None = subscription.replay(entries)
            subscription.skip_to(session.log.seq)
            asked = session.answering.queue.ask_at_end(ask, client="terminal")
            printer.expect(dict(zip(asked, ask, strict=True)))
            while batch is not None:
                for _, text in batch:
                    printer.show(json.loads(text))
                batch = await subscription.next()
    if printer.failure is not None:
        raise StreamsvcError(printer.failure)


@app.command()
def ask(
    session: Annotated[
        str, typer.Argument(help="Id of a session, its address, or the page's: http://HOST/#session=ID")
    ],
    question: Annotated[str, typer.Argument(help="In plain words.")],
    token: Annotated[
        str, typer.Option(envvar="STREAMSVC_TOKEN", help="Where the service asks for one.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="The answer.done event.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Ask a running service about a session. Exit status 1: it declines to answer."""
    configure_logs(as_json=as_json, level=logging.WARNING)
    server = config.load(config_file).server
    url = terminal.questions_url(session, f"http://{server.host}:{server.port}")
    if not asyncio.run(terminal.show_answer(terminal.ask(url, question, token), as_json=as_json)):
        raise typer.Exit(1)


@app.command()
def transcribe(
    file: Annotated[str, typer.Argument(help="Any media file with sound.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="*.srt, *.vtt or *.json")],
    language: Annotated[str | None, typer.Option(help="Of the speech, e.g. en.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Captions of a whole file, as fast as possible."""
    write: dict[str, Callable[[Sequence[Cue], Iterable[Gap]], str]] = {
        ".srt": lambda cues, gaps: captions.to_srt(cues),
        ".vtt": captions.to_vtt,
        ".json": lambda cues, gaps: json.dumps(captions.to_json(cues), ensure_ascii=False),
    }
    if output.suffix not in write:
        raise ConfigError(f"{output}: the name must end with .srt, .vtt or .json")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}")
    settings = config.load(config_file)

    async def run() -> Session:
        source = await _opened(settings, file)
        if all(track.kind != "audio" for track in source.tracks):
            raise ConfigError(f"{file} has no sound")
        async with (
            _playing(settings, file, None, language=language, sees=False) as (_, session),
            asyncio.TaskGroup() as group,
        ):
            subscription = session.log.subscribe(["session.closed"])
            drawing = group.create_task(
                terminal.show_progress(
                    Path(file).name,
                    source.duration,
                    lambda: session.clock.position() - session.speech.backlog,
                )
            )
            while await subscription.next() is not None:
                pass
            drawing.cancel()
            return session

    session = asyncio.run(run())
    if (failed := session.failure) is not None:
        raise failed
    partial = output.with_suffix(output.suffix + ".part")
    gaps = session.timeline.gaps
    partial.write_text(write[output.suffix](session.dispatcher.cues, gaps), encoding="utf-8")
    partial.replace(output)
    print(f"{len(session.dispatcher.cues)} captions in {output}")
    for gap in gaps:
        print(f"not captioned: {gap.start:.1f} to {gap.end:.1f} s ({gap.reason})")


commands.register(app)  # eval, replay and bench
cluster_commands.register(app)
app.command()(token_command.token)


# --- doctor -------------------------------------------------------------------------------------------------


@app.command()
def doctor(config_file: ConfigFile = None) -> None:
    """Check ports, ICE, TLS, weights, GPU, clock, disk, memory. Exit status 1: there is a fault."""
    if asyncio.run(doctor_checks.show(config.load(config_file))):
        raise typer.Exit(1)


# --- models -------------------------------------------------------------------------------------------------


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def models(
    context: typer.Context,
    do: Annotated[str, typer.Argument(help="list, pull or verify; then names, --all, or --chat NAME.")],
    config_file: ConfigFile = None,
) -> None:
    """List, fetch and check the models' weights."""
    folder = config.read(config_file).models.dir / "models"
    # By dotted name: no static import of engines.
    command: Any = importlib.import_module("engines.models_command")
    status = command.main([do, *context.args, "--dir", str(folder)])
    if do == "pull" and status == 0 and command.is_complete(folder):
        importlib.import_module("engines.prepare").prepare(folder)
    raise typer.Exit(status)


if __name__ == "__main__":
    main()
