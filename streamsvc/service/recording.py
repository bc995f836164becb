"""Recorder: writes all that a session is given, and all that the moment decides in it, to a bundle.

A bundle is one file in the session's folder: a line with its version, then frames of `workers/framing.py`,
each with a `kind` and `t`, seconds since the session was made. In the order in which things happened:

    session         settings without secrets, options, which roles there are, what is known of the models
    examples        what questions are routed by, once it is there
    zero            second 0 of the session is another moment from here on
    frame, attach, state                                    media, as they were tapped
    ask, cancel, watch, unwatch, search, update, reconfigure, flush, end     what clients asked for
    level, outage                                           what the load controller decided
    call; reply, item, done, failed, dropped                a request's digest; what came back; not awaited
    take, point                                             how much a stage took from a queue; where it went
    event           as published
    over, cut       the session was recorded to its end; the recording stopped before it

One thread writes. What it is behind by is bounded: over the bound the recording stops, and the session goes
on.
Media, speech, questions and answers are in a bundle: it is erased with its session.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import av
import numpy as np
import structlog
from pydantic import SecretStr

import streamsvc
from streamsvc.answers import router
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock, metrics
from streamsvc.core.config import Group, Settings, Store
from streamsvc.core.context import Roles
from streamsvc.core.errors import CapacityError, InvalidRequest, StreamsvcError
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.roles import Payload, Role, RoleAround
from streamsvc.core.session_clock import SessionClock
from streamsvc.core.tape import Tape
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.events.log import EventLog
from streamsvc.ingest import decoders
from streamsvc.service.auth import SIGNED_ADDRESS
from streamsvc.service.bundle_writer import BundleWriter
from streamsvc.workers.framing import error_payload, pack

logger = structlog.get_logger()
T = TypeVar("T")
Fields = dict[str, Any]
NAME = "recording.bundle"  # of the file in the session's folder
# Groups of settings that a replay needs; never server (keys, addresses) nor what holds credentials or paths.
_GROUPS = ("limits", "ingest", "sample", "hear", "see", "think", "embed", "budget", "store")
_LEFT_OUT = {"ice_servers", "advertise", "rtmp_listen", "srt_listen", "labels"}
_REMOTE = ("model", "text_model", "timeout", "images", "images_per_minute", "image_pixels")


def check_recording(options: SessionOptions, store: Store) -> None:
    """Check whether a session may be recorded, where that was asked for. Raises InvalidRequest."""
    if options.record and not options.stored:
        raise InvalidRequest(
            "no_store and record exclude each other: a recording is stored", code="cannot_record"
        )
    if options.record and store.record == "off":
        raise InvalidRequest(
            "this service records no sessions: start it with --record, or set store.record",
            code="recording_off",
        )


def tell_stop(log: EventLog, session: str, reason: str) -> None:
    """Tell that a recording ends before its session does."""
    metrics.recordings_stopped.labels(reason).inc()
    logger.warning("recording stopped", session=session, reason=reason)
    told = f"the recording of this session has ended early: {reason}"
    log.emit("error", StreamsvcError(told, code="recording_stopped").body())


class Recorder(Tape):
    """Records one session.

    Args:
        folder: of the session.
        settings: of the service.
        options: of the session.
        roles: of the service.

    Raises:
        CapacityError: the bundle cannot be made.
    """

    def __init__(self, folder: Path, settings: Settings, options: SessionOptions, roles: Roles) -> None:
        self._roles = roles
        self._calls = 0
        self._examples_told = False
        self._names: dict[str, str] = {}  # of clients and askers: token digests and addresses stay outside
        self._base = clock.now()
        self._clock: SessionClock | None = None
        self._zero = 0.0
        self._told: Callable[[str], None] = lambda reason: None
        try:
            most = settings.store.record_bytes
            self._writer = BundleWriter(folder / NAME, most, lambda reason: self._told(reason))
        except OSError:
            raise CapacityError(
                "the recording of a session cannot be written now", code="store_failed"
            ) from None
        self._head = head(folder.name, settings, options, roles)

    # --- Tape ---

    def begin(self, session_clock: SessionClock, on_stop: Callable[[str], None]) -> None:
        """See Tape."""
        self._clock, self._told = session_clock, on_stop
        self._base = self._zero = session_clock.zero
        self.write("session", self._head)
        self._tell_examples()

    def note(self, kind: str, told: object = None) -> None:
        """See Tape."""
        if self._writer.open:
            match kind, told:
                case "cancel", (number, asker):
                    told = number, self._name(asker)
                case "event", str(text):  # an address in it would open what it names long after
                    told = SIGNED_ADDRESS.sub(r"\g<path>", text)
                case "flush", client:
                    told = self._name(client)
            fields, payload = self._described(told)
            self.write(kind, fields, payload)

    def idle(self, name: str) -> None:
        """See Tape."""
        self.write("take", {"name": name, "count": 0})

    async def point(self, name: str) -> None:
        """See Tape."""
        if name == "index":  # before it is asked whether the examples are there
            self._tell_examples()
        self.write("point", {"name": name})

    async def take(
        self, name: str, ring: Ring[T], most: int | None = None, *, wanted: bool = True
    ) -> list[T]:
        """See Tape."""
        try:
            items = await super().take(name, ring, most, wanted=wanted)
        except Closed:
            self.write("take", {"name": name, "count": -1})
            raise
        self.write("take", {"name": name, "count": len(items)})
        return items

    def role(self, name: str, role: Role) -> Role:
        """See Tape."""
        return _RecordedRole(name, role, self)

    def close(self) -> None:
        """See Tape."""
        self.write("over")
        self._writer.close()

    # --- records ---

    def call(self, role: str, op: str, payload: Payload) -> int:
        """Write that a role is asked. Returns the number of the call."""
        self._calls += 1
        if role == "embed":  # a question may be routed by them now
            self._tell_examples()
        if self._writer.open:
            asked = {"call": self._calls, "role": role, "op": op, "digest": digest(payload)}
            self.write("call", asked)
        return self._calls

    def write(
        self, kind: str, fields: Mapping[str, Any] | None = None, payload: Payload | None = None
    ) -> None:
        """Queue one record; what cannot be written ends the recording, never the session."""
        if not self._writer.open:
            return
        if self._clock is not None and self._clock.zero != self._zero:
            self._zero = self._clock.zero
            self.write("zero", {"zero": self._zero - self._base, "media_paced": self._clock.media_paced})
        try:
            record = pack({"kind": kind, "t": clock.now() - self._base, **(fields or {})}, payload or {})
        except (TypeError, ValueError):
            self._writer.stop("format")
        else:
            self._writer.put(record)

    def _tell_examples(self) -> None:
        """Write what questions are routed by, once it is there."""
        embed = self._roles.embed
        if self._examples_told or embed is None or not self._writer.open:
            return
        if vectors := router.example_vectors(embed):
            self._examples_told = True
            self.write("examples", {}, {"vectors": np.stack(vectors)})

    def _described(self, told: object) -> tuple[Fields, Payload]:
        """What a `note` tells, as fields and payload of a record."""
        match told:
            case EncodedFrame():
                return self._frame(told)
            case (QuestionRequest() as new, float(asked)):
                return self._question(new, asked)
            case SpeechOptions():
                return {"told": asdict(told)}, {}
            case (SpeechOptions() as options, str(reason)):
                return {"told": [asdict(options), reason]}, {}
            case (MediaTrack(), *_):
                described = [track_fields(track) for track in told if isinstance(track, MediaTrack)]
                extradata = {f"extradata{place}": data for place, (_, data) in enumerate(described)}
                return {"tracks": [fields for fields, _ in described]}, extradata
            case (str(reason), StreamsvcError() as error):
                return {"told": [reason, {**error.body()["error"], "type": error.type}]}, {}
            case _:
                return {"told": told}, {}

    def _frame(self, frame: EncodedFrame) -> tuple[Fields, Payload]:
        fields: Fields = {
            name: getattr(frame, name)
            for name in ("track", "at", "codec", "keyframe", "gap", "stamped", "loss", "joint")
        }
        fields |= {"media": frame.kind, "arrived": frame.arrived - self._base}
        payload: Payload = {"data": np.frombuffer(frame.payload, np.uint8)}
        if frame.changed is not None:
            fields["changed"], payload["extradata"] = track_fields(frame.changed)
        return fields, payload

    def _question(self, new: QuestionRequest, asked: float) -> tuple[Fields, Payload]:
        told = {
            "text": new.text,
            "question_id": new.question_id,
            "deadline_ms": new.deadline_ms,
            "audience": new.audience,
            "client": self._name(new.client),
            "asker": self._name(new.asker),
            "form": new.form,
        }
        image = {} if new.image is None else {"image": np.frombuffer(new.image, np.uint8)}
        return {"told": told, "asked": asked - self._base, "costs": costs_of(self._roles)}, image

    def _name(self, client: object) -> str | None:
        """Another name for a client, always the same; None: nobody."""
        return (
            None if client is None else self._names.setdefault(str(client), f"client-{len(self._names) + 1}")
        )


class _RecordedRole(RoleAround):
    """A role whose requests and replies are recorded."""

    def __init__(self, name: str, inner: Role, recorder: Recorder) -> None:
        super().__init__(inner)
        self._name = name
        self._recorder = recorder

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        number = self._recorder.call(self._name, op, payload)
        try:
            result = await self.inner.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
        except StreamsvcError as error:
            self._recorder.write("failed", {"call": number, "error": error_payload(error)})
            raise
        except asyncio.CancelledError:
            self._recorder.write("dropped", {"call": number})
            raise
        self._recorder.write("reply", {"call": number}, result)
        return result

    async def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """See Role."""
        number = self._recorder.call(self._name, op, payload)
        items: Any = self.inner.stream(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
        async with contextlib.aclosing(items):
            try:
                async for item in items:
                    self._recorder.write("item", {"call": number}, item)
                    yield item
            except StreamsvcError as error:
                self._recorder.write("failed", {"call": number, "error": error_payload(error)})
                raise
            except asyncio.CancelledError:
                self._recorder.write("dropped", {"call": number})
                raise
        self._recorder.write("done", {"call": number})


# --- what records hold --------------------------------------------------------------------------------------


def digest(payload: Payload) -> str:
    """A digest of a request: of its plain values, and of the shape and bytes of its arrays."""
    arrays = {name: value for name, value in payload.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in payload.items() if name not in arrays}
    found = hashlib.blake2b(json.dumps(plain, sort_keys=True, default=str).encode(), digest_size=12)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def settings_of(settings: Settings) -> Fields:
    """The settings that a replay needs, as groups of plain values: no key, no address, no path."""
    groups: Fields = {
        group: {
            name: value
            for name, value in getattr(settings, group)
            if name not in _LEFT_OUT and not isinstance(value, SecretStr | Path | Group)
        }
        for group in _GROUPS
    }
    groups["remote"] = settings.remote.model_dump(include=set(_REMOTE))
    groups["models"] = {"profile": settings.models.profile}
    return groups


def costs_of(roles: Roles) -> list[list[Any]]:
    """What the models' work has cost so far: role, unit, samples."""
    return [[*key, list(samples)] for key, samples in roles.cost_tracker.costs.samples.items()]


def head(name: str, settings: Settings, options: SessionOptions, roles: Roles) -> Fields:
    """The first record of a bundle."""
    return {
        "name": name,
        "versions": {"streamsvc": streamsvc.__version__, "av": av.__version__, "numpy": np.__version__},
        "settings": settings_of(settings),
        "speech": asdict(options.speech),
        "vision": asdict(options.vision),
        "lossless": options.lossless,
        "roles": {
            "embed": roles.embed is not None,
            "vlm": roles.vlm is not None,
            "sight": roles.sight is not None,
            "reads": roles.reads,
        },
        "costs": costs_of(roles),
    }


def track_fields(track: MediaTrack) -> tuple[Fields, Any]:
    """The parameters to decode a track by, and its extradata."""
    fields: Fields = {
        "media": track.kind,
        "codec": track.codec,
        "pixel_aspect": track.pixel_aspect,
        "keyframes_on_request": track.keyframes_on_request,
    }
    extradata = bytes(track.context.extradata or b"") if track.context is not None else b""
    return fields | decoders.parameters(track), np.frombuffer(extradata, np.uint8)
