"""One connection of a source, demuxed by libav: bytes in, packets as plain data out.

So it may run in another process (`source_child`), which neither opens files nor connects: whatever it reads
comes from its `Inputs`.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol

import av
import av.error

from streamsvc.core.errors import SourceError
from streamsvc.core.types import Kind, MediaTrack
from streamsvc.ingest import container as containers
from streamsvc.ingest.file_parts import Part, Span
from streamsvc.ingest.source_policy import Place
from streamsvc.ingest.web_client import Readable

Form = Literal["file", "web", "hls", "rtsp", "rtmp"]
FORMS: tuple[Form, ...] = ("file", "web", "hls", "rtsp", "rtmp")


class Inputs(Protocol):
    """Where a demuxer's bytes come from."""

    def open(self) -> Readable:
        """The source itself, from its start; with `seek` where it has one."""
        ...

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        """A playlist, a segment or a key that libav asks for."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What to open.

    Attributes:
        name: for messages, without credentials.
        form: "file" and "web": the bytes that its inputs open; "hls": a playlist, whose URLs they open;
            "rtsp" and "rtmp": the URL of a relay.
        url: of a playlist, or a relay.
        limit: seconds without an answer; 0: none.
    """

    name: str
    form: Form = "file"
    url: str = ""
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What a container tells.

    Attributes:
        form: libav's name of its format.
        duration: seconds; None: it tells none.
        start: the earliest stamp, in seconds; None: not known.
        others: it holds streams that are neither audio nor video.
        tracks: one audio and one video track at most.
    """

    form: str
    duration: float | None
    start: float | None
    others: bool
    tracks: tuple[MediaTrack, ...]


@dataclass(frozen=True, slots=True)
class Demuxed:
    """One packet as its container has it."""

    kind: Kind
    payload: bytes
    is_keyframe: bool
    pts: int | None
    dts: int | None
    duration: int
    time_base: Fraction  # seconds of a unit of pts, dts, duration
    pos: int | None  # byte of the file
    strange: bool = False  # its id stands for another stream from here on
    changed: MediaTrack | None = None  # the track's parameters from here on, where they are others


class Demuxer(Protocol):
    """What reads one connection of a source after the other."""

    def wait_ready(self) -> None:
        """Wait until it can open: its time limits begin there. Raises SourceError."""
        ...

    def open(self, opening: Opening, inputs: Inputs) -> Opened:
        """Open the container, and close the one before. Raises SourceError."""
        ...

    def packets(self, on_damaged: Callable[[], None]) -> Iterator[Demuxed]:
        """The packets with a payload. Raises SourceError "corrupt"; OSError: the connection broke off."""
        ...

    def close(self) -> None:
        """Close the container."""
        ...

    def listener(self) -> socket.socket | None:
        """Where its connections to 127.0.0.1 arrive, if not on ours; to be closed."""
        ...

    def interrupt(self) -> None:
        """End a call that waits, from another thread, where that is possible. It is not used after this."""
        ...


class LibavDemuxer:
    """A Demuxer in this process."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._name = ""
        self._container: Any = None
        self._streams: list[Any] = []
        self._tracks: dict[Kind, MediaTrack] = {}

    def wait_ready(self) -> None:
        """See Demuxer: it is."""

    def open(self, opening: Opening, inputs: Inputs) -> Opened:
        """See Demuxer."""
        self.close()
        name, limit, stack = opening.name, opening.limit, self._stack
        match opening.form:
            case "rtsp":
                return self._take(containers.open_rtsp(opening.url, name, limit, stack), name)
            case "rtmp":
                return self._take(containers.open_rtmp(opening.url, name, limit, stack), name)
            case "hls":
                nested = inputs.open_nested
                return self._take(containers.open_playlist(opening.url, nested, name, limit, stack), name)
            case "web":
                file = _readable(inputs, stack)
                return self._take(containers.open_web(file, name, limit, stack), name)
        found = self._take(containers.open_bytes(_readable(inputs, stack), name, stack), name)
        with contextlib.ExitStack() as trial:
            again = containers.open_bytes(_readable(inputs, trial), name, trial)
            containers.check_decodable(again, {stream.index for stream in self._streams}, name)
        return found

    def _take(self, container: Any, name: str) -> Opened:
        """Take an opened container: choose its tracks."""
        self._container, self._name = container, name
        self._streams, tracks = containers.choose(container, name)
        self._tracks = {track.kind: track for track in tracks}
        starts = [
            float(stream.start_time * stream.time_base)
            for stream in self._streams
            if stream.start_time is not None
        ]
        duration = container.duration
        return Opened(
            form=container.format.name,
            duration=duration / av.time_base if duration and duration > 0 else None,
            start=min(starts) if starts else None,
            others=any(stream.type not in ("audio", "video") for stream in container.streams),
            tracks=tracks,
        )

    def packets(self, on_damaged: Callable[[], None]) -> Iterator[Demuxed]:
        """See Demuxer."""
        found = containers.packets(self._container, self._streams, self._name, on_damaged)
        while True:
            try:
                packet = next(found, None)
            except av.error.FFmpegError:
                raise OSError("libav cannot read on") from None
            if packet is None:
                return
            kind: Kind = packet.stream.type
            strange = kind != packet.stream.codec_context.type
            changed = None if strange else containers.changed_track(packet, self._tracks[kind])
            if changed is not None:
                self._tracks[kind] = changed
            yield Demuxed(
                kind=kind,
                payload=bytes(packet),
                is_keyframe=bool(packet.is_keyframe),
                pts=packet.pts,
                dts=packet.dts,
                duration=packet.duration or 0,
                time_base=packet.time_base,
                pos=packet.pos,
                strange=strange,
                changed=changed,
            )

    def close(self) -> None:
        """See Demuxer."""
        self._stack.close()
        self._container = None

    def listener(self) -> socket.socket | None:
        """See Demuxer."""
        return None

    def interrupt(self) -> None:
        """See Demuxer: libav returns at its own time limit."""


def _readable(inputs: Inputs, stack: contextlib.ExitStack) -> Readable:
    file = inputs.open()
    stack.callback(file.close)
    return file


class FileInputs:
    """The bytes of a file. `span`: of a part of it; None: all."""

    def __init__(self, place: Place, span: Span | None = None) -> None:
        self._place = place
        self._span = span

    def open(self) -> Readable:
        """See Inputs. Raises SourceError "not_found"."""
        path = self._place.path
        assert path is not None
        try:
            file = path.open("rb")
        except PermissionError:
            raise SourceError(f"{self._place.name} is not readable", code="not_found") from None
        return Part(file, self._span or (0, path.stat().st_size), file.name)

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        """Nothing: a file may not name another."""
        raise OSError("not allowed")


class OneInput:
    """A medium that is open already; None: nothing may be opened."""

    def __init__(self, file: Readable | None) -> None:
        self._file = file

    def open(self) -> Readable:
        """See Inputs: once."""
        file, self._file = self._file, None
        if file is None:
            raise OSError("not allowed")
        return file

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        """Nothing."""
        raise OSError("not allowed")
