"""The tracks of sessions: what is held of one, for how long, and which languages there are."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

from streamsvc.core import clock, metrics
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.types import Cue, Speech, Translation, Word
from streamsvc.service import hls_tracks
from streamsvc.service.hls_tracks import HlsTracks, Placement, languages
from streamsvc.service.session import Session
from streamsvc.speech.translation import TARGET
from tests.builders.fake_service import serving
from tests.builders.hls import parse
from tests.builders.session import Sender

ALONE = Placement()


def aged(session: Session, position: float) -> None:
    session.clock.zero = clock.now() - position
    session.clock.advance(position)


def says(session: Session, start: float) -> str:
    words = (Word("Hallo.", start, start + 1.0),)
    event = session.dispatch(Cue(session.id, "main", start, 0.0, "Hallo.", words, 1, True, "de"))
    assert event is not None
    return event.id


def numbers(tracks: HlsTracks, session: Session, language: str | None = None) -> list[int]:
    text = tracks.playlist(session, language, ALONE, lambda name: name)
    return [one.number for one in parse(text).segments]


async def test_what_is_held_of_a_session_goes_with_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        session = await service.sessions.create(name="talk")
        session.media.attach(Sender())
        aged(session, 60.0)
        tracks = HlsTracks()
        says(session, 1.0)
        numbers(tracks, session)
        await service.sessions.delete("talk", purge=True)
        gone = weakref.ref(session)
        del session
        gc.collect()
        assert gone() is None


async def test_a_session_that_ends_keeps_its_live_playlist_for_those_who_were_there(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        session = await service.sessions.create(name="talk")
        session.media.attach(Sender())
        aged(session, 600.0)
        tracks, others = HlsTracks(), HlsTracks()
        before = numbers(tracks, session)
        session.end("ended")
        await session.over.wait()
        assert numbers(tracks, session)[0] >= before[0] > 0, "the sequence never goes back"
        assert numbers(others, session)[0] == 0, "nobody was there: all of it at once"
        assert session.ended_at is not None
        session.ended_at -= hls_tracks.LINGER + 1
        assert numbers(tracks, session)[0] == 0


async def test_a_translation_that_may_come_is_waited_for(tmp_path: Path) -> None:
    async with serving(tmp_path, hear={"model": "whisper-base"}) as service:
        options = SessionOptions(SpeechOptions(translate=True))
        session = await service.sessions.create(name="talk", options=options)
        session.media.attach(Sender())
        assert languages(session) == ("", [TARGET])
        aged(session, 9.0)
        tracks = HlsTracks()
        event = says(session, 1.0)
        assert languages(session) == ("de", [TARGET])
        as_spoken, waiting = numbers(tracks, session)[-1], numbers(tracks, session, TARGET)[-1]
        assert waiting == as_spoken - 1
        session.dispatch(Translation(session.id, "main", 1.0, 0.0, event, "Hello.", TARGET, 1.0, 2.0))
        assert numbers(tracks, session, TARGET)[-1] == as_spoken
        assert "Hello." in (tracks.live_segment(session, TARGET, as_spoken) or "")
        assert "Hallo." in (tracks.live_segment(session, None, as_spoken) or "")
        assert tracks.live_segment(session, "fi", as_spoken) is None


async def test_captions_that_come_too_late_are_counted(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        session = await service.sessions.create(name="talk")
        session.media.attach(Sender())
        tracks = HlsTracks()
        session.dispatch(Speech(session.id, "main", 1.0, 0.0, True))
        aged(session, 19.0)
        numbers(tracks, session)
        before = metrics.events_dropped.labels("caption.hls")._value.get()
        says(session, 1.0)
        session.dispatch(Speech(session.id, "main", 2.0, 0.0, False))
        aged(session, 30.0)
        numbers(tracks, session)
        assert metrics.events_dropped.labels("caption.hls")._value.get() - before == 1
