"""The media side of a session: its publisher, the tap that queues frames, and its state."""

from __future__ import annotations

import asyncio
import enum
import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import Conflict
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.events.log import EventLog
from streamsvc.ingest.source import SourceSink
from streamsvc.service.ingest_stats import TrackStats
from streamsvc.speech.pipeline import SpeechPipeline
from streamsvc.vision.pipeline import VisionPipeline

CHANGES = 1000  # of publishers, remembered
CLOSE_SECONDS = 6.0  # that the end of a session waits for its publisher to be closed


class State(enum.Enum):
    """The state of a session."""

    CREATED = "created"  # no publisher has brought media yet, and none is attached; it holds no place
    LIVE = "live"
    STALLED = "stalled"  # media have stopped coming; the context is kept
    ENDED = "ended"  # readable until its retention has passed


class Publisher(Protocol):
    """The sender of a session's media: a WebRTC peer or a source."""

    tracks: tuple[MediaTrack, ...]

    def stats(self) -> Mapping[str, float]:
        """What the transport counts, such as "audio_lost" packets; empty where it counts nothing."""
        ...

    def request_keyframe(self) -> None:
        """Ask the encoder for a codec keyframe, where it can be asked."""
        ...

    async def close(self) -> None:
        """Stop sending; never raises."""
        ...


class MediaSource(Publisher, Protocol):
    """A source that is read to its end (ingest/source.py). `duration`: seconds; None: it is live."""

    duration: float | None

    async def run(self, sink: SourceSink) -> None:
        """Give every encoded frame to the sink. Raises StreamsvcError: the source failed."""
        ...


class MediaInput:
    """Takes the media of one session, from one publisher at a time. Session time continues across publishers.

    Args:
        context: of the session.
        log: where its states are published.
        speech, vision: the pipelines that frames are queued for.
        end: ends the session, for a reason.

    `state`: CREATED, LIVE or STALLED. `unused_seconds`: that a session is kept which has had no media.
    `changes`: session seconds at which another publisher took over, the last CHANGES.
    """

    def __init__(
        self,
        context: SessionContext,
        log: EventLog,
        speech: SpeechPipeline,
        vision: VisionPipeline,
        end: Callable[[str], None],
    ) -> None:
        self.state = State.CREATED
        self.unused_seconds = context.settings.limits.unpublished_seconds
        self.publisher: Publisher | None = None
        self.tracks: dict[str, MediaTrack] = {}
        self.changes: deque[float] = deque(maxlen=CHANGES)
        self._kinds: tuple[str, ...] = ()  # of tracks that an earlier run had
        self._context = context
        self._log = log
        self._speech = speech
        self._vision = vision
        self._end = end
        self._closed = False
        self._began = False  # a frame has come
        self._last = 0.0  # monotonic second of the present publisher's last frame, or of its coming
        self._counts: dict[str, TrackStats] = {}  # of the present publisher, else of the last one
        self._transport: Mapping[str, float] = {}  # what the last publisher counted itself
        self._dropped: dict[str, int] = {}  # by the rings, before the present publisher
        self._packets_lost = 0  # by the present publisher's transport, as last counted
        self._closing: asyncio.Future[None] | None = None  # the last publisher, at the end
        self._timer: asyncio.TimerHandle | None = None  # ends the session unless a publisher comes first

    def summary(self) -> dict[str, Any]:
        """When the session began, and which tracks it has now."""
        return {
            "started_utc": clock.stamp(self._context.clock.started_utc),
            "tracks": sorted({*self.tracks, *self._kinds}),
        }

    def restore(self, kinds: Iterable[str]) -> None:
        """Stand as the input of an ended session that had tracks of these kinds."""
        self.refuse_publishers()
        self._kinds = tuple(kinds)
        if self._kinds:
            self.state = State.STALLED

    def show(self, state: State, kinds: Iterable[str]) -> None:
        """Stand as the input of a session on another node, which is in this state and has these tracks."""
        self.refuse_publishers()
        self.state = state
        self._kinds = tuple(kinds)

    def take_over(self, kinds: Iterable[str]) -> None:
        """Stand as the input of a session that another node began: it waits for its publisher's return."""
        self._began = True
        self.state = State.STALLED
        self._kinds = tuple(kinds)
        self.changes.append(max(0.0, self._context.clock.position()))

    # --- frames ---

    def tap(self, frame: EncodedFrame) -> None:
        """Queue one encoded frame. Non-blocking; called from the transport's task."""
        self._context.tape.note("frame", frame)
        self._began = True
        self._last = frame.arrived
        self._context.clock.advance(frame.at)
        if frame.changed is not None:
            added = frame.kind not in self.tracks
            self.tracks[frame.kind] = frame.changed
            if added:
                self._counts[frame.kind] = TrackStats(frame.changed)
                self._log.emit("session.updated", self.summary())
        if (counts := self._counts.get(frame.kind)) is not None:
            counts.count(frame)
        track = self.tracks.get(frame.kind)
        if track is not None and frame.kind == "audio":
            self._speech.audio.put((track, frame))
        elif track is not None and self._context.options.vision.enabled:
            self._vision.put(track, frame)
        else:
            metrics.frames.labels("not_wanted").inc()

    async def wait_for_space(self) -> None:
        """Wait until both input queues have room, for sources that can wait."""
        await self._speech.audio.wait_for_space()
        await self._vision.video.wait_for_space()

    async def wait_until_taken(self) -> None:
        """Wait until both input queues are empty: a decoder has, or will not have, what was in them."""
        await self._speech.audio.wait_until_taken()
        await self._vision.video.wait_until_taken()

    # --- publishers ---

    def attach(self, publisher: Publisher) -> None:
        """Attach a publisher.

        Raises:
            Conflict: there is a publisher already, or the session has ended.
        """
        if self._closed:
            raise Conflict("this session has ended", code="session_ended")
        if self.publisher is not None:
            raise Conflict("this session has a publisher already", code="already_publishing")
        self._context.tape.note("attach", publisher.tracks)
        self.publisher = publisher
        self.tracks = {track.kind: track for track in publisher.tracks}
        self._kinds = ()
        self._counts = {track.kind: TrackStats(track) for track in publisher.tracks}
        self._dropped = self._ring_drops()
        self._packets_lost = 0
        self._last = clock.now()
        self.cancel_timer()
        resumed = self.state is State.STALLED
        self.state = State.LIVE
        self._log.emit("session.updated", self.summary())
        if resumed:
            self.changes.append(self._context.clock.position())
            self._log.emit("session.resumed", {"reason": "published again"})

    @property
    def silent_seconds(self) -> float:
        """Since the last frame of the publisher, or since it was attached."""
        return clock.now() - self._last

    def sink_of(self, source: MediaSource) -> SourceSink:
        """Where the frames and states of an attached source go."""
        return SourceSink(
            self.tap,
            self.wait_for_space,
            lambda: self._context.clock.zero,
            functools.partial(self.publisher_state, source),
            self.wait_until_taken,
        )

    def publisher_state(self, publisher: object, state: str, why: str) -> None:
        """Take over a publisher's state: a state of `ingest.peer`."""
        if self.publisher is not publisher or self._closed:
            return
        self._context.tape.note("state", (state, why))
        if state == "stalled" and self.state is State.LIVE:
            self.state = State.STALLED
            self._log.emit("session.stalled", {"reason": why})
        elif state == "resumed" and self.state is State.STALLED:
            self.state = State.LIVE
            self._log.emit("session.resumed", {"reason": why})
        elif state in ("frozen", "thawed"):
            self._log.emit("session.updated", self.summary() | {"reason": why})
        elif state == "closed":
            self.detach(why)

    def detach(self, why: str) -> None:
        """Detach the publisher; the context is kept for the resume window.

        Where it has brought nothing, such as an offer that nobody connected for, the session is as it was
        before: it waits for its first publisher, and holds no place.
        """
        self.count_losses()
        self.publisher = None
        if not self._began:
            self.state, self.tracks = State.CREATED, {}
            self._log.emit("session.updated", self.summary() | {"reason": why})
            self.await_first_publisher()
            return
        if self.state is State.LIVE:
            self.state = State.STALLED
            self._log.emit("session.stalled", {"reason": why})
        self._await_publisher(self._context.settings.ingest.resume_seconds, "publisher_left")

    def await_first_publisher(self) -> None:
        """End the session unless a publisher comes within `unused_seconds`, or comes back, in time."""
        if self.publisher is None and self._began:
            self._await_publisher(self._context.settings.ingest.resume_seconds, "publisher_left")
        elif self.publisher is None:
            self._await_publisher(self.unused_seconds, "never_published")

    def _await_publisher(self, seconds: float, reason: str) -> None:
        self.cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end, reason)

    def cancel_timer(self) -> None:
        """Stop waiting for a publisher."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def closed(self) -> bool:
        """Whether no publisher is admitted any more."""
        return self._closed

    def refuse_publishers(self) -> None:
        """Admit no publisher and no state of one any more: the end of the session has begun."""
        self._closed = True
        self.cancel_timer()

    async def close(self) -> None:
        """Close the publisher and the input queues; queued media is still processed. Idempotent.

        A publisher that is not closed after CLOSE_SECONDS is closed in the background.
        """
        self.count_losses()
        if (publisher := self.publisher) is not None:
            self.publisher = None
            self._closing = asyncio.ensure_future(publisher.close())
        if self._closing is not None:
            await asyncio.wait((self._closing,), timeout=CLOSE_SECONDS)  # a cancelled close goes on
        self._speech.close()
        self._vision.close()

    def ingest(self) -> dict[str, Any]:
        """What comes in, by track, and what the transport counts; of the last publisher, once it has left."""
        transport = self.publisher.stats() if self.publisher is not None else self._transport
        now, drops = clock.now(), self._ring_drops()
        tracks = {
            kind: counts.body(now, drops[kind] - self._dropped.get(kind, 0))
            for kind, counts in self._counts.items()
        }
        if "video" in tracks:
            tracks["video"]["decoded"] = "keyframes" if self._vision.intra.alone else "all"
            if (size := self._vision.picture_size) is not None:
                tracks["video"] |= {"width": size[0], "height": size[1]}
        return {**transport, **tracks}

    def _ring_drops(self) -> dict[str, int]:
        return {"audio": self._speech.audio.dropped, "video": self._vision.video.dropped}

    def count_losses(self) -> None:
        """Add what the transport has lost since the last call to the metrics."""
        if self.publisher is not None:
            self._transport = dict(self.publisher.stats())
        lost = int(self._transport.get("audio_lost", 0)) if self.publisher is not None else 0
        metrics.rtp_lost.inc(max(0, lost - self._packets_lost))
        self._packets_lost = lost
