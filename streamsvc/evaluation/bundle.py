"""Reads a bundle that `service/recording.py` has written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.core.roles import Payload
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.service.bundle_writer import MAGIC
from streamsvc.service.recording import NAME
from streamsvc.workers.framing import PREFIX, sizes, unpack


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its place in the bundle, its kind, when it was written (`t`), and what it holds."""

    place: int
    kind: str
    t: float
    fields: Mapping[str, Any]
    payload: Payload


def records(path: Path) -> Iterator[Record]:
    """The records of a bundle, or of the session's folder that holds it; a torn last one is left out.

    Raises:
        InvalidRequest: the file is none, or is of another version.
    """
    path = path / NAME if path.is_dir() else path
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", code="no_bundle") from None
    with file:
        if file.readline(len(MAGIC)) != MAGIC:
            raise InvalidRequest(f"{path} is no bundle of this version of streamsvc", code="no_bundle")
        place = 0
        while (found := _next(file)) is not None:
            fields, payload = found
            yield Record(place, str(fields.pop("kind")), float(fields.pop("t", 0.0)), fields, payload)
            place += 1


def _next(file: BinaryIO) -> tuple[dict[str, Any], Payload] | None:
    """The next frame of the file; None: there is no whole one."""
    prefix = file.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    try:
        head_bytes, blob_bytes = sizes(prefix)
        head, blob = file.read(head_bytes), file.read(blob_bytes)
        return unpack(head, blob) if len(blob) == blob_bytes else None
    except (StreamsvcError, AttributeError, KeyError, TypeError, ValueError):  # its head says another thing
        return None


def frame_of(record: Record, session: str, base: float) -> EncodedFrame:
    """The frame of a record of kind "frame". `base`: monotonic seconds of the recording's 0."""
    told = record.fields
    return EncodedFrame(
        session,
        told["track"],
        told["at"],
        base + told["arrived"],
        told["media"],
        record.payload["data"].tobytes(),
        told["codec"],
        told["keyframe"],
        told["gap"],
        told["stamped"],
        told["loss"],
        told["joint"],
        track_of(told["changed"], record.payload["extradata"]) if "changed" in told else None,
    )


def tracks_of(record: Record) -> tuple[MediaTrack, ...]:
    """The tracks of a record of kind "attach"."""
    return tuple(
        track_of(told, record.payload[f"extradata{place}"])
        for place, told in enumerate(record.fields["tracks"])
    )


def track_of(told: Mapping[str, Any], extradata: np.ndarray[Any, Any]) -> MediaTrack:
    """A track with a decoder of its own."""
    context: Any = None
    if "context" in told:
        context = av.CodecContext.create(told["context"], "r")
        if len(extradata):
            context.extradata = extradata.tobytes()
        if told["media"] == "audio":
            context.sample_rate, context.layout = told["rate"], told["layout"]
            if told["format"] is not None:
                context.format = told["format"]
        else:
            context.width, context.height = told["width"], told["height"]
            if told["format"] is not None:
                context.pix_fmt = told["format"]
    on_request = told.get("keyframes_on_request", False)  # earlier recordings do not tell it
    return MediaTrack(told["media"], told["codec"], context, told["pixel_aspect"], on_request)
