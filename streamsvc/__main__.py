"""The command line: serve, watch, transcribe, eval, bench, models."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ipaddress
import json
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
from rich.console import Console

import streamsvc
from streamsvc.core import clock, config, malloc
from streamsvc.core.errors import ConfigError, StreamsvcError
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.types import SAMPLE_RATE, Cue
from streamsvc.evaluation import caption_bench, evaluate
from streamsvc.service import app as http_app
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.speech import captions

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help=streamsvc.__doc__, pretty_exceptions_enable=False
)
measures = typer.Typer(no_args_is_help=True, help="Measure models and machine on recordings of yours.")
app.add_typer(measures, name="bench")
TIDY = 60.0  # seconds between two times that freed memory is given back
_SEND_BUFFER = 64 * 1024  # bytes; so that a subscriber that does not read is noticed here, not in the kernel

ConfigFile = Annotated[
    Path | None, typer.Option("--config", envvar="STREAMSVC_CONFIG", help="TOML file with settings.")
]
Ask = Annotated[
    list[str] | None, typer.Option("--ask", help="Ask this when the source has ended (repeatable).")
]


def main() -> None:
    """Entry of `streamsvc`: errors of ours are one clear line and exit status 2."""
    try:
        app()
    except StreamsvcError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error.message}", highlight=False, soft_wrap=True)
        raise SystemExit(2) from None


def _logs(*, machine: bool) -> None:
    """Structured logs on stderr: JSON lines for a machine, coloured text for a person."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if machine
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_class,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiortc").setLevel(logging.ERROR)
    logging.getLogger("aioice").setLevel(logging.ERROR)


def _only_class(logger: Any, method: str, event: Any) -> Any:
    """Turn exc_info into the places of the traceback, without the message or values: they may quote what was said."""
    if event.pop("exc_info", None):
        error = sys.exc_info()[1]
        places = []
        while error is not None:
            trace = error.__traceback__
            while trace is not None:
                places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
                trace = trace.tb_next
            error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        event["places"] = places[-8:]
    return event


# --- serve ----------------------------------------------------------------------------------------------------------


@app.command()
def serve(
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
    log_json: Annotated[bool, typer.Option("--log-json", help="Logs as JSON lines.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Serve the page, WHIP, the event socket and the REST doors."""
    _logs(machine=log_json)
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
    settings = config.load(
        config_file, server={name: value for name, value in flags.items() if value is not None}
    )
    for folder in settings.server.sources:
        if not folder.is_dir():
            raise ConfigError(f"--sources {folder}: there is no such folder")
    asyncio.run(_serve(settings))


async def tidy() -> None:
    """From time to time give back what was freed: what a session remembers leaves holes in the heap, some MB an hour of stream."""
    while True:
        await clock.sleep(TIDY)
        malloc.trim()


async def _serve(settings: config.Settings) -> None:
    malloc.fix_mmap_threshold()
    with contextlib.closing(_listen(settings.server.host, settings.server.port)) as listener:
        async with http_app.listening(settings, listener, _certificate(settings)) as (service, serving):
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await _first(service.ready(), stop.wait(), serving)
            if not stop.is_set() and not serving.done():
                _announce(settings, listener)
                await _first(stop.wait(), serving, tidy())


async def _first(*works: Any) -> None:
    """Wait for the first of several; its error is raised, the others (unless tasks already) are cancelled."""
    tasks = [work if isinstance(work, asyncio.Task) else asyncio.create_task(work) for work in works]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, work in zip(tasks, works, strict=True):
        if task is not work and not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    for task in done:
        task.result()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listener.bind((host, port))
        listener.listen(128)
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
    scheme = "https" if settings.server.tls_cert or settings.server.tls_self_signed else "http"
    shown = f"[{host}]" if ":" in host else host
    print(f"ready, open {scheme}://{shown}:{port}", flush=True)


def _certificate(settings: config.Settings) -> tuple[str, str] | None:
    if settings.server.tls_cert is not None and settings.server.tls_key is not None:
        for path in (settings.server.tls_cert, settings.server.tls_key):
            if not path.is_file():
                raise ConfigError(f"the TLS file {path} does not exist")
        return str(settings.server.tls_cert), str(settings.server.tls_key)
    if not settings.server.tls_self_signed:
        return None
    folder = settings.models.dir / "tls"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _self_signed(folder, settings.server.host)


def _self_signed(folder: Path, host: str) -> tuple[str, str]:
    """A fresh certificate for this host and localhost, valid for 30 days; the key never leaves the folder."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "streamsvc self-signed")])
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    with contextlib.suppress(ValueError):
        names.append(x509.IPAddress(ipaddress.ip_address(host)))
    now = clock.utc()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "cert.pem", folder / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(cert_path), str(key_path)


# --- watch and transcribe -------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _playing(
    settings: config.Settings, source: str, speed: float | None, *, language: str | None, sees: bool
) -> AsyncIterator[tuple[Service, Session]]:
    """A session of one source, without doors."""
    async with Service(settings, at_once=("hear", "see") if sees else ("hear",)) as service:
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
    ask: Ask = None,
    as_json: Annotated[bool, typer.Option("--json", help="One event a line.")] = False,
    speed: Annotated[str, typer.Option(help='Of a file: 1 is real time, "max" as fast as possible.')] = "1",
    language: Annotated[str | None, typer.Option(help="Of the speech, e.g. en.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Live captions, scenes and answers in the terminal."""
    _logs(machine=as_json)
    settings = config.load(
        config_file, server={"private_urls": True}
    )  # the user's own command may name the user's own network
    asyncio.run(_watch(settings, source, _speed(speed), ask or [], as_json=as_json, language=language))


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
    async with _playing(settings, source, speed, language=language, sees=True) as (_, session):
        subscription = session.log.subscribe(client="terminal")
        entries, _ = await session.log.since(0, None, session.log.seq)
        batch: list[tuple[int | None, str]] | None = subscription.replay(entries)
        subscription.skip_to(session.log.seq)
        screen = _Screen(as_json)
        session.answering.queue.ask_at_end(ask, client="terminal")
        while batch is not None:
            for _, text in batch:
                screen.show(json.loads(text))
            batch = await subscription.next()
    if screen.failure is not None:
        raise StreamsvcError(screen.failure)


class _Screen:
    """Prints events for a person, or as JSON lines."""

    def __init__(self, as_json: bool) -> None:
        self.failure: str | None = None
        self._json = as_json
        self._console = Console(highlight=False)
        self._open = False  # whether the cursor stands behind an open caption

    def show(self, event: dict[str, Any]) -> None:
        """Print one event."""
        if event["type"] == "session.closed" and "error" in event:
            self.failure = event["error"]["message"]
        if self._json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
            return
        match event["type"]:
            case "caption.partial" if self._console.is_terminal:
                self._console.print(
                    "\r\x1b[K" + event["text"][-self._console.width + 12 :], end="", style="dim", markup=False
                )
                self._open = True
            case "caption.final":
                self._line(event["start"], "", event["text"])
            case "scene.caption":
                self._line(
                    event["start"], "[model] " if event["by"] == "model" else "[seen] ", event["text"], "cyan"
                )
            case "screen.text" if event["lines"]:
                self._line(
                    event["first_seen"], "[screen] ", event["title"] or event["lines"][0]["text"], "green"
                )
            case "caption.gap":
                self._line(
                    event["start"],
                    "[gap] ",
                    f"{event['end'] - event['start']:.1f} s not captioned: {event['reason']}",
                    "yellow",
                )
            case "answer.done":
                self._line(
                    event["at"],
                    "[answer] ",
                    event["text"] or event.get("error", {}).get("message", ""),
                    "bold",
                )

    def _line(self, at: float, label: str, text: str, style: str = "") -> None:
        if self._open:
            self._console.print("\r\x1b[K", end="")
            self._open = False
        self._console.print(
            f"{int(at // 60):3d}:{at % 60:04.1f} {label}{text}", style=style, markup=False, soft_wrap=True
        )


@app.command()
def transcribe(
    file: Annotated[str, typer.Argument(help="Any media file with sound.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="*.srt, *.vtt or *.json")],
    language: Annotated[str | None, typer.Option(help="Of the speech, e.g. en.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Captions of a whole file, as fast as possible."""
    _logs(machine=False)
    write: dict[str, Callable[[list[Cue]], str]] = {
        ".srt": captions.to_srt,
        ".vtt": captions.to_vtt,
        ".json": lambda cues: json.dumps(captions.to_json(cues), ensure_ascii=False),
    }
    if output.suffix not in write:
        raise ConfigError(f"{output}: the name must end with .srt, .vtt or .json")
    if not output.parent.is_dir():
        raise ConfigError(f"{output}: there is no folder {output.parent}")
    settings = config.load(config_file)

    async def run() -> Session:
        async with _playing(settings, file, None, language=language, sees=False) as (_, session):
            if "audio" not in session.describe()["tracks"] and session.media.publisher is not None:
                raise ConfigError(f"{file} has no sound")
            subscription = session.log.subscribe(["session.closed"])
            while await subscription.next() is not None:
                pass
            return session

    session = asyncio.run(run())
    if (failed := session.failure) is not None:
        raise failed
    partial = output.with_suffix(output.suffix + ".part")
    partial.write_text(write[output.suffix](session.published.cues), encoding="utf-8")
    partial.replace(output)
    print(f"{len(session.published.cues)} captions in {output}")


# --- eval -----------------------------------------------------------------------------------------------------------


@app.command("eval")
def evaluate_command(
    targets: Annotated[
        list[str],
        typer.Argument(help=f"Files or folders of scenarios, or NAME:FOLDER: {', '.join(evaluate.SETS)}."),
    ],
    speed: Annotated[
        str, typer.Option(help='"max": on a clock that jumps, with fixed steps; 1: in real time, with ages.')
    ] = "max",
    rows: Annotated[
        int | None, typer.Option(min=1, help="Of each published set, evenly drawn; else all.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of the speech, e.g. en.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="*.svg: verdicts by kind, word errors by slice, ages.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Word errors, keyframes, screen text and answers against the truth of scenarios and published sets."""
    _logs(machine=False)
    if speed not in ("1", "max"):
        raise ConfigError(f'--speed is 1 or "max", not {speed!r}')
    _check_plot(plot)
    plan = evaluate.planned(targets, live=speed == "1", most=rows, language=language)
    progress = Console(stderr=True, highlight=False)
    report = evaluate.run(
        config.load(config_file), plan, lambda line: progress.print(line, markup=False, style="dim")
    )
    if plot is not None and (panels := evaluate.panels(report)):
        drawing: Any = importlib.import_module("engines.plot")  # by dotted name, as below
        plot.write_text(drawing.svg([drawing.Panel(**panel) for panel in panels]), encoding="utf-8")
    print(json.dumps(report) if as_json else evaluate.table(report))


def _check_plot(plot: Path | None) -> None:
    if plot is not None and (plot.suffix != ".svg" or not plot.parent.is_dir()):
        raise ConfigError(f"--plot {plot}: a name that ends with .svg, in a folder that is there")


# --- bench ----------------------------------------------------------------------------------------------------------


@measures.command("captions")
def bench_captions(
    recordings: Annotated[list[Path], typer.Argument(help="Media files with sound.")],
    truth: Annotated[
        Path | None,
        typer.Option(help="*.txt or *.json with what is said; else the nearest manifest.json above."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="A speech model, e.g. whisper-tiny.en.")] = None,
    runs: Annotated[int, typer.Option(min=1, max=100, help="Of each recording.")] = 1,
    speed: Annotated[
        str,
        typer.Option(
            help='1: in real time; "max": on a virtual clock that only the models\' CPU time moves.'
        ),
    ] = "1",
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Compare with faster-whisper on the whole file, the same weights."),
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Only the first seconds of each recording.")
    ] = None,
    chunk_ms: Annotated[
        int, typer.Option(min=20, max=100, help="Length of the pieces in which the audio comes.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Word errors, latency, steadiness and cost of live captions."""
    _logs(machine=False)
    if speed not in ("1", "max"):
        raise ConfigError(f'--speed is 1 or "max", not {speed!r}')
    if truth is not None and len(recordings) > 1:
        raise ConfigError("--truth belongs to one recording; for several, write a manifest.json beside them")
    settings = config.load(config_file, **({"hear": {"model": model}} if model else {}))
    plan = caption_bench.Plan(
        tuple(recordings), truth, runs, seconds, chunk_ms * SAMPLE_RATE // 1000, speed == "1", offline
    )
    progress = Console(stderr=True, highlight=False)
    rows, compared = caption_bench.captions(
        settings, plan, "engines.asr", lambda line: progress.print(line, markup=False, style="dim")
    )
    print(
        json.dumps(caption_bench.as_json(rows, compared, plan, settings.hear.model))
        if as_json
        else caption_bench.table(rows, compared, plan)
    )


@measures.command("vision")
def bench_vision(
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="*.svg: throughput and latency against the batch.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """The vision encoder by every runtime at batches of 1, 8 and 32, and what a session's looks cost."""
    _logs(machine=False)
    _check_plot(plot)
    settings = config.load(config_file)
    folder = settings.models.dir / "models"
    engine: Any = importlib.import_module("engines.bench_vision")  # by dotted name, as below
    progress = Console(stderr=True, highlight=False)
    options = {"models": str(folder), **settings.see.model_dump()}
    report = engine.measured(folder, options, lambda line: progress.print(line, markup=False, style="dim"))
    if plot is not None:
        plot.write_text(engine.plot(report), encoding="utf-8")
    print(json.dumps(engine.as_json(report)) if as_json else engine.table(report))


# --- models ---------------------------------------------------------------------------------------------------------


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def models(
    context: typer.Context,
    do: Annotated[str, typer.Argument(help="list, pull or verify; then names, or --all.")],
    config_file: ConfigFile = None,
) -> None:
    """List, fetch and check the models' weights."""
    folder = config.load(config_file).models.dir / "models"
    fetch: Any = importlib.import_module("engines.fetch")  # by dotted name: nothing here depends on engines
    status = fetch.main([do, *context.args, "--dir", str(folder)])
    if do == "pull" and status == 0 and not fetch.missing(fetch.defaults(), folder):
        importlib.import_module("engines.prepare").prepare(folder)
    raise typer.Exit(status)


if __name__ == "__main__":
    main()
