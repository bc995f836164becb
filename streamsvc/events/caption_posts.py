"""Caption posts for YouTube, Zoom and OvenMediaEngine: format, sequence numbers and retries. Pure.

Sources: support.google.com/youtube/answer/6077032 (Closed Captions over HTTP for YouTube Live Streams) and
support.zoom.us/hc/en-us/articles/115002212983 (third-party closed captioning). Both number posts by `seq`:
plus one for a new post, unchanged for a retry. A YouTube response begins with YouTube's time, and times more
than 60 s off are refused; heartbeats are optional. Zoom returns the last number taken at GET .../seq.
OvenMediaEngine (its docs/rest-api/v1/virtualhost/application/stream, Send Event and Send Subtitles) numbers
nothing: what is posted is shown from then on.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from streamsvc.core.printable import printable
from streamsvc.speech.captions import READING_SPEED, SECONDS_MAX, SECONDS_MIN, wrap

_ENTITY = re.compile(r"&(?=#?\w+;)")
_TOO_MANY_REQUESTS = 429
_UNCERTAIN = frozenset({408, 425, 500, 502, 503, 504})  # the post may have been taken
_CLOCK_MOVED = 1.0  # seconds from which a change of the target's clock explains a refusal


class PushState(enum.Enum):
    """State of a push."""

    READY = "ready"
    RETRYING = "retrying"  # the target does not respond, or with an error
    WAITING = "waiting"  # the target is not ready for captions: a meeting that has not started
    FAILED = "failed"  # for good
    ENDED = "ended"  # with the session, or deleted


@dataclass(frozen=True, slots=True)
class Provider:
    """Requirements of a target."""

    content_type: str
    batch: int  # cues in one post at most
    max_age: float  # seconds since a cue was spoken; older ones are dropped
    # zoom: `lang` parameter, plain body, last number at GET .../seq. ome: events or subtitles, no numbers.
    protocol: Literal["youtube", "zoom", "ome-event", "ome-subtitles"]
    not_ready: int = 400  # the status that says so
    label: str = ""  # of a subtitle track


PROVIDERS = {
    # No charset: it is UTF-8 by definition. YouTube refuses times more than 60 s off its own, and invalid
    # bodies, with 400.
    "youtube": Provider("text/plain", 8, 55.0, "youtube"),
    # Zoom shows a caption on arrival, so an old one would appear under other words. 400: not started.
    "zoom": Provider("text/plain; charset=utf-8", 1, 20.0, "zoom"),
    # 404: the stream is not there yet.
    "ome": Provider("application/json", 1, 20.0, "ome-subtitles", not_ready=404),
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays in seconds and limits of a push; the defaults are for the real services."""

    first_delay: float = 0.5  # before the first retry; doubled for each further one
    max_delay: float = 8.0
    slow_delay: float = 5.0  # between tries while the target is busy or not ready
    max_refusals: int = 5  # in a row, then the push fails; Zoom asks to retry every code, 403 and 405 too
    max_not_ready: int = 3  # responses "not ready" to one post, then newer words are tried
    timeout: float = 5.0  # of one request
    grace: float = 3.0  # to post the rest at the end of the session
    queue_size: int = 32  # waiting cues; the oldest are dropped


@dataclass(frozen=True, slots=True)
class CaptionText:
    """A closed cue: plain text with line feeds, and its start in seconds since the session began."""

    spoken: float
    text: str


@dataclass(frozen=True, slots=True)
class PostResult:
    """Outcome of one try. `status` None: no response. sent, received: seconds since the session began."""

    status: int | None
    body: str
    sent: float
    received: float


# --- formats ---


def plain_text(text: str) -> str:
    """Text without markup, in at most two lines of 42 characters; "" if nothing is left."""
    plain = _ENTITY.sub("\uff06", printable(text).replace("<", "\u2039").replace(">", "\u203a"))
    return "\n".join(wrap(plain))


def timestamp(started_utc: datetime, seconds: float) -> str:
    """YYYY-MM-DDTHH:MM:SS.mmm in UTC, `seconds` after the start."""
    moment = started_utc.astimezone(UTC) + timedelta(milliseconds=round(seconds * 1000))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


def youtube_body(captions: Sequence[CaptionText], started_utc: datetime, clock_offset: float) -> str:
    """YouTube's body: for each cue a line with its time and one with its text, each with a line feed.

    Args:
        captions: the cues.
        started_utc: when `spoken` was 0.
        clock_offset: seconds that YouTube's clock is ahead of ours.
    """
    return "".join(
        timestamp(started_utc, caption.spoken + clock_offset)
        + "\n"
        + caption.text.replace("\n", "<br>")
        + "\n"
        for caption in captions
    )


def zoom_body(captions: Sequence[CaptionText]) -> str:
    """Zoom's body: the text, a line feed after each line."""
    return "".join(f"{caption.text}\n" for caption in captions)


def ome_body(caption: CaptionText, provider: Provider) -> str:
    """OvenMediaEngine's body: a subtitle of the reading time, or an ID3 frame TXXX, in JSON."""
    if provider.protocol == "ome-event":
        frame = {"frameType": "TXXX", "info": "caption", "data": caption.text}
        return json.dumps({"eventFormat": "id3v2", "eventType": "video", "events": [frame]})
    seconds = min(SECONDS_MAX, max(SECONDS_MIN, len(caption.text) / READING_SPEED))
    cue = {"startOffset": 0, "durationMs": round(1000 * seconds), "text": caption.text}
    return json.dumps({"format": "webvtt", "data": [{"label": provider.label, "subtitles": [cue]}]})


def server_time(body: str) -> datetime | None:
    """The time at the beginning of a YouTube response; None if there is none."""
    try:
        return datetime.strptime(body.strip()[:23], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None


# --- decisions ---


class PostSequencer:
    """Decides what is posted, under which number, and when it is retried.

    No I/O; times are seconds since the session began. A post goes `begin`, `due`, `handle`, `due`, ... until
    `due` returns nothing.

    Args:
        provider: of the target.
        policy: delays and limits.
        started_utc: when the session began.
        on_drop: called with the number of cues that will never be posted.
    """

    def __init__(
        self,
        provider: Provider,
        policy: RetryPolicy,
        started_utc: datetime,
        on_drop: Callable[[int], None],
    ) -> None:
        self.state = PushState.READY
        self.seq = 1  # of the current post, or of the next one
        self.clock_offset = 0.0  # seconds that the target's clock is ahead of ours
        self.needs_last_seq = provider.protocol == "zoom"  # whether to ask the target for its last number now
        self.sent = 0  # cues
        self.retried = 0  # posts
        self.error: tuple[str, str] | None = None  # code, message
        self._provider = provider
        self._policy = policy
        self._started = started_utc
        self._on_drop = on_drop
        self._captions: tuple[CaptionText, ...] = ()  # of the current post
        self._tries = 0
        self._refusals = 0  # in a row
        self._not_ready = 0  # of the current post
        self._uncertain = False  # whether the current post may have been taken

    def begin(self, captions: Sequence[CaptionText]) -> None:
        """Start the next post."""
        self._captions = tuple(captions)
        self._tries = 0
        self._not_ready = 0
        self._uncertain = False

    def due(self, now: float) -> tuple[CaptionText, ...]:
        """Cues to post now under `seq`; none if the post is done, given up, or the push has failed."""
        fresh = tuple(caption for caption in self._captions if now - caption.spoken <= self._provider.max_age)
        if len(fresh) < len(self._captions):
            self._on_drop(len(self._captions) - len(fresh))
            if not fresh:
                self._give_up()
        self._captions = fresh
        if self.state is PushState.FAILED or not fresh:
            return ()
        self.retried += self._tries > 0
        self._tries += 1
        return fresh

    def body(self) -> str:
        """The body of the current post."""
        if self._provider.protocol == "zoom":
            return zoom_body(self._captions)
        if self._provider.protocol != "youtube":
            return ome_body(self._captions[0], self._provider)
        return youtube_body(self._captions, self._started, self.clock_offset)

    def handle(self, result: PostResult) -> float:
        """Update the state by the outcome of a try; returns seconds to wait before the next `due`."""
        clock_moved = self._provider.protocol == "youtube" and self._update_clock(result)
        status = result.status
        if status is not None and 200 <= status < 300:
            self._accepted()
            self.seq += 1
            return 0.0
        if status is None or status in _UNCERTAIN or status == _TOO_MANY_REQUESTS:
            return self._overloaded(status)
        self.needs_last_seq = self._provider.protocol == "zoom"  # the number may be the reason
        if status == self._provider.not_ready:
            self._target_not_ready()
            return self._policy.first_delay if clock_moved else self._policy.slow_delay
        return self._refused(status)

    def set_last_seq(self, number: int | None) -> None:
        """Continue after the last number that the target took; None: not known."""
        self.needs_last_seq = False
        if number is None:
            return
        if self._uncertain and number == self.seq:  # the post was taken, and its response lost
            self._accepted()
            self._uncertain = False
        self.seq = number + 1

    def fail(self, code: str, message: str) -> None:
        """End the push for good."""
        self._set(PushState.FAILED, code, message)

    def close(self) -> None:
        """End the push; the cues of an unfinished post count as dropped. Idempotent."""
        if self._captions:
            self._on_drop(len(self._captions))
            self._captions = ()
        if self.state is not PushState.FAILED:
            self.state = PushState.ENDED

    def _accepted(self) -> None:
        self.sent += len(self._captions)
        self._captions = ()
        self._refusals = 0
        self.state = PushState.READY

    def _overloaded(self, status: int | None) -> float:
        code = "no_answer" if status is None else f"status_{status}"
        self._set(PushState.RETRYING, code, "it does not answer, or is overloaded")
        if status == _TOO_MANY_REQUESTS:
            return self._policy.slow_delay
        self._uncertain = True
        return self._backoff(self._tries)

    def _target_not_ready(self) -> None:
        self._not_ready += 1
        self._set(PushState.WAITING, f"status_{self._provider.not_ready}", "it does not take captions now")
        if self._not_ready >= self._policy.max_not_ready:
            self._on_drop(len(self._captions))
            self._give_up()

    def _refused(self, status: int) -> float:
        self._refusals += 1
        message = "it refuses captions: the address is wrong or has expired, or captions are off"
        self._set(PushState.RETRYING, f"status_{status}", message)
        if self._refusals >= self._policy.max_refusals:
            self.state = PushState.FAILED
            return 0.0
        return self._backoff(self._refusals)

    def _give_up(self) -> None:
        """Drop the current post. If it may have been taken, its number is not used again."""
        if self._uncertain:
            self.seq += 1
            self.needs_last_seq = self._provider.protocol == "zoom"
        self._captions = ()

    def _backoff(self, tries: int) -> float:
        return float(min(self._policy.max_delay, self._policy.first_delay * 2 ** min(tries - 1, 16)))

    def _set(self, state: PushState, code: str, message: str) -> None:
        self.state = state
        self.error = (code, message)

    def _update_clock(self, result: PostResult) -> bool:
        """Measure the offset of the target's clock. Returns whether it changed by over `_CLOCK_MOVED`."""
        time = server_time(result.body)
        if time is None:
            return False
        offset = (time - self._started).total_seconds() - (result.sent + result.received) / 2
        if abs(offset) <= (result.received - result.sent) / 2:
            offset = 0.0  # within the round trip
        moved = abs(offset - self.clock_offset) > _CLOCK_MOVED
        self.clock_offset = offset
        return moved
