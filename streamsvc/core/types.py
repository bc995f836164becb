"""The units that pass between packages: frozen dataclasses, no behaviour.

Those of media start with four fields:
    session, track: their names; a track's is "main" unless several are published
    at       session seconds: since `SessionClock.zero`, server's clock (for audio: of the first sample)
    arrived  monotonic seconds (`clock.now()`) of the last packet behind the unit; never leaves the host
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamsvc.core.orientation import UPRIGHT, Orientation

SAMPLE_RATE = 16_000  # Hz, of every AudioChunk
SPACELESS = "\u0e00-\u109f\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff20"  # Thai to Myanmar, kana, Han

Kind = Literal["audio", "video"]
Outcome = Literal["answer", "closest", "declined"]
DeclineReason = Literal["nothing_yet", "cannot_tell", "not_found", "busy", "late", "cancelled"]
Reason = Literal["", DeclineReason]
By = Literal["tool", "reader", "model"]
Stages = tuple[tuple[str, float], ...]  # a stage, the monotonic second of its end, ...; see core.latency


# --- media ---


@dataclass(frozen=True, slots=True)
class MediaTrack:
    """The decoding parameters of one track."""

    kind: Kind
    codec: str  # libav decoder name: "opus", "vp8", "h264", "aac", ...
    context: Any = None  # a libav codec context, ready to decode (files); None: made from `codec`
    pixel_aspect: float | None = None  # width / height, where the container overrules the bitstream
    keyframes_on_request: bool = False  # the sender answers requests for codec keyframes (PLI)


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One encoded access unit, tapped before the decoder."""

    session: str
    track: str
    at: float
    arrived: float
    kind: Kind
    payload: bytes
    codec: str  # as in MediaTrack
    keyframe: bool  # a codec keyframe
    gap: float = 0.0  # seconds of media known to be lost right before this frame
    stamped: bool = True  # False: `at` is not from a stamp; the frame follows the one before it
    loss: str = "packet_loss"  # why media before it may be missing: a reason of Gap
    joint: bool = False  # other media begin here, right behind what came before: stamps began again
    changed: MediaTrack | None = None  # the track's parameters from here on, where they are others
    alone: bool = False  # a codec keyframe; what refers to it is not decoded


@dataclass(frozen=True, slots=True)
class VideoFrame:
    """A decoded picture; its pixels are converted only when sampled."""

    session: str
    track: str
    at: float
    arrived: float
    handle: Any  # av.VideoFrame, as stored
    width: int  # pixels, as shown: upright and square
    height: int  # the same
    orientation: Orientation = UPRIGHT


@dataclass(frozen=True, slots=True)
class AudioChunk:
    """Contiguous mono samples at SAMPLE_RATE."""

    session: str
    track: str
    at: float
    arrived: float
    samples: NDArray[np.float32]  # in [-1, 1], shape (n,)
    gap: bool = False  # the samples are silence in place of lost audio
    loss: str = "packet_loss"  # why: a reason of Gap

    @property
    def end(self) -> float:
        """Session seconds of the end of the last sample."""
        return self.at + len(self.samples) / SAMPLE_RATE


# --- vision ---


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A picture sampled for the vision models."""

    session: str
    track: str
    at: float
    arrived: float
    frame: VideoFrame
    reason: str  # "first", "scene", "text", "motion", "interval" or "question"
    changed: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)  # x, y, w, h: fractions of the picture
    stages: Stages = ()


@dataclass(frozen=True, slots=True)
class Tag:
    """A label of the whole picture, with a probability in [0, 1]."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Box:
    """One detection. x, y, w, h are fractions of the picture, origin at the top left."""

    label: str
    score: float
    x: float
    y: float
    w: float
    h: float
    colours: tuple[str, ...] = ()  # by measurement (vision/colour.py); none: mixed, or not known


@dataclass(frozen=True, slots=True)
class Sight:
    """What detector and tagger found in one keyframe."""

    session: str
    track: str
    at: float
    arrived: float
    embedding: NDArray[np.float32]  # shape (d,), unit length
    tags: tuple[Tag, ...]
    boxes: tuple[Box, ...]
    blank: bool = False  # the picture is a single flat colour
    stages: Stages = ()
    clip: NDArray[np.float16] | None = None  # of a vision-text model (engines/clip.py); None: none, or blank
    of: str = ""  # id of the keyframe's event
    colours: tuple[str, ...] = ()  # of the whole picture, as of Box
    background: tuple[str, ...] = ()  # the same, of what is behind the boxes
    same_as: float | None = None  # second of the first picture of its scene, where that has come back


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of screen text; x, y, w, h as in Box."""

    text: str
    score: float
    x: float
    y: float
    w: float
    h: float


@dataclass(frozen=True, slots=True)
class ScreenText:
    """All text read from one keyframe, top to bottom. No lines: the text has disappeared."""

    session: str
    track: str
    at: float
    arrived: float
    title: str | None
    lines: tuple[TextLine, ...]
    first_seen: float  # session seconds at which this screen was first seen
    stages: Stages = ()
    of: str = ""  # id of the keyframe's event


# --- speech ---


@dataclass(frozen=True, slots=True)
class Word:
    """One spoken word with its punctuation, without blanks. start, end: session seconds."""

    text: str
    start: float
    end: float
    probability: float = 1.0


@dataclass(frozen=True, slots=True)
class Words:
    """The words recognised since the last unit of this type.

    The first `stable` words are new, never change and are not sent again; the rest is the tentative tail,
    replaced by the next unit. `arrived`: of the last packet of the last stable word (else of the last word).
    """

    session: str
    track: str
    at: float
    arrived: float
    words: tuple[Word, ...]
    stable: int
    final: bool  # the utterance ends here, and no tail is left
    language: str = "en"
    stages: Stages = ()


@dataclass(frozen=True, slots=True)
class Speech:
    """Speech starts (`active`) or stops at `at`."""

    session: str
    track: str
    at: float
    arrived: float
    active: bool
    stages: Stages = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch that will never be captioned."""

    session: str
    track: str
    at: float
    arrived: float
    start: float
    end: float
    reason: str  # packet_loss, missing (from the source), overload, worker_restart or unrecognised


@dataclass(frozen=True, slots=True)
class Cue:
    """One caption of at most two lines on a screen."""

    session: str
    track: str
    at: float
    arrived: float
    text: str
    words: Sequence[Word]
    stable: int  # number of leading words that will never change
    final: bool  # closed, will never change; False: the open cue so far
    language: str = "en"
    stages: Stages = ()

    @property
    def start(self) -> float:
        """Session seconds of the start of the first word."""
        return self.words[0].start

    @property
    def end(self) -> float:
        """Session seconds of the end of the last word."""
        return self.words[-1].end


@dataclass(frozen=True, slots=True)
class Translation:
    """A closed cue in another language, shown at the time of the original."""

    session: str
    track: str
    at: float
    arrived: float
    of: str  # id of the original's caption.final event
    text: str
    language: str
    start: float  # session seconds
    end: float
    stages: Stages = ()
    words: tuple[Word, ...] = ()  # always empty: translated words have no times
    final: bool = True


# --- questions and answers ---


@dataclass(frozen=True, slots=True)
class Evidence:
    """A stretch of the stream that supports a claim."""

    start: float
    end: float
    kind: str  # "speech", "screen", "sight", "timeline" or "image" (an attachment)
    quote: str
    frame: float | None = None  # `at` of a keyframe


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene caption: what is shown since `start`, limited to what the evidence supports."""

    session: str
    track: str
    at: float
    arrived: float
    text: str
    start: float
    end: float
    evidence: tuple[Evidence, ...]
    stages: Stages = ()
    by: Literal["rule", "model"] = "rule"  # "model": by a VLM, unchecked
    scene_id: str = ""  # of its `SceneDelta`s; "": it had none


@dataclass(frozen=True, slots=True)
class Exchange:
    """An earlier question of the same asker with its answer, for follow-ups."""

    question: str
    answer_text: str
    evidence: tuple[Evidence, ...]
    at: float  # monotonic seconds of the answer


@dataclass(frozen=True, slots=True)
class Question:
    """A question about the session."""

    id: str
    text: str
    asked: float  # session seconds
    deadline: float  # monotonic seconds
    audience: str = "asker"  # or "session"
    image: bytes | None = None  # attachment, JPEG or PNG
    form: Mapping[str, Any] | None = None  # JSON Schema of a structured answer; None: plain text
    waited: float = 0.0  # seconds spent waiting for a current keyframe
    history: tuple[Exchange, ...] = ()  # the asker's last exchanges, the oldest first


@dataclass(frozen=True, slots=True)
class Delta:
    """An increment of an answer: checked against its evidence, never retracted."""

    question_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    `outcome`: "answer" states something; "closest" claims nothing, its evidence names the nearest passages;
    "declined" has a `reason`. `by`: an exact tool, the extractive reader, or a generative model.
    """

    question_id: str
    text: str
    supported: bool  # stated, and held by the evidence; a model's own word on a picture is not
    evidence: tuple[Evidence, ...] = ()
    stages: Stages = ()
    values: tuple[str, ...] = ()  # the bare values where they are known: a count, the items of a list
    outcome: Outcome = "answer"
    reason: Reason = ""  # of a declined one alone
    by: By = "tool"


# --- events and access ---


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a session's log."""

    session: str
    track: str
    epoch: str
    id: str
    type: str
    at: float
    age_ms: float
    stages: Mapping[str, float]  # milliseconds
    body: Mapping[str, Any]
    seq: int | None  # number of a durable event; None: ephemeral
    after: int = 0  # of an ephemeral event: the last `seq` before it
    audience: str | None = None  # id of the only subscriber that may see it; None: all

    @property
    def durable(self) -> bool:
        """Whether the event is stored and numbered."""
        return self.seq is not None


@dataclass(frozen=True, slots=True)
class Grants:
    """The rights of a credential."""

    tenant: str
    session: str  # "*": any session of the tenant
    may: frozenset[str]  # of `service.auth.PERMISSIONS`
    expires: float | None  # Unix seconds; None: never
    holder: str  # which credential: the id of a token; "owner": the API key; "local": none, an open server
