"""The watches of one session: checked against each unit, published as `alert.fired` and by webhook."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from streamsvc.answers import watch_router
from streamsvc.answers.model_reader import WindowSource
from streamsvc.answers.topic_match import Passage, TopicMatcher, ends_sentence
from streamsvc.answers.watch_conditions import Check, fields_of, understood
from streamsvc.answers.watch_evaluation import Alert, Watch
from streamsvc.answers.watch_model import Candidate, WatchModel
from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import CapacityError, Conflict, NotFound
from streamsvc.core.types import Evidence, ScreenText, Sight, Speech, Stages, Word, Words
from streamsvc.core.units import AlertFired, Unit
from streamsvc.events.webhook import GRACE, Webhook
from streamsvc.vision import scenes

Decider = Literal["rules", "model", "rules_late"]

_PASSAGE = 24  # words that an alert of the model quotes
_CHARACTERS = 120  # of a screen, the same
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

    def __init__(self, context: SessionContext, reading: WindowSource | None = None) -> None:
        self._context = context
        self._limit = context.settings.limits.watches
        self._registered: dict[str, _Registration] = {}
        self._sending: set[asyncio.Task[None]] = set()  # webhooks at work, those of removed watches too
        self._closed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._speech_end = 0.0  # session seconds at which speech last stopped
        self._speaking = False
        self._model = WatchModel(context, reading, self._decide)
        self._recent: deque[Word] = deque(maxlen=_PASSAGE)  # stable words, the newest
        self._topics = TopicMatcher(context.roles.embed, self._watched_topics, self._on_topics)

    async def run(self) -> None:
        """Send webhooks until closed, and what waits then for GRACE seconds more."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            comparing = group.create_task(self._topics.run())
            deciding = group.create_task(self._model.run())
            for registration in self._registered.values():
                self._start_sending(registration)
            await self._closed.wait()
            self._topics.close()
            await comparing
            deciding.cancel()
            await asyncio.wait([deciding])
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
        return self.put(when, await self._compiled(when), cooldown)

    async def add_with_webhook(
        self, when: str, cooldown: float, url: str, signed: Callable[[str], str] = str
    ) -> dict[str, Any]:
        """Register a watch with a webhook; its secret is shown this once. `signed`: see `Webhook`.

        Raises:
            InvalidRequest, CapacityError, Conflict: as for `add`, or "bad_webhook". Forbidden, Unprocessable:
                the host may not be reached.
        """
        checks = await self._compiled(when)
        webhook = Webhook(url, self._context.settings.server.private_urls, signed)
        await webhook.check()
        return self.put(when, checks, cooldown, webhook) | {"secret": webhook.secret}

    async def _compiled(self, when: str) -> tuple[Check, ...]:
        return await watch_router.compiled(when, self._context.roles.embed, self._model.able)

    def put(
        self, when: str, checks: tuple[Check, ...], cooldown: float, webhook: Webhook | None = None
    ) -> dict[str, Any]:
        """Register a watch whose condition is understood. Errors as of `add`."""
        if self._closed.is_set():
            raise Conflict("this session has ended", code="session_ended")
        removed = len(self._sending - {registration.sending for registration in self._registered.values()})
        if len(self._registered) + removed >= self._limit:
            raise CapacityError(
                f"this session has {self._limit} watches already; delete one", code="too_many_watches"
            )
        watch = Watch(f"w_{secrets.token_hex(6)}", when.strip(), checks, cooldown)
        self._context.tape.note("watch", (watch.id, when, cooldown, [fields_of(check) for check in checks]))
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
        self._context.tape.note("unwatch", number)
        self._model.forget(number)
        if registration.webhook is not None:
            registration.webhook.close()
        if registration.sending is not None:
            asyncio.get_running_loop().call_later(GRACE, registration.sending.cancel)
        return registration.describe()

    def has_webhook(self, number: str) -> bool:
        """Whether alerts of a watch still go to a webhook."""
        registration = self._registered.get(number)
        return not self._closed.is_set() and registration is not None and registration.webhook is not None

    def stop_webhook(self, number: str) -> None:
        """Stop the webhook of a watch, if it has one: what waits is not sent. The watch stays."""
        registration = self._registered.get(number)
        if registration is None or registration.webhook is None:
            return
        registration.webhook.close()
        registration.webhook = None
        if registration.sending is not None:
            registration.sending.cancel()

    # --- units ---

    def take(self, unit: Unit) -> None:
        """Check all watches against a unit; kinds that no watch depends on are ignored."""
        match unit:
            case Sight():
                self._check(lambda watch: watch.on_sight(unit), unit.stages)
                quote = scenes.phrase(unit) or "a picture"
                self._ask_model(
                    Evidence(unit.at, unit.at, "sight", quote, unit.at), unit.arrived, unit.stages
                )
            case ScreenText():
                self._check(lambda watch: watch.on_screen_text(unit), unit.stages)
                quote = " ".join(line.text for line in unit.lines)
                evidence = Evidence(unit.at, unit.at, "screen", quote[:_CHARACTERS], unit.at)
                self._ask_model(evidence, unit.arrived, unit.stages)
            case Words():
                stable = unit.words[: unit.stable]
                self._check(lambda watch: watch.on_words(stable, unit.arrived), unit.stages)
                self._topics.on_words(stable, unit.arrived, unit.stages)
                self._recent.extend(stable)
                if any(ends_sentence(word) for word in stable):
                    self._ask_model(_said(self._recent), unit.arrived, unit.stages)
            case Speech():
                self._speaking = unit.active
                self._speech_end = unit.at
                if unit.active:
                    self._check(lambda watch: watch.on_speech(unit.at, unit.arrived), unit.stages)

    def tick(self, now: float) -> None:
        """Check the watches for silence and for what a still picture lacks, at session second `now`."""
        self._check(lambda watch: watch.on_still(now, clock.now()))
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
            if alert is None:
                continue
            sees = alert.kind == "object" and self._model.able.sees
            if sees or (alert.by_meaning and self._model.able.reads):
                self._put(registration.watch, alert, stages, sees=sees)
            else:
                self._fire(registration, alert, stages, "rules")

    def _ask_model(self, evidence: Evidence, arrived: float, stages: Stages) -> None:
        """Let the model look at the watches that it alone can tell."""
        sees = evidence.kind == "sight"
        for registration in self._registered.values():
            if any(check.kind == "model" and check.sees == sees for check in registration.watch.checks):
                text = registration.watch.when[:1].upper() + registration.watch.when[1:]
                alert = Alert(f"{text}.", evidence.end, arrived, (evidence,), "model")
                self._put(registration.watch, alert, stages, sees=sees)

    def _put(self, watch: Watch, alert: Alert, stages: Stages, *, sees: bool) -> None:
        by_rules = alert.kind != "model"
        if not self._model.put(Candidate(watch.id, watch.when, alert, stages, sees, by_rules)) and by_rules:
            watch.take_back(alert)

    def _decide(self, candidate: Candidate, holds: bool | None) -> None:
        """Tell what the model has decided; where it has not, what the rules have found."""
        registration = self._registered.get(candidate.watch_id)
        if registration is None:
            return
        stages = (*candidate.stages, ("model", clock.now()))
        if not candidate.by_rules:
            alert = None if holds is None else registration.watch.on_model(holds, candidate.alert)
            if alert is not None:
                self._fire(registration, alert, stages, "model")
        elif holds is False:
            registration.watch.take_back(candidate.alert)
            metrics.alerts_withheld.inc()
        else:
            decided_by: Decider = "rules_late" if holds is None else "model"
            self._fire(registration, candidate.alert, stages, decided_by)

    def _fire(self, registration: _Registration, alert: Alert, stages: Stages, decided_by: Decider) -> None:
        watch_id = registration.watch.id
        fired = AlertFired(
            watch_id, alert.at, alert.arrived, alert.text, tuple(alert.evidence), decided_by, stages
        )
        event = self._context.host.dispatch(fired)
        metrics.alerts.inc()
        if registration.webhook is not None and event is not None:
            head = {"type": event.type, "id": event.id, "session": event.session, "at": event.at}
            registration.webhook.put({**head, **event.body})


def _said(words: Sequence[Word]) -> Evidence:
    return Evidence(words[0].start, words[-1].end, "speech", " ".join(word.text for word in words))
