"""Access policy for sources: which schemes and folders may be read. Hosts: core/host_policy.py."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from streamsvc.core.errors import Forbidden, SourceError

FILE_SCHEMES = ("", "file")
URL_SCHEMES = ("http", "https", "rtsp", "rtsps")


@dataclass(frozen=True, slots=True)
class Place:
    """The location of a source: a file's real path, or a URL."""

    scheme: str
    name: str  # for messages, without credentials
    path: Path | None = None
    url: str = ""
    host: str = ""
    port: int = 0


def redacted(url: str) -> str:
    """A URL for messages and logs: without user, password and query."""
    parts = urlsplit(url)
    if parts.scheme not in URL_SCHEMES:
        return url
    host = parts.netloc.rpartition("@")[2]  # keeps the port and the brackets of an IPv6 address
    return f"{parts.scheme}://{host.lower()}{parts.path}"


def locate(url: str, roots: Sequence[Path] | None) -> Place:
    """Parse a URL or a path and check its scheme and folder, without touching the file.

    Args:
        url: a path, or a URL.
        roots: security limit: a file must lie below one of these folders; None: anywhere.

    Raises:
        SourceError: "bad_scheme".
        Forbidden: "outside_sources", whether the file exists or not.
    """
    try:
        url.encode()
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # the URL is not quoted: it may hold a password
        raise SourceError("the source is not a valid URL", code="bad_scheme") from None
    scheme = parts.scheme.lower()
    if scheme in URL_SCHEMES:
        if not parts.hostname:
            raise SourceError(f"the URL has no host after {scheme}://", code="bad_scheme")
        default = {"http": 80, "https": 443, "rtsp": 554, "rtsps": 322}[scheme]
        url = f"{scheme}:{url.partition(':')[2]}"  # libav knows protocols in small letters only
        return Place(scheme, redacted(url), url=url, host=parts.hostname, port=port or default)
    if scheme not in FILE_SCHEMES:
        raise SourceError(
            f"a source starts with file:, http:, https:, rtsp: or rtsps:, not {scheme}:",
            code="bad_scheme",
        )
    if parts.netloc not in ("", "localhost"):
        raise SourceError("a file: URL must not have a host", code="bad_scheme")
    named = unquote(parts.path) if scheme == "file" else url
    if "\0" in named or not named:
        raise SourceError("the source has no valid path", code="bad_scheme")
    try:
        path = Path(named).resolve()
    except (OSError, RuntimeError):
        raise SourceError(f"{named} is a circular link", code="bad_scheme") from None
    if roots is not None and not any(path.is_relative_to(Path(root).resolve()) for root in roots):
        raise Forbidden(
            f"{named} is not below a folder that is allowed for sources (--sources)",
            code="outside_sources",
        )
    return Place("file", named, path=path)


def check_file(path: Path, name: str) -> None:
    """Raise SourceError "not_found" or "empty" unless the path is a regular, non-empty file."""
    try:
        status = path.stat()
    except PermissionError:
        raise SourceError(f"{name} is not readable", code="not_found") from None
    except OSError:
        raise SourceError(f"{name} does not exist", code="not_found") from None
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{name} is not a regular file", code="not_found")
    if status.st_size == 0:
        raise SourceError(f"{name} is empty (0 bytes)", code="empty")
