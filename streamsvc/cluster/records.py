"""What nodes tell each other through Redis: plain records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

Row = tuple[
    int, str, str | None, str
]  # seq (0: ephemeral), type, audience, JSON text without its closing brace


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node, as its last heartbeat told it.

    `advertise`, `reach`: where clients, and where other nodes reach it. `instance`: of its process, made at
    its start. `keys`: digest of what signs its tokens, equal at all.
    `free`: sessions that it would admit now, by kind ("audio", "audio_video"). `sessions`: that hold a place.
    """

    name: str
    advertise: str
    instance: str
    keys: str
    version: str = ""
    free: Mapping[str, int] = field(default_factory=dict)
    sessions: int = 0
    limit: int = 0
    level: int = 0
    draining: bool = False
    reach: str = ""

    def to_json(self) -> str:
        """The record as Redis holds it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> NodeRecord:
        """Raises ValueError, TypeError: it is no record. Fields of a later version are left out."""
        found = json.loads(text)
        return cls(**{name: found[name] for name in cls.__dataclass_fields__ if name in found})


@dataclass(frozen=True, slots=True)
class Owner:
    """The node that a session lives on, and its fencing token."""

    node: str
    fence: int

    def __str__(self) -> str:
        return f"{self.node}:{self.fence}"

    @classmethod
    def parse(cls, value: bytes | None) -> Owner | None:
        """An owner as Redis holds it; None: there is none."""
        node, _, fence = value.decode().rpartition(":") if value else ("", "", "")
        return cls(node, int(fence)) if node else None


@dataclass(frozen=True, slots=True)
class Claim:
    """The right of a node to write a session, until its lease runs out.

    `whole`: the shared log holds all that its earlier owner has shown; False: Redis was away meanwhile, and
    events may be missing. True for a new session.
    """

    session: str
    owner: Owner
    whole: bool = True


@dataclass(frozen=True, slots=True)
class SharedSession:
    """A session as Redis tells it.

    `owner`: None: its lease has run out, or it has ended. `meta`: see `SharedLog.put_meta`. `seq`: of the
    newest event in the shared log; 0: there is none.
    """

    id: str
    owner: Owner | None
    meta: Mapping[str, str]
    seq: int

    @property
    def ended(self) -> bool:
        """Whether it has ended, as its owner told."""
        return "ended_utc" in self.meta

    @property
    def stalled(self) -> bool:
        """Whether its node has died or lost Redis: it has not ended, and no lease holds it."""
        return self.owner is None and not self.ended
