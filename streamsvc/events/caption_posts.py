"""Captions for YouTube and Zoom: how a post looks, which one comes next under which number, and when it is tried again. Pure.

Sources: support.google.com/youtube/answer/6077032 (Closed Captions over HTTP for YouTube Live Streams) and
support.zoom.us/hc/en-us/articles/115002212983 (third-party closed captioning). Both number the posts by `seq`: one
more for each new post, unchanged for a retry. YouTube opens its answers with its own time, and refuses times more than
60 s off; it allows heartbeats and asks for none. Zoom tells the last number that it took by GET ...closedcaption/seq.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from streamsvc.speech.captions import wrap

_ENTITY = re.compile(r"&(?=#?\w+;)")
_NOT_YET = (
    400  # Zoom: the meeting has not started. YouTube: times more than 60 s off, or a body that it cannot read
)
_BUSY = 429
_UNCLEAR = frozenset({408, 425, 500, 502, 503, 504})  # it may have been taken, or not


class State(enum.Enum):
    """Where a push stands."""

    READY = "ready"
    RETRYING = "retrying"  # the target does not answer, or not well
    WAITING = "waiting"  # the target says that it does not take captions now (a meeting that has not started)
    FAILED = "failed"  # for good
    ENDED = "ended"  # with the session, or deleted


@dataclass(frozen=True, slots=True)
class Provider:
    """What a target asks for."""

    content_type: str
    batch: int  # cues in one post, at most
    oldest: float  # seconds since a cue was spoken; older ones are dropped
    meeting: bool  # Zoom's ways: it takes the language, and tells the last number by GET …/seq


PROVIDERS = {
    # No charset: it is UTF-8 by definition. YouTube refuses times more than 60 s off its own (400).
    "youtube": Provider("text/plain", 8, 55.0, meeting=False),
    # Zoom shows a caption when it comes, so an old one would stand under other words.
    "zoom": Provider("text/plain; charset=utf-8", 1, 20.0, meeting=True),
}


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds and counts of a push; the defaults are for the real services."""

    first: float = 0.5  # before the first retry; doubled for each further one
    most: float = 8.0  # ... up to this
    slow: float = 5.0  # between tries while the target is not ready
    refusals: int = (
        5  # Zoom asks to retry every code, 403 and 405 too: so often in a row, then the push stops
    )
    not_yet: int = 3  # times that one post may be answered "not yet"; then newer words are tried
    timeout: float = 5.0  # of one request
    grace: float = 3.0  # to post what is left at the end of the session
    lines: int = 32  # cues that wait; full: the oldest are dropped


@dataclass(frozen=True, slots=True)
class Line:
    """A closed cue. `spoken`: when it began, in seconds since the session did. `text`: plain, lines parted by a line feed."""

    spoken: float
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try. `status` None: nothing. `sent`, `came`: seconds since the session began."""

    status: int | None
    body: str
    sent: float
    came: float


# --- formats --------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    """Text that no reader takes for markup, in at most two lines of 42 characters, as `captions.py` cuts its cues; "" if nothing."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    shown = _ENTITY.sub("\uff06", shown.replace("<", "\u2039").replace(">", "\u203a"))
    return "\n".join(wrap(shown))


def stamp(started_utc: datetime, seconds: float) -> str:
    """YYYY-MM-DDTHH:MM:SS.mmm, UTC: `seconds` after the start."""
    moment = started_utc.astimezone(UTC) + timedelta(milliseconds=round(seconds * 1000))
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds")


def youtube_body(lines: Sequence[Line], started_utc: datetime, ahead: float) -> str:
    """Cues as YouTube reads them: a time stamp and a line of text each, with a line feed behind the last one too.

    Args:
        lines: what was said.
        started_utc: when `spoken` was 0.
        ahead: seconds that YouTube's clock is ahead of ours.
    """
    return "".join(
        stamp(started_utc, line.spoken + ahead) + "\n" + line.text.replace("\n", "<br>") + "\n"
        for line in lines
    )


def zoom_body(lines: Sequence[Line]) -> str:
    """Cues as Zoom reads them: text, and a line feed where a line ends."""
    return "".join(f"{line.text}\n" for line in lines)


def server_time(body: str) -> datetime | None:
    """YouTube's clock, which opens every answer of it; None: this answer does not tell it."""
    try:
        return datetime.strptime(body.strip()[:23], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None


# --- decisions ------------------------------------------------------------------------------------------------------


class Desk:
    """What is posted, under which number, and when it is tried again. No I/O; times are seconds since the session began.

    Args:
        provider: whom it is for.
        pace: waits and limits.
        started_utc: when the session began.
        on_drop: called with the number of cues that will never be posted.
    """

    def __init__(
        self, provider: Provider, pace: Pace, started_utc: datetime, on_drop: Callable[[int], None]
    ) -> None:
        self.state = State.READY
        self.seq = 1  # of the present post, or of the next one
        self.ahead = 0.0  # seconds that the target's clock is ahead of ours
        self.asks = provider.meeting  # whether the target's last number should be asked for now
        self.sent = self.retried = 0  # cues, posts
        self.error: tuple[str, str] | None = None  # code, message
        self._provider, self._pace, self._started, self._on_drop = provider, pace, started_utc, on_drop
        self._lines: tuple[Line, ...] = ()
        self._tries = self._refusals = self._not_yet = 0
        self._unclear = False  # the present post may have been taken already

    def begin(self, lines: Sequence[Line]) -> None:
        """Take the lines of the next post."""
        self._lines, self._tries, self._not_yet, self._unclear = tuple(lines), 0, 0, False

    def post(self, now: float) -> tuple[Line, ...]:
        """The lines to post now under `seq`; none: this post is done, or the push is over."""
        kept = tuple(line for line in self._lines if now - line.spoken <= self._provider.oldest)
        if len(kept) < len(self._lines):
            self._on_drop(len(self._lines) - len(kept))
            if not kept:
                self._give_up()
        self._lines = kept
        if self.state is State.FAILED or not kept:
            return ()
        self.retried += self._tries > 0
        self._tries += 1
        return kept

    def body(self) -> str:
        """The body of the present post."""
        return (
            zoom_body(self._lines)
            if self._provider.meeting
            else youtube_body(self._lines, self._started, self.ahead)
        )

    def told(self, answer: Answer) -> float:
        """Learn what came of it; returns seconds to wait before the next `post`."""
        moved = False if self._provider.meeting else self._set_clock(answer)
        status = answer.status
        if status is not None and 200 <= status < 300:
            self.sent += len(self._lines)
            self.seq += 1
            self._lines, self._refusals, self.state = (), 0, State.READY
            return 0.0
        if status is None or status in _UNCLEAR or status == _BUSY:
            self._unclear |= status != _BUSY
            self._note(
                State.RETRYING,
                "no_answer" if status is None else f"status_{status}",
                "it does not answer, or is overloaded",
            )
            return self._pace.slow if status == _BUSY else self._backoff(self._tries)
        self.asks = self._provider.meeting  # a wrong number may be behind it
        if status == _NOT_YET:
            self._not_yet += 1
            self._note(State.WAITING, "status_400", "it does not take captions now")
            if self._not_yet >= self._pace.not_yet:
                self._on_drop(len(self._lines))
                self._give_up()
            return self._pace.first if moved else self._pace.slow
        self._refusals += 1
        self._note(
            State.RETRYING,
            f"status_{status}",
            "it refuses captions: the address is wrong or has expired, or captions are off",
        )
        if self._refusals >= self._pace.refusals:
            self.state = State.FAILED
            return 0.0
        return self._backoff(self._refusals)

    def last_was(self, number: int | None) -> None:
        """What the target says was the last number that it took; None: it does not say."""
        self.asks = False
        if number is None:
            return
        if self._unclear and number == self.seq:  # it was taken, and the answer was lost
            self.sent += len(self._lines)
            self._lines, self._unclear, self._refusals, self.state = (), False, 0, State.READY
        self.seq = number + 1

    def fail(self, code: str, message: str) -> None:
        """Stop for good."""
        self._note(State.FAILED, code, message)

    def close(self) -> None:
        """The push is over; what was being posted counts as dropped, unless it was posted."""
        if self._lines:
            self._on_drop(len(self._lines))
            self._lines = ()
        if self.state is not State.FAILED:
            self.state = State.ENDED

    def _give_up(self) -> None:
        """The present post will not be tried again. Where it may have been taken, its number is not used for other words."""
        if self._unclear:
            self.seq += 1
            self.asks = self._provider.meeting
        self._lines = ()

    def _backoff(self, tries: int) -> float:
        return float(min(self._pace.most, self._pace.first * 2 ** min(tries - 1, 16)))

    def _note(self, state: State, code: str, message: str) -> None:
        self.state, self.error = state, (code, message)

    def _set_clock(self, answer: Answer) -> bool:
        """Measure the target's clock against ours; returns whether that changes much."""
        found = server_time(answer.body)
        if found is None:
            return False
        ahead = (found - self._started).total_seconds() - (answer.sent + answer.came) / 2
        if abs(ahead) <= (answer.came - answer.sent) / 2:
            ahead = 0.0  # no more than the way there and back leaves open
        moved, self.ahead = abs(ahead - self.ahead) > 1.0, ahead
        return moved
