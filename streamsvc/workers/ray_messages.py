"""What passes between the bridge of a node and the replicas of a model on Ray Serve.

Ray pickles it; numpy arrays in payloads go through its shared memory where they are large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from streamsvc.core.roles import Payload


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a replica.

    `op`: "" for the role's own tiny request (a probe). `deadline_in_s`: seconds from its arrival until its
    result is useless. `idle`: idle-class work.
    """

    role: str
    op: str
    payload: Payload
    deadline_in_s: float
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed: a class of `core.errors`, its message, seconds until it may be tried again.

    A value and no exception: Ray Serve writes the text of exceptions to its logs.
    """

    kind: str
    message: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a request that ran in a batch of `batch` requests."""

    payload: Payload
    batch: int


@dataclass(frozen=True, slots=True)
class Items:
    """What a stream has yielded since the last one. `failure`: of the whole stream; nothing follows."""

    payloads: tuple[Payload, ...]
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What a replica tells of itself.

    `version`: of streamsvc. `runtimes`: what computes, by role. `busy_seconds`: that its oldest running batch
    has run. `result_seconds`: since its last result.
    """

    version: str
    pid: int
    runtimes: Mapping[str, str]
    busy_seconds: float
    result_seconds: float
