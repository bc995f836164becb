"""Where a source lies, and whether it may be read: schemes, folders, hosts. The first gate of `source`."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamsvc.core import host_policy
from streamsvc.core.errors import Forbidden, SourceError

FILE_SCHEMES = ("", "file")
URL_SCHEMES = ("http", "https", "rtsp", "rtsps")
PROTOCOLS = {  # security limit: what libav may open for a URL of each scheme; a file may open nothing else at all
    "http": "http,https,tcp,tls,crypto,data",
    "https": "https,tcp,tls,crypto,data",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtp,udp,tcp,tls",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source lies: a file's real path, or a URL. `name` is what messages call it, without credentials."""

    scheme: str
    name: str
    path: Path | None = None
    url: str = ""
    host: str = ""
    port: int = 0


def shown(url: str) -> str:
    """A URL as it may stand in messages and logs: without user, password and query."""
    parts = urlsplit(url)
    if parts.scheme not in URL_SCHEMES:
        return url
    host = parts.netloc.rpartition("@")[2]  # with its port, and with the brackets of an IPv6 address
    return f"{parts.scheme}://{host.lower()}{parts.path}"


def find(url: str, roots: Sequence[Path] | None) -> Place:
    """Read a URL or a path, and check that its scheme and folder are allowed; the file itself is not touched before that.

    Raises:
        SourceError: "bad_scheme".
        Forbidden: "outside_sources", whether the file exists or not.
    """
    try:
        url.encode()
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # the text is not repeated: it may hold a password
        raise SourceError("the source is not a URL that can be read", code="bad_scheme") from None
    scheme = parts.scheme.lower()
    if scheme in URL_SCHEMES:
        if not parts.hostname:
            raise SourceError(f"a URL names a host after {scheme}://, this one names none", code="bad_scheme")
        default = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}[scheme]
        return Place(scheme, shown(url), url=url, host=parts.hostname, port=port or default)
    if scheme not in FILE_SCHEMES:
        raise SourceError(
            f"sources begin with file:, http:, https:, rtsp: or rtsps:, not {scheme}:", code="bad_scheme"
        )
    if parts.netloc not in ("", "localhost"):
        raise SourceError("a file: URL names no host, this one names one", code="bad_scheme")
    named = unquote(parts.path) if scheme == "file" else url
    if "\0" in named or not named:
        raise SourceError("the source has no usable path", code="bad_scheme")
    try:
        path = Path(named).resolve()
    except (OSError, RuntimeError):
        raise SourceError(f"{named} is a link that leads in a circle", code="bad_scheme") from None
    if roots is not None and not any(path.is_relative_to(Path(root).resolve()) for root in roots):
        raise Forbidden(
            f"{named} does not lie below a folder that was opened for sources (--sources)",
            code="outside_sources",
        )
    return Place("file", named, path=path)


def check_host(place: Place, private_urls: bool) -> None:
    """Refuse hosts of private networks, by every address that the name has."""
    try:
        host_policy.addresses(place.host, place.port, private_urls)
    except OSError:
        raise SourceError(f"the host {place.host} is not known", code="no_answer", retryable=True) from None


def check_file(path: Path, name: str) -> None:
    """Raise SourceError "not_found" or "empty" unless there is a regular file with something in it."""
    try:
        status = path.stat()
    except PermissionError:
        raise SourceError(f"{name} may not be read", code="not_found") from None
    except OSError:
        raise SourceError(f"{name} does not exist", code="not_found") from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is not a file", code="not_found")
    if status.st_size == 0:
        raise SourceError(f"{name} is empty (0 bytes)", code="empty")
