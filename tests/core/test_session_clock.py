"""A session's clock counts from its zero, or follows media that do not come at the speed of time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from streamsvc.core import clock
from streamsvc.core.session_clock import SessionClock


def test_the_position_follows_time_or_the_newest_media(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session = SessionClock()
        await clock.sleep(2.0)
        assert session.position() == 2.0
        session.restart()
        session.advance(9.0)
        assert session.position() == 0.0
        session.restart(media_paced=True)
        await clock.sleep(1.0)
        assert session.position() == 9.0
        session.advance(4.0)  # an older frame
        assert session.position() == 9.0
        assert session.zero == clock.now() - 1.0

    virtual.run(main())


def test_after_the_end_the_present_is_the_last_moment_of_the_media(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session_clock = SessionClock()
        session_clock.advance(3.0)
        await clock.sleep(5.0)
        assert session_clock.position() == 5.0
        session_clock.end()
        await clock.sleep(5.0)
        assert session_clock.position() == 3.0

    virtual.run(main())


def test_the_wall_clock_of_second_0_moves_with_it(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        session = SessionClock()
        assert session.zero_utc == session.started_utc
        await clock.sleep(2.5)
        session.restart()
        assert session.zero_utc == session.started_utc + timedelta(seconds=2.5)
        session.restore(session.started_utc, 7.0)
        assert session.zero_utc == session.started_utc

    virtual.run(main())
