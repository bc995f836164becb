"""The image of deploy/Dockerfile, built and run as compose.yaml runs it: does the service work confined so?

    python -m load_tests.container [--folder FOLDER] [--keep] [--recording FILE] [--json FILE]

mmdebstrap makes the base, so that no image hub is needed; podman builds all stages of the Dockerfile, and
runs what the services `weights` and `streamsvc` of compose.yaml say: root read-only, no capabilities, no
new privileges, /tmp a tmpfs, weights in a volume. `doctor` runs with podman's seccomp profile and with the
rule of Docker's, which allows no namespaces; the service runs with the latter, in a network that leads
nowhere (Caddy, coturn and the others are not run). A file is uploaded, and a publisher (aiortc) reaches the
service through published ports. Then SIGTERM, with the session live.
Promise: each check holds. Exit status 1: one does not. Needs root, packages of Debian, 12 GB of disk, a
quarter of an hour. In the end all that was made is removed; --keep leaves the images for a run with the
same --folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import yaml

from load_tests import container_engine, report
from load_tests.container_engine import DOCKERFILE, IMAGE, Engine, run_flags
from load_tests.hearing import MEDIA
from load_tests.reach import KEY, RECORDING
from load_tests.subscriber import Subscriber
from streamsvc.core.config import Server
from streamsvc.evaluation.markdown import markdown_table
from tests.builders.service import open_session

COMPOSE = DOCKERFILE.with_name("compose.yaml")
NAME, NETWORK, PORT, MEDIA_PORTS = "streamsvc-checked", "outside", 8080, "50000-50031"
USER = "10001:10001"
START_SECONDS = 400.0  # the first start measures runtimes
CAPTION_SECONDS = 120.0
CHAT = "smollm2-135m-instruct"  # the one that lies in a package
_WRITES = """
import os
for folder in ("/", "/etc", "/opt/streamsvc", "/run", "/var/tmp", "/dev/shm", "/tmp", "/var/lib/streamsvc"):
    try:
        with open(f"{folder}/written", "w"):
            os.unlink(f"{folder}/written")
    except OSError:
        continue
    print(folder)
"""
_WRITABLE = ["/dev/shm", "/tmp", "/var/lib/streamsvc"]  # /dev/shm: every container has it, 64 MB
_CONFINED = {"CapPrm": "0", "CapEff": "0", "CapBnd": "0", "NoNewPrivs": "1", "Seccomp": "2"}


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, whether it holds, and what was seen."""

    name: str
    holds: bool
    seen: str


@dataclass(slots=True)
class Found:
    """Seconds by step, the image's size, and the checks in order."""

    seconds: dict[str, float] = field(default_factory=dict)
    image_mb: float = 0.0
    checks: list[Check] = field(default_factory=list)

    def add(self, name: str, holds: bool, seen: str) -> None:
        """Note a check."""
        self.checks.append(Check(name, holds, seen))
        print(self.checks[-1], file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Compose:
    """What compose.yaml says of the service: flags of `podman run`, its address, its subnet."""

    weights: list[str]
    pull: list[str]  # the command
    service: list[str]
    address: str
    subnet: str

    @property
    def gateway(self) -> str:
        """The near end of the subnet, where published ports are reached too."""
        return self.subnet.rpartition(".")[0] + ".1"


def composed(document: dict[str, Any], descriptors: int) -> Compose:
    """Read a compose.yaml. The service gets no TURN servers: coturn is another container."""
    services, (network,) = document["services"], document["networks"][NETWORK]["ipam"]["config"]
    subnet = network["subnet"]
    here = subnet.rpartition(".")[0] + ".1"
    values = {"API_KEY": KEY, "METRICS_KEY": f"{KEY}-of-metrics", "DOMAIN": here, "PUBLIC_IP": here}
    values |= {"TURN_SECRET": "", "CHAT_MODEL": CHAT}
    one, two = services["weights"], services["streamsvc"]
    alone = {key: value for key, value in two["environment"].items() if "__TURN__" not in key}
    return Compose(
        run_flags(one, values, descriptors),
        [container_engine.interpolated(word, values) for word in one["command"]],
        run_flags({**two, "environment": alone}, values, descriptors),
        two["networks"][NETWORK]["ipv4_address"],
        subnet,
    )


def unconfined(statuses: Sequence[str]) -> list[str]:
    """Lines of /proc/PID/status files that grant more than is promised."""
    wrong = []
    for status in statuses:
        has = {key: value.strip() for key, _, value in (line.partition(":") for line in status.splitlines())}
        wrong += [
            f"{key} {has[key]}"
            for key, value in _CONFINED.items()
            if has[key].lstrip("0") != value.lstrip("0")
        ]
        if set(has["Uid"].split()) != {USER.partition(":")[0]}:
            wrong.append(f"Uid {has['Uid']}")
    return wrong


def errors(log: str) -> list[str]:
    """The events of a JSON log that are errors, with a line that is no JSON."""
    wrong = []
    for line in log.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            if "Traceback" in line:
                wrong.append(line)
            continue
        if isinstance(told, dict) and told.get("level") in ("error", "critical"):
            wrong.append(str(told.get("event")))
    return wrong


# --- the container ------------------------------------------------------------------------------------------


def doctor(engine: Engine, compose: Compose, found: Found, profiles: dict[str, list[str]]) -> None:
    """What `streamsvc doctor` says with each seccomp profile."""
    for profile, flags in profiles.items():
        how = ["--rm", "--no-healthcheck", "--network=none", *compose.service, *flags]
        told = engine.run("run", *how, IMAGE, "doctor", check=False)
        sandbox = [line for line in told.stdout.splitlines() if " sandbox " in line]
        print(told.stdout, file=sys.stderr)
        confined = "seccomp" in sandbox[0].partition("not to be had")[0] if sandbox else False
        seen = " ".join(" ".join(sandbox).split())
        found.add(f"doctor, seccomp of {profile}", told.returncode == 0 and confined, seen)


@contextlib.contextmanager
def container(engine: Engine, compose: Compose, flags: Sequence[str]) -> Iterator[None]:
    """The service's container, in a network that leads nowhere, with published ports; the image's command."""
    engine.run("network", "create", f"--subnet={compose.subnet}", f"--gateway={compose.gateway}", NETWORK)
    ports = [f"--publish={PORT}:{PORT}", f"--publish={MEDIA_PORTS}:{MEDIA_PORTS}/udp"]
    where = [
        f"--name={NAME}",
        f"--network={NETWORK}",
        f"--ip={compose.address}",
        "--detach",
        "--no-healthcheck",
    ]
    engine.run("run", *where, *ports, *compose.service, *flags, IMAGE)
    try:
        yield
    finally:
        engine.run("rm", "--force", "--time=0", NAME, check=False)
        engine.run("network", "rm", "--force", NETWORK, check=False)


def look_inside(engine: Engine, found: Found) -> None:
    """User, what can be written, what the processes may do, and the image's health check."""
    user = engine.ask("exec", NAME, "sh", "-c", "echo $(id -u):$(id -g)")
    found.add("user", user == USER, user)
    written = engine.ask("exec", NAME, "python3", "-c", _WRITES).split()
    found.add("writable folders", written == _WRITABLE, " ".join(written))
    first = psutil.Process(int(engine.ask("inspect", "--format={{.State.Pid}}", NAME)))
    statuses = []
    for process in (first, *first.children(recursive=True)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            statuses.append(Path(f"/proc/{process.pid}/status").read_text())
    wrong = unconfined(statuses)
    seen = f"{len(statuses)} processes: no capability, no new privileges, seccomp"
    found.add("confinement", not wrong, ", ".join(wrong) or seen)
    _, *check = json.loads(engine.ask("image", "inspect", "--format={{json .HealthCheck.Test}}", IMAGE))
    healthy = engine.run("exec", NAME, *check, check=False).returncode
    found.add("health check", healthy == 0, f"exit status {healthy}")


async def ready(client: httpx.AsyncClient, running: Callable[[], bool]) -> float | None:
    """Seconds until /readyz says 200; None: it did not, or the container has ended."""
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS and running():
        with contextlib.suppress(httpx.HTTPError):
            if (await client.get("/readyz")).status_code == 200:
                return time.monotonic() - began
        await asyncio.sleep(1)
    return None


@contextlib.asynccontextmanager
async def published(
    client: httpx.AsyncClient, found: Found, recording: Path, server: str
) -> AsyncIterator[None]:
    """A live session with a publisher that speaks, once it is captioned."""
    session = await open_session(client, language="en")
    whip = urlsplit((await client.get(f"/v1/sessions/{session}")).json()["whip_url"]).path
    command = (sys.executable, "-m", "load_tests.reach", "--publish", server + whip, str(recording), "host")
    async with Subscriber(server, session, KEY, types="caption.final") as reader:
        began = time.monotonic()
        publisher = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            came = await reader.until(lambda one: bool(one.event.get("words")), CAPTION_SECONDS)
            seen = "none" if came is None else f"{came.at - began:.1f} s after the publisher's start"
            found.add("caption.final by WHIP", came is not None, seen)
            yield
        finally:
            if publisher.returncode is None:
                publisher.kill()
            await publisher.wait()


async def uploaded(client: httpx.AsyncClient, found: Found, recording: Path) -> None:
    """A file by /v1/listen: it is read by the sandbox of sources."""
    content = await asyncio.to_thread(recording.read_bytes)
    began = time.monotonic()
    answer = await client.post("/v1/listen", params={"language": "en"}, content=content)
    words = 0
    if answer.status_code == 200:
        words = len(answer.json()["results"]["channels"][0]["alternatives"][0]["words"])
    seen = f"status {answer.status_code}, {words} words, {time.monotonic() - began:.1f} s"
    found.add("a file by /v1/listen", words > 0, seen)


async def used(engine: Engine, found: Found, recording: Path, upload: Path) -> None:
    """Use the service that runs, and end it while a session is live."""

    def running() -> bool:
        return engine.ask("inspect", "--format={{.State.Running}}", NAME) == "true"

    server = f"http://127.0.0.1:{PORT}"
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=server, timeout=120, headers=headers) as client:
        seconds = await ready(client, running)
        found.add(
            "/readyz", seconds is not None, "never" if seconds is None else f"200 after {seconds:.0f} s"
        )
        if seconds is None:
            print(engine.run("logs", NAME).stdout[-3000:], file=sys.stderr)
            return
        await asyncio.to_thread(look_inside, engine, found)
        await uploaded(client, found, upload)
        async with published(client, found, recording, server):
            began = time.monotonic()
            await asyncio.to_thread(engine.run, "stop", NAME)
            seconds = time.monotonic() - began
    status = engine.ask("inspect", "--format={{.State.ExitCode}}", NAME)
    # podman kills after stop_grace_period: status 137.
    drain = f"the drain may take {Server().drain_seconds:.0f} s"
    found.add(
        "SIGTERM, a session live", status == "0", f"exit status {status} after {seconds:.0f} s; {drain}"
    )
    logs = engine.run("logs", NAME)
    wrong = errors(logs.stdout + logs.stderr)
    found.add("log", not wrong, "; ".join(wrong[:3]) or "no error")


def measured(engine: Engine, recording: Path, upload: Path) -> Found:
    """Base, build, weights, and what is seen of the service."""
    found = Found()
    compose = composed(yaml.safe_load(COMPOSE.read_text()), container_engine.descriptors())
    found.seconds["base"] = engine.base()
    found.seconds["build"] = engine.build(DOCKERFILE)
    found.image_mb = int(engine.ask("image", "inspect", "--format={{.Size}}", IMAGE)) / 1e6
    found.seconds["weights"] = engine.pull(compose.weights, compose.pull)
    print(found, file=sys.stderr, flush=True)
    strict = [f"--security-opt=seccomp={container_engine.strict_profile(engine.folder)}"]
    container_engine.leave_network()
    doctor(engine, compose, found, {"podman": [], "Docker's rule": strict})
    with container(engine, compose, strict):
        asyncio.run(used(engine, found, recording, upload))
    return found


def verdict(found: Found) -> list[str]:
    """What does not hold; [] if everything does."""
    return [f"{check.name}: {check.seen}" for check in found.checks if not check.holds]


def told(found: Found) -> str:
    """The steps' seconds and the checks."""
    steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in found.seconds.items())
    rows = [(check.name, "yes" if check.holds else "no", check.seen) for check in found.checks]
    return f"{steps}; image {found.image_mb:.0f} MB\n\n{markdown_table(('check', 'holds', 'seen'), rows)}"


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--folder", type=Path, help="for images and containers (default: a temporary one)")
    parser.add_argument("--keep", action="store_true", help="leave the folder's images for another run")
    parser.add_argument("--recording", type=Path, default=MEDIA / RECORDING, help="that is published")
    parser.add_argument("--upload", type=Path, default=MEDIA / "speech/harvard.flac", help="that is uploaded")
    chosen = parser.parse_args()
    if why := container_engine.missing():
        raise SystemExit(why)
    if chosen.keep and not chosen.folder:
        parser.error("--keep needs --folder")
    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="container-", dir="/var/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    engine = Engine(folder.resolve())
    try:
        found = measured(engine, chosen.recording.resolve(), chosen.upload.resolve())
    finally:
        if not chosen.keep:
            engine.remove()
    report.finish(told(found), found, verdict(found), chosen.json)


if __name__ == "__main__":
    main()
