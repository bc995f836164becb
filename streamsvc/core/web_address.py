"""Checks of addresses in settings: origins of browsers, the address that users open, loopback hosts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

# First parts of our own paths: a prefix that began with one could not be told from the path itself.
_OWN_PATHS = frozenset(
    ("v1", "whip", "web", "overlay", "docs", "openapi.json", "metrics", "healthz", "readyz")
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def http_url(url: str, example: str = "https://example.org") -> SplitResult:
    """The parts of an http(s) URL without user, query and fragment.

    Raises:
        ValueError: it is none; the message shows `example`.
    """
    parts = urlsplit(url)
    plain = parts.scheme in _DEFAULT_PORTS and parts.hostname and parts.port != 0
    if not plain or parts.query or parts.fragment or "@" in parts.netloc or any(map(str.isspace, url)):
        raise ValueError(f'must be a URL such as "{example}", without user, query and fragment')
    return parts


def origin(url: str) -> str:
    """A URL as browsers write its origin (RFC 6454): lower case, without the default port.

    Raises:
        ValueError: it has a path, or is no URL.
    """
    parts = http_url(url.rstrip("/"))
    if parts.path:
        raise ValueError('an origin is scheme, host and port, as in "https://example.org", without a path')
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = "" if parts.port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}"


def public_url(url: str) -> str:
    """The address that users open, without the slash at its end; "" stays "".

    Raises:
        ValueError: it is no URL, or its path cannot be told from the paths of this service.
    """
    url = url.rstrip("/")
    if not url:
        return ""
    parts = http_url(url)
    names = parts.path.split("/")[1:]
    if not all(re.fullmatch(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", name) for name in names):
        raise ValueError("its path may have letters, digits, '.', '_', '~' and '-' between the slashes")
    if names and names[0] in _OWN_PATHS:
        raise ValueError(f"its path must not begin with /{names[0]}, which is a path of this service")
    return origin(f"{parts.scheme}://{parts.netloc}") + parts.path


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_among(host: str, addresses: Collection[str]) -> bool:
    """Whether a host is one of these: each an address, a network such as "10.0.0.0/8", or "*" for all."""
    if host in addresses or "*" in addresses:
        return True
    networks = [one for one in addresses if "/" in one]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(one, strict=False) for one in networks)


def proxy(text: str) -> str:
    """An address or a network of proxies, or "*", or a name.

    Raises:
        ValueError: it is a network that cannot be read.
    """
    if "/" in text:
        ipaddress.ip_network(text, strict=False)
    return text


def port_range(text: str) -> range:
    """The ports of "50000-50100", both ends included.

    Raises:
        ValueError: it is none.
    """
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65535):
        raise ValueError('must be a range of ports from 1024 to 65535, such as "50000-50100"')
    return range(int(first), int(last) + 1)


def checked_ports(text: str) -> str:
    """A range of ports, or ""; see `port_range`."""
    if text:
        port_range(text)
    return text


def host_and_port(text: str) -> tuple[str, int]:
    """The parts of "0.0.0.0:1935" or "[::]:1935"; port 0: any free one.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not (port.isdecimal() and 0 <= number <= 65535):
        raise ValueError('must be an address and a port, such as "0.0.0.0:1935" or "[::]:1935"')
    return host, number


def listen(text: str) -> str:
    """An address and a port to listen on, or ""; see `host_and_port`."""
    if text:
        host_and_port(text)
    return text


def pull(url: str) -> str:
    """Where streams of a media server are: a URL with {name} and perhaps {app}, or "".

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url.format(app="app", name="name"))
        known = parts.scheme in ("rtmp", "rtsp", "rtsps", "http", "https") and parts.hostname
        if not url or (known and "{name}" in url and parts.port != 0):
            return url
    except (KeyError, IndexError, ValueError):
        pass
    raise ValueError('must be the URL of a stream, such as "rtsp://127.0.0.1:8554/{name}"')


def ip(text: str) -> str:
    """An IP address. Raises ValueError: it is none."""
    return str(ipaddress.ip_address(text))


def ray_cluster(text: str) -> str:
    """Where a Ray cluster is: "auto", this machine's, or host:port of its head.

    Raises:
        ValueError: it is neither, or one of Ray Client.
    """
    if text.startswith("ray://"):
        raise ValueError(
            "ray:// is Ray Client, which carries no streams: let Ray run on this machine too"
            ' (`ray start --address=HEAD:6379`), and write "auto"'
        )
    host, _, port = text.rpartition(":")
    if text != "auto" and not (re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", host) and port.isdecimal()):
        raise ValueError('must be "auto", or host:port of the head of a Ray cluster')
    return text
