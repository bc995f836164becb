"""One connection of a source, demuxed by libav: bytes in, packets as plain data out.

So it may run in another process (`source_child`), which neither opens files nor connects: whatever it reads
comes from its `Inputs`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import av.error

from streamsvc.core.errors import SourceError
from streamsvc.core.types import Kind, MediaTrack
from streamsvc.ingest import container as containers
from streamsvc.ingest.file_parts import Part, Span
from streamsvc.ingest.hls_fetch import Readable
from streamsvc.ingest.source_policy import Place


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
        playlist: URL of an HLS playlist; "": the bytes of the source itself are opened.
        limit: seconds without an answer, of a playlist.
    """

    name: str
    playlist: str = ""
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

    def open(self, opening: Opening, inputs: Inputs) -> Opened:
        """Open the container, and close the one before. Raises SourceError."""
        ...

    def packets(self, on_damaged: Callable[[], None]) -> Iterator[Demuxed]:
        """The packets with a payload. Raises SourceError "corrupt"; OSError: the connection broke off."""
        ...

    def close(self) -> None:
        """Close the container."""
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

    def open(self, opening: Opening, inputs: Inputs) -> Opened:
        """See Demuxer."""
        self.close()
        name = opening.name
        if opening.playlist:
            opened = containers.open_playlist(
                opening.playlist, opening.limit, inputs.open_nested, name, self._stack
            )
            return self.take(opened, name)
        opened = containers.open_bytes(self._readable(inputs, self._stack), name, self._stack)
        found = self.take(opened, name)
        with contextlib.ExitStack() as stack:
            again = containers.open_bytes(self._readable(inputs, stack), name, stack)
            containers.check_decodable(again, {stream.index for stream in self._streams}, name)
        return found

    def open_url(self, place: Place, limit: float, private_urls: bool) -> Opened:
        """Let libav connect by itself: see `container.open_url`. Raises SourceError, Forbidden."""
        self.close()
        return self.take(containers.open_url(place, limit, private_urls, self._stack), place.name)

    @staticmethod
    def _readable(inputs: Inputs, stack: contextlib.ExitStack) -> Readable:
        file = inputs.open()
        stack.callback(file.close)
        return file

    def take(self, container: Any, name: str) -> Opened:
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

    def interrupt(self) -> None:
        """See Demuxer: libav returns at its own time limit."""


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
        """A file names nothing else that is opened."""
        raise OSError("not allowed")
