"""Hosts that users name: their addresses, and whether they may be reached. What every outgoing connection asks first."""

from __future__ import annotations

import ipaddress
import socket

from streamsvc.core.errors import Forbidden

_NAT64 = ipaddress.IPv6Network(
    "64:ff9b::/96"
)  # RFC 6052: a gateway turns these into the IPv4 address in the last 32 bits
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated


def is_public(address: str) -> bool:
    """Whether an address (no name) is of the public internet: not of a private network, this machine or a group, nor a way to one."""
    found = ipaddress.ip_address(address.split("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in _NAT64 or found in _COMPATIBLE:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if found.is_site_local or (inner is not None and not is_public(str(inner))):
            return False
    return found.is_global and not found.is_multicast


def addresses(host: str, port: int, private_urls: bool) -> tuple[str, ...]:
    """All addresses of a host, in the resolver's order; it blocks, so call it on a thread.

    A name may give another answer a moment later: whoever wants to be sure connects to one of these, not to the name.

    Args:
        host: a name or an address.
        port: TCP.
        private_urls: security limit: whether hosts of private networks are allowed.

    Raises:
        OSError: the host is not known.
        Forbidden: "private_url": one of its addresses is not public.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # no name at all, such as one with a label of more than 63 characters
        raise OSError("not a host name") from None
    named = tuple(dict.fromkeys(str(address[0]) for *_, address in found))
    if not private_urls and not all(map(is_public, named)):
        raise Forbidden(
            f"{host} lies in a private network (server.private_urls allows it)", code="private_url"
        )
    return named
