"""What sessions have told, in Redis: one stream of durable events per session, and what belongs to it.

The id of an entry is its seq, so Redis itself refuses to repeat one. Every write goes through a script that
checks the claim: a node that has lost a session writes nothing more of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streamsvc.cluster import scripts
from streamsvc.cluster.records import Claim, Owner, Row, SharedSession
from streamsvc.cluster.redis_client import Argument, RedisClient, Reply, Script, items, number, text
from streamsvc.cluster.registry import Registry

LIVE_ROWS = 256  # ephemeral events that Redis keeps of a session, for nodes that are a moment behind
FOLLOWED_SECONDS = 5.0  # that a session counts as followed after it was told
QUESTIONS = 500  # kept of a session, as its own store keeps them; the oldest are dropped
PARTS = (
    *("owner", "fence", "log", "live", "meta", "followed"),
    *("frames", "frame_times", "questions", "question_names"),
)
Question = tuple[
    str, str, str, str | None, str
]  # id, audience, asker, reader, text: see events' StoredQuestion
Call = tuple[Script, list[str], list[Argument]]


class Fenced(Exception):
    """The claim is lost: another node owns the session."""


class Hole(Exception):
    """Redis lacks events before those that were to be appended; `seq`: of the newest that it has."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"the shared log ends at {seq}")
        self.seq = seq


class SharedLog:
    """The logs of all sessions. Every coroutine raises ClusterUnavailable.

    Args:
        redis: the client.
        registry: of claims.
        events: durable events kept per session; the oldest are dropped.
        frames: thumbnails kept per session; the oldest are dropped.
    """

    def __init__(self, redis: RedisClient, registry: Registry, *, events: int, frames: int) -> None:
        self._redis = redis
        self._registry = registry
        self._events = events
        self._frames = frames

    # --- writing: calls that the owner puts together, and sends with `write` ---

    def append(self, claim: Claim, after: int, rows: Sequence[Row]) -> Call:
        """Append durable rows; what Redis has of them is left out. It must have the event `after`."""
        arguments: list[Argument] = [*self._registry.held(claim), self._events, after]
        for seq, kind, audience, body in rows:
            arguments += [seq, kind, _told(audience), body]
        return scripts.APPEND, self._keys(claim, "log"), arguments

    def live(self, claim: Claim, rows: Sequence[Row]) -> Call:
        """Pass on ephemeral rows, to followers of the present."""
        arguments: list[Argument] = [*self._registry.held(claim), LIVE_ROWS]
        for _, kind, audience, body in rows:
            arguments += [kind, _told(audience), body]
        return scripts.LIVE, self._keys(claim, "live"), arguments

    def frame(self, claim: Claim, at: float, jpeg: bytes) -> Call:
        """Keep a thumbnail."""
        arguments = [*self._registry.held(claim), self._frames, f"{at:.3f}", jpeg]
        return scripts.FRAME, self._keys(claim, "frame_times", "frames"), arguments

    def facts(self, claim: Claim, values: Mapping[str, str]) -> Call:
        """Keep facts about the session; earlier ones of the same name are replaced."""
        pairs = [part for pair in values.items() for part in pair]
        return scripts.FACTS, self._keys(claim, "meta"), [*self._registry.held(claim), *pairs]

    def question(self, claim: Claim, asked: Question) -> Call:
        """Keep a question, before its answer is appended; of too many the oldest are dropped."""
        identity, audience, asker, reader, body = asked
        name = f"{identity}\0{audience}"
        value = "\0".join((asker, _told(reader), body))
        arguments = [*self._registry.held(claim), QUESTIONS, name, value]
        return scripts.QUESTION, self._keys(claim, "questions", "question_names"), arguments

    def _keys(self, claim: Claim, *parts: str) -> list[str]:
        return [self._redis.of(claim.session, part) for part in ("owner", "fence", *parts)]

    async def write(self, calls: Sequence[Call]) -> int:
        """Send calls in one round trip; returns the newest seq that the last of them has told.

        Raises:
            Fenced: the claim is lost. Hole: see there.
        """
        newest = 0
        for reply in await self._redis.scripts(calls):
            state, seq, _ = items(reply)
            if number(state) == scripts.FENCED:
                raise Fenced
            if number(state) == scripts.HOLE:
                raise Hole(number(seq))
            newest = number(seq)
        return newest

    # --- reading ---

    async def read(self, session: str, after: int, limit: int) -> list[Row]:
        """Durable rows with seq > `after`, in order, at most `limit`."""
        found = await self._redis.run(
            "XRANGE", self._redis.of(session, "log"), f"{after + 1}-0", "+", "COUNT", limit
        )
        return [row_of(entry) for entry in items(found)]

    async def newest(self, session: str) -> int:
        """Seq of the newest durable event; 0: there is none."""
        found = items(
            await self._redis.run("XREVRANGE", self._redis.of(session, "log"), "+", "-", "COUNT", 1)
        )
        return row_of(found[0])[0] if found else 0

    async def newest_frame(self, session: str) -> float | None:
        """Session seconds of the newest thumbnail; None: there is none."""
        found = items(await self._redis.run("ZRANGE", self._redis.of(session, "frame_times"), -1, -1))
        return float(text(found[0])) if found else None

    async def frame_at(self, session: str, at: float) -> bytes | None:
        """The newest thumbnail at or before session second `at`."""
        times = self._redis.of(session, "frame_times")
        found = items(await self._redis.run("ZREVRANGEBYSCORE", times, at + 0.0005, "-inf", "LIMIT", 0, 1))
        if not found:
            return None
        jpeg = await self._redis.run("HGET", self._redis.of(session, "frames"), text(found[0]))
        return jpeg if isinstance(jpeg, bytes) else None

    async def questions(self, session: str) -> list[Question]:
        """The questions of a session, in no order."""
        found = _pairs(await self._redis.run("HGETALL", self._redis.of(session, "questions")))
        questions: list[Question] = []
        for name, value in found.items():
            identity, _, audience = name.partition("\0")
            asker, reader, body = value.split("\0", 2)
            questions.append((identity, audience, asker, _audience(reader), body))
        return questions

    async def meta(self, session: str) -> dict[str, str]:
        """The facts about a session; empty: there is no such session.

        `started_utc`, `name`, `epoch`, `node` (its last owner), `stored` ("0": it has no log here),
        `options`, `holder`; of an ended one `ended_utc`, `seconds`, `stats`.
        """
        return _pairs(await self._redis.run("HGETALL", self._redis.of(session, "meta")))

    # --- many sessions ---

    async def enter(self, session: str, started_ms: int, name: str | None) -> None:
        """Enter a session into the list, and among the broadcasts of its name."""
        lists = [self._redis.key("sessions"), *([self._redis.key("name", name)] if name else [])]
        commands: list[tuple[Argument, ...]] = [("ZADD", key, started_ms, session) for key in lists]
        if name:
            commands.append(("PEXPIRE", lists[1], 2 * self._registry.keep_ms))
        await self._redis.pipeline(commands)

    async def recent(self, limit: int, before_ms: int | None = None) -> list[str]:
        """Ids of the sessions begun last, the newest first; `before_ms`: of those begun before then."""
        newest = f"({before_ms}" if before_ms is not None else "+inf"
        found = await self._redis.run(
            "ZREVRANGEBYSCORE", self._redis.key("sessions"), newest, "-inf", "LIMIT", 0, limit
        )
        return [text(one) for one in items(found)]

    async def broadcasts(self, name: str) -> list[str]:
        """Ids of the broadcasts of a name, the newest first."""
        found = await self._redis.run("ZREVRANGEBYSCORE", self._redis.key("name", name), "+inf", "-inf")
        return [text(one) for one in items(found)]

    async def look(self, sessions: Sequence[str]) -> dict[str, SharedSession]:
        """What is known of some sessions, in one round trip; what Redis keeps no longer leaves the lists."""
        commands: list[tuple[Argument, ...]] = []
        for one in sessions:
            commands += [
                ("HGETALL", self._redis.of(one, "meta")),
                ("GET", self._redis.of(one, "owner")),
                ("XREVRANGE", self._redis.of(one, "log"), "+", "-", "COUNT", 1),
            ]
        replies = await self._redis.pipeline(commands)
        found: dict[str, SharedSession] = {}
        gone: list[str] = []
        for at, one in enumerate(sessions):
            meta, owner, newest = replies[3 * at : 3 * at + 3]
            if not (facts := _pairs(meta)):
                gone.append(one)
                continue
            rows = items(newest)
            seq = row_of(rows[0])[0] if rows else 0
            found[one] = SharedSession(one, Owner.parse(text(owner).encode()), facts, seq)
        if gone:
            await self._redis.run("ZREM", self._redis.key("sessions"), *gone)
        return found

    async def delete(self, session: str, name: str | None) -> None:
        """Delete all that is kept of a session, whoever owns it."""
        keys = [self._redis.of(session, part) for part in PARTS]
        commands: list[tuple[Argument, ...]] = [
            ("UNLINK", *keys),
            ("ZREM", self._redis.key("sessions"), session),
        ]
        if name:
            commands.append(("ZREM", self._redis.key("name", name), session))
        await self._redis.pipeline(commands)


def row_of(entry: Reply) -> Row:
    """An entry of a stream as a row."""
    identity, fields = items(entry)
    found = _pairs(fields)
    return int(text(identity).partition("-")[0]), found["type"], found.get("audience"), found["json"]


def _pairs(reply: Reply) -> dict[str, str]:
    flat = [text(part) for part in items(reply)]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _told(name: str | None) -> str:
    return "" if name is None else f"={name}"


def _audience(told: str) -> str | None:
    return told[1:] if told else None
