"""Bodies of the sessions' requests and answers, as OpenAPI shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from streamsvc.core.config import Phrases
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions

Terms = Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=200)]  # security limits


class NewSession(BaseModel):
    """Body of POST /v1/sessions."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(
        None,
        max_length=4096,
        description="rtsp://…, http(s)://… or file:/…; null: a publisher connects by WHIP",
    )
    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,39}$",
        description="under which it can be published to and followed, again and again; null: its id alone",
    )
    speed: float | Literal["max"] = 1.0
    language: str | None = Field(None, max_length=16)
    vocabulary: Terms = Field(default_factory=list)
    translate: bool | None = Field(
        None, description="translate captions to English; requires a multilingual model"
    )
    replace: Phrases = Field(
        default_factory=dict, description="phrases of captions and the spelling that replaces each"
    )
    adapter: str | None = Field(
        None, max_length=64, description="LoRA adapter of the VLM (profile gpu), by the name of its folder"
    )
    no_store: bool = False
    record: bool | None = Field(
        None, description="record all that comes in, for a replay; null: as the service is started"
    )

    def options(self) -> SessionOptions:
        """The options of the session."""
        speech = SpeechOptions(
            language=self.language,
            vocabulary=tuple(self.vocabulary),
            translate=self.translate,
            replace=self.replace,
        )
        vision = VisionOptions(adapter=self.adapter)
        return SessionOptions(speech, vision, stored=not self.no_store, record=self.record)


class SessionUpdate(BaseModel):
    """Body of PATCH /v1/sessions/{id}; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    language: str | None = Field(
        None, max_length=16, description="of the speech; null: it is detected in each utterance"
    )
    vocabulary: Terms | None = Field(None, description="names and terms to expect; null: none")
    replace: Phrases | None = Field(
        None, description="phrases of captions and the spelling that replaces each; null: the service's own"
    )
    translate: bool | None = Field(None, description="translate captions to English; null: as the service")

    def apply(self, sessions: Sessions, session_id: str) -> Session:
        """Change a live session. Raises what `Sessions.update` raises, and InvalidRequest: no field."""
        changed = self.model_fields_set
        if not changed:
            raise InvalidRequest(
                "nothing to change: give language, vocabulary, replace or translate", code="bad_update"
            )
        wanted = SpeechOptions(
            language=self.language,
            vocabulary=tuple(self.vocabulary or ()),
            translate=self.translate,
            replace=self.replace or {},
        )
        return sessions.update(session_id, wanted, changed)


# --- answers ------------------------------------------------------------------------------------------------


class SessionBody(BaseModel):
    """A session."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="of this broadcast alone")
    name: str | None = Field(description="leads to the live, else the newest broadcast of this name")
    state: Literal["created", "live", "stalled", "ended"]
    started_utc: str
    tracks: list[str]
    events_url: str
    whip_url: str
    overlay_url: str
    captions_url: str


class UpdatedSession(SessionBody):
    """A session, and how its speech is recognised now."""

    language: str | None
    vocabulary: list[str]
    replace: dict[str, str]
    translate: bool


class SessionEntry(SessionBody):
    """A session in the list, with what it is recognised by."""

    title: str | None = Field(description="the first title that was read on the screen")
    seconds: float = Field(description="length so far")
    ended_utc: str | None
    thumbnail_url: str | None = Field(description="the newest keyframe, for an <img>")
    last_caption: str | None
    error: dict[str, Any] | None = Field(description="why the session has failed")


class SessionPage(BaseModel):
    """One page of the sessions that the token may see, the newest first."""

    sessions: list[SessionEntry]
    next: str | None = Field(description="`after` of the next page; null: this is the last one")


class DeletedSession(BaseModel):
    """A session that was ended, and with `purged` erased."""

    id: str
    purged: bool


class Stats(BaseModel):
    """The body of latency.report as of now, the state, and what the publisher sends."""

    model_config = ConfigDict(extra="allow")

    ages: dict[str, dict[str, int]] = Field(description="milliseconds by kind: p50, p95 and their count")
    coverage: float | None = Field(
        description="captioned of all seconds of detected speech and lost audio; no share of spoken words"
    )
    speech: dict[str, float] = Field(description="captioned_seconds, missing_seconds and gap_seconds")
    backlog: float = Field(description="seconds of audio that wait to be recognised")
    level: int
    reason: str
    message: str = Field(description="what is late and why, what is reduced, what still works")
    reduced: list[str]
    state: str
    ingest: dict[str, Any] = Field(
        description="by track: codec, frames, bytes, rates, gaps, age of the last packet; and the "
        "counts of the transport"
    )


class Capacity(BaseModel):
    """Sessions with a publisher, and how many more get a place now."""

    sessions: int = Field(description="with a publisher")
    limit: int = Field(description="of them: `limits.sessions`")
    free: dict[str, int] = Field(
        description="sessions more that fit if all are of one kind: `audio` alone, or `audio_video`"
    )
    bound_by: str = Field(
        description="what allows no more: `limit`, `cpu`, `event_loop`, `lag`, `draining`, a wait that has "
        "raised the level (`backlog`, `see_wait`, `think_wait`), or `level`: one is held by the operator"
    )
    level: int
    reason: str
    message: str = Field(description="what is late and why, what is reduced, what still works")
    reduced: list[str]
    draining: bool


class Match(BaseModel):
    """One thing that was said or shown."""

    start: float
    end: float
    kind: str
    text: str
    score: float
    frame_url: str | SkipJsonSchema[None] = Field(default_factory=lambda: None)
