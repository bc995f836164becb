"""SSRF guard: resolves hosts that users name, and refuses private networks.

Called before every outgoing connection.
"""

from __future__ import annotations

import ipaddress
import socket

from streamsvc.core.errors import Forbidden

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address
_COMPATIBLE = ipaddress.IPv6Network("::/96")  # RFC 4291, 2.5.5.1, deprecated
_INSIDE: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (  # that `is_global` takes for public
    ipaddress.IPv4Network("192.0.0.0/24"),  # IETF protocols (RFC 6890); metadata of one cloud
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's own services, in every network of it
    ipaddress.IPv6Network("64:ff9b:1::/48"),  # NAT64 of a network's own (RFC 8215)
)


def is_public(address: str) -> bool:
    """Whether an IP address is public.

    It is not if it is private, loopback or multicast, or embeds such an IPv4 address (NAT64, 6to4, mapped).
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64 or ip in _COMPATIBLE:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if ip.is_site_local or (embedded is not None and not is_public(str(embedded))):
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _INSIDE)


def addresses(host: str, port: int, private_urls: bool) -> tuple[str, ...]:
    """Resolve a host to all its addresses, in the resolver's order. Blocking.

    Connect to one of these addresses, not to the name: the name may resolve differently a moment later (DNS
    rebinding).

    Args:
        host: a name or an address.
        port: TCP.
        private_urls: security limit: whether hosts of private networks are allowed.

    Raises:
        OSError: the host is not known.
        Forbidden: "private_url": one of its addresses is not public.
    """
    try:
        records = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # not a host name, for example a label of more than 63 characters
        raise OSError("not a host name") from None
    resolved = tuple(dict.fromkeys(str(address[0]) for *_, address in records))
    if not private_urls and not all(map(is_public, resolved)):
        raise Forbidden(
            f"{host} lies in a private network (server.private_urls allows it)", code="private_url"
        )
    return resolved
