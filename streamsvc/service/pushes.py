"""Caption pushes: closed captions sent on to YouTube Live or Zoom (events/caption_push.py)."""

from __future__ import annotations

from streamsvc.core.errors import CapacityError, Conflict, NotFound
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.events.caption_push import Push, Target
from streamsvc.events.subscription import Subscription
from streamsvc.service.media_input import State
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions


class Pushes:
    """Manages the caption pushes of sessions; stopped ones stay listed until they are deleted.

    Args:
        sessions: whose captions are pushed.
        tasks: where pushes run.
    """

    def __init__(self, sessions: Sessions, tasks: BackgroundTasks) -> None:
        self._sessions = sessions
        self._tasks = tasks

    @property
    def running(self) -> bool:
        """Whether any push is still sending."""
        sessions = self._sessions.by_id.values()
        return any(not push.over for session in sessions for push in session.pushes.values())

    async def add(self, name: str, target: Target) -> Push:
        """Push a session's closed captions to a target, from now on.

        Raises:
            NotFound: no such session. Conflict: it has ended, or pushes there already. CapacityError: it has
                as many pushes as it may have. Forbidden, Unprocessable: the host may not be reached, or is
                not known.
        """
        session = await self._sessions.open(name)
        push = Push(
            target,
            session.settings.server.private_urls,
            session.clock,
            lambda error: session.log.emit("error", error.body()),
        )
        await push.check()
        if session.state is State.ENDED or session.id not in self._sessions.by_id:
            raise Conflict("this session has ended", code="session_ended")
        pushes = session.pushes
        if any(other.target == target and not other.over for other in pushes.values()):
            raise Conflict("this session pushes there already", code="already_pushed")
        if len(pushes) >= session.settings.limits.pushes:
            raise CapacityError(
                f"this session has {len(pushes)} pushes already; delete one", code="too_many_pushes"
            )
        captions = session.log.subscribe(["caption.final"], push.id)
        pushes[push.id] = push
        self._tasks.spawn(self._run(session, push, captions))
        return push

    async def _run(self, session: Session, push: Push, captions: Subscription) -> None:
        try:
            await push.run(captions.next)
        finally:
            session.log.unsubscribe(captions)

    async def all(self, name: str) -> list[Push]:
        """The pushes of a session, stopped ones too. Raises NotFound: no such session."""
        return list((await self._sessions.open(name)).pushes.values())

    async def remove(self, name: str, number: str) -> Push:
        """Stop a push and remove it. Raises NotFound: no such session or push."""
        push = (await self._sessions.open(name)).pushes.pop(number, None)
        if push is None:
            raise NotFound("there is no such push", code="no_push")
        push.stop()
        return push
