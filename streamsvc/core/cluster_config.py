"""Settings of a cluster: nodes that share a Redis."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from streamsvc.core import web_address
from streamsvc.core.media_config import Group

SCHEMES = ("redis", "rediss", "unix")
_NODE = re.compile(r"[A-Za-z0-9._-]{0,64}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Cluster(Group):
    """Nodes that share a Redis: any of them answers for the sessions of all. Needs the extra "cluster"."""

    # "redis://host:6379/0", a password better in the environment (STREAMSVC_CLUSTER__URL); not set: alone
    url: SecretStr | None = None
    node: str = ""  # name of this node, unlike any other's; "": made once and kept in the data folder
    reach: str = ""  # where other nodes reach this one, if not at `advertise`: "http://10.0.0.5:8080"
    advertise: str = ""  # where clients and other nodes reach this one: "http://10.0.0.5:8080"
    # the same at all nodes, which sign with it what they tell each other: STREAMSVC_CLUSTER__SECRET
    secret: Annotated[SecretStr, Field(min_length=16)] | None = None
    prefix: str = "streamsvc"  # of all keys in Redis
    lease_seconds: float = Field(4.0, ge=0.2)  # without a heartbeat, after which a node counts as dead
    heartbeat_seconds: float = Field(1.0, ge=0.05)  # between two heartbeats; at most half of the lease
    write_seconds: float = Field(0.3, gt=0)  # that an event waits for Redis; then it is shown without
    frames: int = Field(200, ge=1)  # thumbnails per session in Redis; the oldest are deleted first
    connections: int = Field(16, ge=4)  # to Redis, at once; what needs one more waits

    @field_validator("url")
    @classmethod
    def _is_redis(cls, url: SecretStr | None) -> SecretStr | None:
        plain = url.get_secret_value().strip() if url is not None else ""
        if not plain:
            return None
        try:
            parts = urlsplit(plain)
            named = bool(parts.path if parts.scheme == "unix" else parts.hostname and (parts.port or 1))
        except ValueError:
            named = False
        if not named or parts.scheme not in SCHEMES:
            raise ValueError('must be an address of Redis, as "redis://host:6379/0"')  # and tells no password
        return SecretStr(plain)

    @field_validator("advertise", "reach")
    @classmethod
    def _is_reachable(cls, url: str) -> str:
        if url:
            web_address.http_url(url, "http://10.0.0.5:8080")
        return url.rstrip("/")

    @field_validator("node")
    @classmethod
    def _is_node(cls, name: str) -> str:
        if not _NODE.fullmatch(name):
            raise ValueError("has up to 64 letters, digits, '.', '_' or '-'")
        return name

    @field_validator("prefix")
    @classmethod
    def _is_prefix(cls, prefix: str) -> str:
        if not _PREFIX.fullmatch(prefix):
            raise ValueError("has 1 to 64 letters, digits, '.', '_' or '-'")
        return prefix

    @model_validator(mode="after")
    def _is_whole(self) -> Cluster:
        if self.url is not None and not self.advertise:
            raise ValueError("url needs advertise: where other nodes and clients reach this one")
        if self.url is not None and self.secret is None:
            raise ValueError("url needs secret, the same at all nodes: set STREAMSVC_CLUSTER__SECRET")
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError("lease_seconds must be twice heartbeat_seconds or more")
        return self
