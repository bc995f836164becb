"""The images of deploy/ built and run without an image hub: mmdebstrap makes the base, podman does the rest.

Linux; needs root and Debian's packages. Everything lies in one folder and in a network namespace of its
own, and `Engine.remove` leaves nothing behind. Mirrors, proxies and certificates of apt and pip are the
machine's; pip's are shown to the build and do not get into the image.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
PROGRAMS = {  # and their packages
    "mmdebstrap": "mmdebstrap",
    "podman": "podman",
    "runc": "runc",
    "catatonit": "catatonit",  # podman run --init
    "ip": "iproute2",
    "iptables": "iptables",
}
SECCOMP = Path("/usr/share/containers/seccomp.json")  # podman's default
BASE, IMAGE = "localhost/streamsvc-base", "localhost/streamsvc"
_CERTIFICATES = "/run/pip-certificates.pem"
_PIP_OPTIONS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "constraint",
    "cert",
    "trusted-host",
    "proxy",
    "timeout",
)
_APT_OPTIONS = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
# System calls that Docker's default profile allows to CAP_SYS_ADMIN alone, and podman's to everybody.
_OF_ADMINISTRATORS = {"clone", "clone3", "mount", "pivot_root", "setns", "umount", "umount2", "unshare"}
_NAMESPACE_FLAGS = 0x7E020000  # of clone(2): CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NET = 0x40000000
_EPERM, _ENOSYS = 1, 38
# What podman leaves on a machine that never ran it. (/run/netns stays: others may use it by now.)
_TRACES = (
    *("/dev/shm/libpod_lock", "/run/containers", "/run/crun", "/run/libpod", "/run/runc"),
    *("/var/cache/containers", "/var/lib/cni", "/var/lib/containers"),
)


def missing() -> str | None:
    """Why no image can be built here; None: one can."""
    if os.geteuid():
        return "building and running an image needs root"
    lacking = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"apt-get install --no-install-recommends {' '.join(lacking)}" if lacking else None


# --- what this machine's apt and pip are told ---------------------------------------------------------------


def suite(dockerfile: str) -> str:
    """The Debian release of a Dockerfile's default base. Raises ValueError: it has none."""
    if found := re.search(r"^ARG BASE=\S+/debian:([a-z]+)-slim$", dockerfile, re.MULTILINE):
        return found[1]
    raise ValueError("the Dockerfile's BASE is no debian:SUITE-slim")


def apt_sources(release: str) -> list[str]:
    """Debian's package sources of this machine, where it runs this release; []: mmdebstrap's default."""
    if f"VERSION_CODENAME={release}\n" not in Path("/etc/os-release").read_text():
        return []
    places = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
    return [str(place) for place in places if place.is_file()][:1]


def apt_options(dump: str) -> str:
    """The settings of `apt-config dump` that say how packages are fetched, as an apt.conf."""
    return "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(_APT_OPTIONS))


def pip_settings(listed: str) -> dict[str, str]:
    """The settings of `pip config list` that say how wheels are fetched; the environment's come first."""
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    for name, _, value in sorted(lines, key=lambda line: line[0].startswith(":env:")):
        option = name.rpartition(".")[2].removeprefix("default-")
        if option in _PIP_OPTIONS:
            found[option] = str(ast.literal_eval(value))
    return found


def pip_conf(settings: Mapping[str, str]) -> str:
    """A pip.conf for within a container: certificates lie elsewhere there."""
    shown = {**settings, **({"cert": _CERTIFICATES} if "cert" in settings else {})}
    return "".join(("[global]\n", *(f"{option} = {' '.join(shown[option].split())}\n" for option in shown)))


def pip_mounts(settings: Mapping[str, str]) -> list[tuple[Path, str]]:
    """The local files and folders that settings of pip name, and where they lie within a container."""
    found: list[tuple[Path, str]] = []
    for option, value in settings.items():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if option == "cert":
                found.append((path, _CERTIFICATES))
            elif path.is_absolute():
                # The files of an index lie beside its folder "simple".
                place = path.parent if path.name == "simple" else path
                found.append((place, str(place)))
    return found


# --- what a container may do --------------------------------------------------------------------------------


def dockers_rule(profile: dict[str, Any]) -> dict[str, Any]:
    """Podman's seccomp profile without namespaces for everybody, as Docker's default has it.

    Source: moby/profiles, seccomp/default.json: clone without flags of namespaces, no clone3, the other calls
    with CAP_SYS_ADMIN alone.
    """
    rules = [
        {**rule, "names": [name for name in rule["names"] if name not in _OF_ADMINISTRATORS]}
        for rule in profile["syscalls"]
    ]
    unflagged = {"index": 0, "value": _NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    refused = sorted(_OF_ADMINISTRATORS - {"clone", "clone3"})
    rules += [
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [unflagged]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        {"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
    ]
    return {**profile, "syscalls": [rule for rule in rules if rule["names"]]}


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """A value of a Compose file with its variables, also of the forms ${A:-default} and ${A:?message}.

    Raises:
        KeyError: a variable is needed and has no value.
    """

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found[1], found[2], found[3]
        return values.get(name) or rest if kind == ":-" else values[name]

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


def run_flags(service: Mapping[str, Any], values: Mapping[str, str], descriptors: int) -> list[str]:
    """The options of `podman run` for a service of a Compose file, without network, ports and command.

    descriptors: how many a process can have here.
    """
    flags = [f"--cap-drop={name}" for name in service.get("cap_drop", ())]
    if service.get("read_only"):
        flags += ["--read-only", "--read-only-tmpfs=false"]  # Docker adds no writable places either
    flags += [f"--security-opt={one.removesuffix(':true')}" for one in service.get("security_opt", ())]
    flags += ["--init"] if service.get("init") else []
    flags += [f"--tmpfs={place}" for place in service.get("tmpfs", ())]
    flags += [f"--volume={volume}" for volume in service.get("volumes", ())]
    given = {name: interpolated(value, values) for name, value in service.get("environment", {}).items()}
    flags += [f"--env={name}={value}" for name, value in given.items()]
    most = min(descriptors, service.get("ulimits", {}).get("nofile", descriptors))
    flags += [f"--ulimit=nofile={most}:{most}", "--ulimit=nproc=16384:16384"]
    if grace := service.get("stop_grace_period"):
        flags.append(f"--stop-timeout={grace.removesuffix('s')}")
    return flags


def descriptors() -> int:
    """How many descriptors a process can have here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def leave_network() -> None:
    """Move this thread, and what it starts, into a network namespace of its own, which has loopback alone.

    Rules of firewalls and forwarding that podman sets stay there. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NET):
        raise OSError(ctypes.get_errno(), "no network namespace can be made")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


# --- podman -------------------------------------------------------------------------------------------------


class Engine:
    """Podman with images, containers and volumes of its own.

    Args:
        folder: for all of them, some GB; on a disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._traces = [path for path in map(Path, _TRACES) if not path.exists()]
        self._temporary = folder / "tmp"  # layers on their way, too much for a small /tmp
        self._temporary.mkdir(parents=True, exist_ok=True)
        self._podman = [
            *("podman", "--root", str(folder / "root"), "--runroot", str(folder / "runroot")),
            *("--tmpdir", str(folder / "libpod"), "--network-config-dir", str(folder / "networks")),
            *("--storage-driver", "overlay", "--events-backend", "file"),
            *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),  # crun refuses hybrid control groups
        ]

    def command(self, *arguments: str) -> list[str]:
        """A command of podman's."""
        return [*self._podman, *arguments]

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one, and keep what it prints.

        Raises:
            SystemExit: it failed, and `check` is set; its last lines are in the message.
        """
        return _run(self.command(*arguments), check=check, temporary=self._temporary)

    def ask(self, *arguments: str) -> str:
        """What a command prints."""
        return self.run(*arguments).stdout.strip()

    def _mounts(self) -> list[str]:
        settings = pip_settings(_run([sys.executable, "-m", "pip", "config", "list"]).stdout)
        (self.folder / "pip.conf").write_text(pip_conf(settings))
        places = [(self.folder / "pip.conf", "/etc/pip.conf"), *pip_mounts(settings)]
        return [f"--volume={path}:{place}:ro" for path, place in dict(places).items() if path.exists()]

    def base(self) -> float:
        """Make the base image, unless it is there; seconds."""
        began = time.monotonic()
        if self.run("image", "exists", BASE, check=False).returncode:
            release, tar, options = (
                suite(DOCKERFILE.read_text()),
                self.folder / "base.tar",
                self.folder / "apt.conf",
            )
            options.write_text(apt_options(_run(["apt-config", "dump"]).stdout))
            # Debian's images unpack without syncing too.
            command = ["mmdebstrap", "--variant=minbase", "--dpkgopt=force-unsafe-io", f"--aptopt={options}"]
            _run([*command, release, str(tar), *apt_sources(release)], temporary=self._temporary)
            self.run("import", "--change", 'CMD ["bash"]', str(tar), BASE)
            tar.unlink()
        return time.monotonic() - began

    def build(self, dockerfile: Path, *arguments: str) -> float:
        """Build an image as IMAGE; seconds. `arguments`: NAME=VALUE of --build-arg."""
        began = time.monotonic()
        told = [f"--build-arg={argument}" for argument in (f"BASE={BASE}", *arguments)]
        how = ["--isolation=oci", "--network=host", "--format=docker", "--layers"]  # OCI's has no HEALTHCHECK
        self.run("build", *how, *told, *self._mounts(), f"--file={dockerfile}", f"--tag={IMAGE}", str(ROOT))
        return time.monotonic() - began

    def pull(self, flags: Iterable[str], command: Sequence[str]) -> float:
        """Run the container that fetches weights, in this machine's network; seconds."""
        began = time.monotonic()
        self.run(
            "run", "--rm", "--no-healthcheck", "--network=host", *flags, *self._mounts(), IMAGE, *command
        )
        return time.monotonic() - began

    def remove(self) -> None:
        """End and delete everything."""
        for command in ("rm --all --force --time 0", "volume rm --all --force", "rmi --all --force"):
            self.run(*command.split(), check=False)
        overlay = self.folder / "root" / "overlay"
        subprocess.run(["umount", "--recursive", "--lazy", overlay], capture_output=True, check=False)
        for path in (self.folder, *self._traces):
            if path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path, ignore_errors=True)
        groups = [
            place for top in Path("/sys/fs/cgroup").glob("**/libpod_parent") for place in top.glob("**/")
        ]
        for place in sorted(groups, reverse=True):  # "conmon" in it first
            with contextlib.suppress(OSError):  # another podman's containers
                place.rmdir()


def strict_profile(folder: Path) -> Path:
    """Write the seccomp profile of Docker's rule; returns its file."""
    path = folder / "seccomp.json"
    path.write_text(json.dumps(dockers_rule(json.loads(SECCOMP.read_text()))))
    return path


def _run(
    command: Sequence[str], *, check: bool = True, temporary: Path | None = None
) -> subprocess.CompletedProcess[str]:
    places = {} if temporary is None else {"TMPDIR": str(temporary)}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **places},
        check=False,
    )
    if check and done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise SystemExit(f"{command[0]} ended with status {done.returncode}: {last}")
    return done
