"""The units that pass between rooms, and nothing else.

Every unit that comes from media carries four fields first:

    session  id of the session
    track    name of the track, "main" unless several cameras or languages are published
    at       seconds since the session's `started_utc`, on the server's clock (for audio: of the first sample)
    arrived  monotonic seconds (`clock.now()`) at which the last packet behind the unit arrived; it rides along
             unchanged, and never leaves the host

The age of anything published is the time of publication minus `arrived`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz, of every AudioChunk

SPACELESS = "\u0e00-\u109f\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff20"  # written without blanks: Thai to Myanmar, kana, Han (in a regex)

Kind = Literal["audio", "video"]
Stages = Mapping[str, float]  # seconds spent per stage, e.g. {"decode": 0.004, "asr": 0.11}


# --- media, on its way in ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MediaTrack:
    """What must be known to decode one track. `codec`: libav's decoder name ("opus", "vp8", "h264", "aac", ...).

    `context`: a libav codec context that is ready to decode (files carry parameters that no name tells), or None:
    the decoder makes one from `codec`.
    """

    kind: Kind
    codec: str
    context: Any = None


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One encoded access unit, tapped before the decoder. `codec`: as in MediaTrack. `gap`: see below."""

    session: str
    track: str
    at: float
    arrived: float
    kind: Kind
    payload: bytes
    codec: str
    keyframe: bool
    gap: float = 0.0  # seconds of media lost right before this frame (known loss only)


class Publisher(Protocol):
    """Whoever sends the media of a session: a WebRTC peer or a source."""

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


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A decoded picture. `handle` is an av.VideoFrame on a CPU (DLPack on a GPU, later); it is converted once, when sampled."""

    session: str
    track: str
    at: float
    arrived: float
    handle: Any
    width: int  # pixels
    height: int  # pixels


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Contiguous mono samples, float32 in [-1, 1], shape (n,), at SAMPLE_RATE. `gap`: the samples are silence put in for lost audio."""

    session: str
    track: str
    at: float
    arrived: float
    samples: NDArray[np.float32]
    gap: bool = False

    @property
    def end(self) -> float:
        """Session time of the end of the last sample, in seconds."""
        return self.at + len(self.samples) / SAMPLE_RATE


# --- sight --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A picture worth looking at. `reason`: "first", "scene", "text", "motion", "interval" or "question"."""

    session: str
    track: str
    at: float
    arrived: float
    frame: VideoFrame
    reason: str
    changed: tuple[float, float, float, float] = (
        0.0,
        0.0,
        1.0,
        1.0,
    )  # x, y, w, h of what changed, as fractions of the picture


@dataclass(frozen=True, slots=True)
class Tag:
    """What a whole picture shows, with a probability in [0, 1]."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Box:
    """One detected thing. x, y, w, h are fractions of the picture, origin at the top left."""

    label: str
    score: float
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class Sight:
    """What the vision models saw in one keyframe. `embedding`: float32, shape (d,), unit length.

    `clip`: of a vision-text model, float16, shape (d,); None where there is none, or the picture is blank. Times a text's vector of that
    model: by how many standard deviations the text stands out.
    """

    session: str
    track: str
    at: float
    arrived: float
    embedding: NDArray[np.float32]
    tags: tuple[Tag, ...]
    boxes: tuple[Box, ...]
    blank: bool = False  # the picture is a single flat colour: nothing is shown
    stages: Stages = field(default_factory=dict)
    clip: NDArray[np.float16] | None = None
    of: str = ""  # id of the keyframe's event


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of text on the screen; x, y, w, h as in Box."""

    text: str
    score: float
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class ScreenText:
    """All text read from one keyframe, top to bottom. No lines: the screen that had text has none now."""

    session: str
    track: str
    at: float
    arrived: float
    title: str | None
    lines: tuple[TextLine, ...]
    first_seen: float  # session seconds at which this screen was first seen
    stages: Stages = field(default_factory=dict)
    of: str = ""  # id of the keyframe's event


# --- speech -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word with its punctuation, no surrounding blanks. start, end: session seconds."""

    text: str
    start: float
    end: float
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Words:
    """What was heard since the last unit of this type.

    The first `stable` words are new, will never change and are never sent again; the rest is the tentative tail,
    replaced by the next unit. `final`: the utterance ends here, and no tail is left.
    """

    session: str
    track: str
    at: float
    arrived: (
        float  # of the packet that holds the last stable word's last sample (last word's when none is stable)
    )
    words: tuple[Word, ...]
    stable: int
    final: bool
    language: str = "en"
    stages: Stages = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Speech:
    """Somebody began (`active`) or stopped speaking at `at`."""

    session: str
    track: str
    at: float
    arrived: float
    active: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch that will never be captioned, and why: "packet_loss", "overload" or "worker_restart"."""

    session: str
    track: str
    at: float
    arrived: float
    start: float
    end: float
    reason: str


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption: at most two lines on a screen. `final`: closed, never changed again; else the open cue so far."""

    session: str
    track: str
    at: float
    arrived: float
    text: str
    words: Sequence[Word]
    stable: int  # how many first words will never change
    final: bool
    language: str = "en"
    stages: Stages = field(default_factory=dict)

    @property
    def start(self) -> float:
        """Session time of the first word's start, in seconds."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """Session time of the last word's end, in seconds."""
        return self.words[-1].end


@dataclass(frozen=True, slots=True)
class Translation:
    """A closed cue in another language: `of` is the id of its caption.final, and it is shown when that is."""

    session: str
    track: str
    at: float
    arrived: float
    of: str
    text: str
    language: str
    start: float  # session seconds
    end: float
    stages: Stages = field(default_factory=dict)
    words: tuple[Word, ...] = ()  # nobody knows when a word was said that nobody said
    final: bool = True


@dataclass(frozen=True, slots=True)
class Sound:
    """A sound that is no speech (a seam: no model here hears one yet)."""

    session: str
    track: str
    at: float
    arrived: float
    start: float
    end: float
    label: str


# --- questions and answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evidence:
    """A stretch of the stream that supports a claim. kind: "speech", "screen", "sight", "timeline" or "image" (one sent along).

    `frame`: `at` of a keyframe.
    """

    start: float
    end: float
    kind: str
    quote: str
    frame: float | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene caption: what is shown since `start`, true only of what the evidence holds. `by` "model": nothing here can check it."""

    session: str
    track: str
    at: float
    arrived: float
    text: str
    start: float
    end: float
    evidence: tuple[Evidence, ...]
    stages: Stages = field(default_factory=dict)
    by: Literal["rule", "model"] = "rule"


@dataclass(frozen=True, slots=True)
class Before:
    """What an asker asked last, and was told at monotonic second `at`. `image`: it was about a picture that came with it.

    `listed`: the last answer that was a list, where everything asked since was about that.
    """

    question: str
    answer: Answer
    at: float
    image: bool = False
    listed: Answer | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the session. `asked`: session seconds. `deadline`: monotonic seconds. audience: "asker" or "session"."""

    id: str
    text: str
    asked: float
    deadline: float
    audience: str = "asker"
    image: bytes | None = None  # JPEG or PNG
    form: Mapping[str, Any] | None = (
        None  # the JSON Schema that its answer fits, as `forms.read` gives it; None: plain words
    )
    before: Before | None = None  # what it may follow
    waited: float = 0.0  # seconds that it has waited for a picture of now


@dataclass(frozen=True, slots=True)
class Delta:
    """An increment of an answer, checked against its evidence before it is shown, never retracted."""

    question_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `supported` false: it is a refusal, and there is no evidence.

    `values`: what was asked for, without words around it, where that is known: a count, the things of a list.
    """

    question_id: str
    text: str
    supported: bool
    evidence: tuple[Evidence, ...] = ()
    stages: Stages = field(default_factory=dict)
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """What a model is shown: timed lines, oldest first. `tokens`: their estimated cost."""

    lines: tuple[Evidence, ...]
    sights: tuple[Sight, ...]
    start: float
    end: float
    tokens: int


# --- what leaves the session --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a session's log. Durable events have a `seq` of their own; ephemeral ones carry the last one as `after`."""

    session: str
    track: str
    epoch: str
    id: str
    type: str
    at: float
    age_ms: float
    stages: Mapping[str, float]  # milliseconds
    body: Mapping[str, Any]
    seq: int | None  # None: ephemeral
    after: int = 0
    audience: str | None = None  # None: everybody; else the id of the one subscriber who may see it

    @property
    def durable(self) -> bool:
        """Whether the event is stored and counted."""
        return self.seq is not None


@dataclass(frozen=True, slots=True)
class Grants:
    """What the bearer of a token may do. `session` "*": any of the tenant. `expires`: Unix seconds, None: never."""

    tenant: str
    session: str
    publish: bool
    subscribe: bool
    ask: bool
    expires: float | None
