"""The watches of one session: made at its doors, fed with what is seen, read and heard, and told when they fire, by event and webhook.

A webhook is POSTed JSON with the header `Streamsvc-Signature: t=SECONDS,v1=HEX`: t is the Unix time of the try, and v1 the HMAC-SHA256
of "t.body" by the secret that was given out once, when the watch was made. What fails is tried again; the `id` in it stays the same.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamsvc.answers.topic_match import TopicMatcher
from streamsvc.answers.watch_conditions import compile_condition
from streamsvc.answers.watch_evaluation import Alert, Watch
from streamsvc.core import clock, metrics
from streamsvc.core.errors import CapacityError, Conflict, NotFound
from streamsvc.core.roles import Role
from streamsvc.core.types import Evidence, ScreenText, Sight, Speech, Word
from streamsvc.events.webhook import GRACE, Webhook

COOLDOWN = 10.0  # seconds after an alert, where nobody says how many

Tell = Callable[[str, Alert], Mapping[str, Any]]


@dataclass(slots=True)
class _Kept:
    watch: Watch
    hook: Webhook | None
    sending: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        """As the door shows it: never the webhook's address or secret."""
        told = {
            "id": self.watch.id,
            "when": self.watch.when,
            "cooldown_s": self.watch.cooldown,
            "fired": self.watch.fired,
        }
        return told | ({"webhook": self.hook.told()} if self.hook is not None else {})


class Watches:
    """The watches of one session.

    Args:
        most: how many there may be.
        private_urls: security limit: whether webhooks may go to private networks.
        tell: publishes an alert of a watch; what it returns goes to the webhook.
        embed: the role with the op "texts"; None: what is said is watched by its words alone.
    """

    def __init__(self, most: int, private_urls: bool, tell: Tell, embed: Role | None = None) -> None:
        self._most, self._private, self._tell = most, private_urls, tell
        self._kept: dict[str, _Kept] = {}
        self._sending: set[asyncio.Task[None]] = set()  # webhooks at work, those of removed watches too
        self._over = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._stopped = 0.0  # session seconds at which somebody last stopped speaking
        self._speaking = False
        self._topics = TopicMatcher(
            embed, lambda: {topic for kept in self._kept.values() for topic in kept.watch.topics}, self._meant
        )

    async def run(self) -> None:
        """Send webhooks until `close`, and what waits then for GRACE seconds more."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            comparing = group.create_task(self._topics.run())
            for kept in self._kept.values():
                self._send(kept)
            await self._over.wait()
            self._topics.close()
            await comparing
            for kept in self._kept.values():
                if kept.hook is not None:
                    kept.hook.close()
            if sending := set(self._sending):
                await asyncio.wait(sending, timeout=GRACE)
            for task in sending:
                task.cancel()

    def close(self) -> None:
        """No alert comes any more. May be called twice."""
        self._over.set()

    # --- doors ---

    def add(self, when: str, cooldown: float = COOLDOWN, hook: Webhook | None = None) -> dict[str, Any]:
        """Make a watch.

        Raises:
            InvalidRequest: "cannot_watch". CapacityError: there are too many. Conflict: the session has ended.
        """
        checks = compile_condition(when)
        if self._over.is_set():
            raise Conflict("this session has ended", code="session_ended")
        removed = len(self._sending - {kept.sending for kept in self._kept.values()})
        if len(self._kept) + removed >= self._most:
            raise CapacityError(
                f"this session has {self._most} watches already; delete one", code="too_many_watches"
            )
        kept = _Kept(Watch(f"w_{secrets.token_hex(6)}", when.strip(), checks, cooldown), hook)
        self._send(kept)
        self._kept[kept.watch.id] = kept
        return kept.describe()

    def _send(self, kept: _Kept) -> None:
        """Begin to send what its webhook is given, once the room is open."""
        if kept.hook is not None and kept.sending is None and self._group is not None:
            kept.sending = self._group.create_task(kept.hook.run())
            self._sending.add(kept.sending)
            kept.sending.add_done_callback(self._sending.discard)

    async def hooked(self, when: str, cooldown: float, url: str) -> dict[str, Any]:
        """Make a watch with a webhook; its secret is told this once.

        Raises:
            InvalidRequest, CapacityError, Conflict: as `add`, or "bad_webhook". Forbidden, Unprocessable: the host may not be reached.
        """
        compile_condition(when)
        hook = Webhook(url, self._private)
        await hook.check()
        return self.add(when, cooldown, hook) | {"secret": hook.secret}

    def all(self) -> list[dict[str, Any]]:
        """Every watch."""
        return [kept.describe() for kept in self._kept.values()]

    def remove(self, number: str) -> dict[str, Any]:
        """Forget a watch; its webhook has GRACE seconds for what waits. Raises NotFound."""
        kept = self._kept.pop(number, None)
        if kept is None:
            raise NotFound("there is no such watch", code="no_watch")
        if kept.hook is not None:
            kept.hook.close()
        if kept.sending is not None:
            asyncio.get_running_loop().call_later(GRACE, kept.sending.cancel)
        return kept.describe()

    # --- what is seen, read and heard ---

    def saw(self, sight: Sight) -> None:
        """Take what a keyframe shows."""
        self._each(lambda watch: watch.on_sight(sight))

    def read(self, page: ScreenText) -> None:
        """Take the text of a screen."""
        self._each(lambda watch: watch.on_screen_text(page))

    def heard(self, words: tuple[Word, ...], arrived: float) -> None:
        """Take newly stable words."""
        self._each(lambda watch: watch.on_words(words, arrived))
        self._topics.on_words(words, arrived)

    def _meant(self, likeness: Mapping[str, float], passage: Evidence, arrived: float) -> None:
        self._each(lambda watch: watch.on_topic(likeness, passage, arrived))

    def spoke(self, speech: Speech) -> None:
        """Take that somebody begins or stops to speak."""
        self._speaking, self._stopped = speech.active, speech.at
        if speech.active:
            self._each(lambda watch: watch.on_speech(speech.at, speech.arrived))

    def tick(self, now: float) -> None:
        """Look at the clock, at session second `now`: nobody may have spoken for long."""
        if not self._speaking:
            self._each(lambda watch: watch.on_silence(self._stopped, now, clock.now()))

    def _each(self, check: Callable[[Watch], Alert | None]) -> None:
        for kept in list(self._kept.values()):
            alert = check(kept.watch)
            if alert is not None:
                told = self._tell(kept.watch.id, alert)
                metrics.alerts.inc()
                if kept.hook is not None:
                    kept.hook.put(told)


# --- the door -------------------------------------------------------------------------------------------------------
