"""The watches of one session: checked against each unit, published as `alert.fired` and by webhook."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from streamsvc.answers import watch_router
from streamsvc.answers.topic_match import Passage, TopicMatcher
from streamsvc.answers.watch_conditions import Able, Check, understood
from streamsvc.answers.watch_evaluation import Alert, Watch
from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import CapacityError, Conflict, NotFound
from streamsvc.core.types import ScreenText, Sight, Speech, Stages, Words
from streamsvc.core.units import AlertFired, Unit
from streamsvc.events.webhook import GRACE, Webhook

COOLDOWN = 10.0  # seconds after an alert, where the client names none
MAX_COOLDOWN = 86_400  # seconds


@dataclass(slots=True)
class _Registration:
    watch: Watch
    webhook: Webhook | None
    sending: asyncio.Task[None] | None = None

    def describe(self) -> dict[str, Any]:
        """The watch as clients see it: never the webhook's address or secret."""
        body = {
            "id": self.watch.id,
            "when": self.watch.when,
            "understood": "; or ".join(map(understood, self.watch.checks)),
            "cooldown_s": self.watch.cooldown,
            "fired": self.watch.fired,
        }
        return body | ({"webhook": self.webhook.describe()} if self.webhook is not None else {})


class Watches:
    """The watches of one session."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._limit = context.settings.limits.watches
        self._registered: dict[str, _Registration] = {}
        self._sending: set[asyncio.Task[None]] = set()  # webhooks at work, those of removed watches too
        self._closed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._speech_end = 0.0  # session seconds at which speech last stopped
        self._speaking = False
        self._topics = TopicMatcher(context.roles.embed, self._watched_topics, self._on_topics)

    async def run(self) -> None:
        """Send webhooks until closed, and what waits then for GRACE seconds more."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            comparing = group.create_task(self._topics.run())
            for registration in self._registered.values():
                self._start_sending(registration)
            await self._closed.wait()
            self._topics.close()
            await comparing
            for registration in self._registered.values():
                if registration.webhook is not None:
                    registration.webhook.close()
            if sending := set(self._sending):
                await asyncio.wait(sending, timeout=GRACE)
            for task in sending:
                task.cancel()

    def close(self) -> None:
        """Stop: no watch fires any more. Idempotent."""
        self._closed.set()

    # --- registration ---

    async def add(self, when: str, cooldown: float = COOLDOWN) -> dict[str, Any]:
        """Register a watch.

        Raises:
            InvalidRequest: "cannot_watch". CapacityError: there are too many. Conflict: the session has
                ended.
        """
        return self._add(when, await self._compiled(when), cooldown)

    async def add_with_webhook(self, when: str, cooldown: float, url: str) -> dict[str, Any]:
        """Register a watch with a webhook; its secret is shown this once.

        Raises:
            InvalidRequest, CapacityError, Conflict: as for `add`, or "bad_webhook". Forbidden, Unprocessable:
                the host may not be reached.
        """
        checks = await self._compiled(when)
        webhook = Webhook(url, self._context.settings.server.private_urls)
        await webhook.check()
        return self._add(when, checks, cooldown, webhook) | {"secret": webhook.secret}

    async def _compiled(self, when: str) -> tuple[Check, ...]:
        return await watch_router.compiled(when, self._context.roles.embed, Able())

    def _add(
        self, when: str, checks: tuple[Check, ...], cooldown: float, webhook: Webhook | None = None
    ) -> dict[str, Any]:
        if self._closed.is_set():
            raise Conflict("this session has ended", code="session_ended")
        removed = len(self._sending - {registration.sending for registration in self._registered.values()})
        if len(self._registered) + removed >= self._limit:
            raise CapacityError(
                f"this session has {self._limit} watches already; delete one", code="too_many_watches"
            )
        watch = Watch(f"w_{secrets.token_hex(6)}", when.strip(), checks, cooldown)
        registration = _Registration(watch, webhook)
        self._start_sending(registration)
        self._registered[watch.id] = registration
        return registration.describe()

    def _start_sending(self, registration: _Registration) -> None:
        if registration.webhook is None or registration.sending is not None or self._group is None:
            return
        registration.sending = self._group.create_task(registration.webhook.run())
        self._sending.add(registration.sending)
        registration.sending.add_done_callback(self._sending.discard)

    def all(self) -> list[dict[str, Any]]:
        """Every watch, as clients see it."""
        return [registration.describe() for registration in self._registered.values()]

    def remove(self, number: str) -> dict[str, Any]:
        """Remove a watch; its webhook has GRACE seconds for what waits. Raises NotFound."""
        registration = self._registered.pop(number, None)
        if registration is None:
            raise NotFound("there is no such watch", code="no_watch")
        if registration.webhook is not None:
            registration.webhook.close()
        if registration.sending is not None:
            asyncio.get_running_loop().call_later(GRACE, registration.sending.cancel)
        return registration.describe()

    # --- units ---

    def take(self, unit: Unit) -> None:
        """Check all watches against a unit; kinds that no watch depends on are ignored."""
        match unit:
            case Sight():
                self._check(lambda watch: watch.on_sight(unit), unit.stages)
            case ScreenText():
                self._check(lambda watch: watch.on_screen_text(unit), unit.stages)
            case Words():
                stable = unit.words[: unit.stable]
                self._check(lambda watch: watch.on_words(stable, unit.arrived), unit.stages)
                self._topics.on_words(stable, unit.arrived, unit.stages)
            case Speech():
                self._speaking = unit.active
                self._speech_end = unit.at
                if unit.active:
                    self._check(lambda watch: watch.on_speech(unit.at, unit.arrived), unit.stages)

    def tick(self, now: float) -> None:
        """Check the watches for silence, at session second `now`."""
        if not self._speaking:
            self._check(lambda watch: watch.on_silence(self._speech_end, now, clock.now()))

    def _watched_topics(self) -> set[str]:
        return {topic for registration in self._registered.values() for topic in registration.watch.topics}

    def _on_topics(self, similarity: Mapping[str, float], passage: Passage) -> None:
        self._check(
            lambda watch: watch.on_topic(similarity, passage.evidence, passage.arrived),
            (*passage.stages, ("topic", clock.now())),
        )

    def _check(self, condition: Callable[[Watch], Alert | None], stages: Stages = ()) -> None:
        """Fire the watches whose condition holds. `stages`: of the unit that they are checked against."""
        for registration in list(self._registered.values()):
            alert = condition(registration.watch)
            if alert is not None:
                self._fire(registration, alert, stages)

    def _fire(self, registration: _Registration, alert: Alert, stages: Stages) -> None:
        watch_id = registration.watch.id
        fired = AlertFired(watch_id, alert.at, alert.arrived, alert.text, tuple(alert.evidence), stages)
        event = self._context.host.dispatch(fired)
        metrics.alerts.inc()
        if registration.webhook is not None and event is not None:
            head = {"type": event.type, "id": event.id, "session": event.session, "at": event.at}
            registration.webhook.put({**head, **event.body})
