"""Which decoder a track has: in this process, or in the process of its source; and one after the other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

from streamsvc.core.types import MediaTrack, VideoFrame
from streamsvc.ingest.decode import AudioDecoder, VideoDecoder
from streamsvc.ingest.source_decoders import (
    RemoteAudioDecoder,
    RemoteCodec,
    RemotePicture,
    RemoteVideoDecoder,
)

AudioDecoding: TypeAlias = AudioDecoder | RemoteAudioDecoder
VideoDecoding: TypeAlias = VideoDecoder | RemoteVideoDecoder


class _Decoding(Protocol):
    def close(self) -> None: ...


D = TypeVar("D", bound=_Decoding)


def audio_decoder(track: MediaTrack, session: str) -> AudioDecoding:
    """A decoder of a track's sound. Whoever has it closes it."""
    if isinstance(track.context, RemoteCodec):
        return track.context.audio_decoder(session)
    return AudioDecoder(track, session)


def video_decoder(track: MediaTrack, session: str) -> VideoDecoding:
    """A decoder of a track's pictures. Whoever has it closes it."""
    if isinstance(track.context, RemoteCodec):
        return track.context.video_decoder(session)
    return VideoDecoder(track, session)


def threads(work: AudioDecoding | VideoDecoding | VideoFrame, media: Executor) -> Executor:
    """Where to wait for a decoder, or for the pixels of a picture.

    A process that hangs holds threads of its own, and none of `media`, which are for all sessions.
    """
    done_by = work.handle if isinstance(work, VideoFrame) else work
    if isinstance(done_by, RemoteAudioDecoder | RemoteVideoDecoder | RemotePicture):
        return done_by.threads or media
    return media


def parameters(track: MediaTrack) -> dict[str, Any]:
    """What a decoder of a track is made from, beside its extradata; nothing where its codec's name is all."""
    context = track.context
    if context is None:
        return {}
    if isinstance(context, RemoteCodec):
        return context.parameters
    if track.kind == "audio":
        form = context.format.name if context.format is not None else None
        told = {"rate": context.sample_rate, "layout": context.layout.name, "format": form}
    else:
        told = {"width": context.width, "height": context.height, "format": context.pix_fmt}
    return {"context": context.codec.name, **told}


class Decoders(Generic[D]):
    """The decoders of one kind in a session, one at a time. A context manager: what is left is closed.

    Args:
        session: id of the session.
        make: makes a decoder.

    Attributes:
        present: the decoder of the newest track; None: there was none.
    """

    def __init__(self, session: str, make: Callable[[MediaTrack, str], D]) -> None:
        self.present: D | None = None
        self._session = session
        self._make = make
        self._track: MediaTrack | None = None
        self._before: D | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for decoder in (self._before, self.present):
            if decoder is not None:
                decoder.close()

    def of(self, track: MediaTrack) -> tuple[D, D | None]:
        """The decoder of a track, and the one before where it has just changed: flush that, then close it.

        The new one is made before the old one is closed, so that the process of a source that has both stays.
        """
        if self.present is not None and track is self._track:
            return self.present, None
        if self._before is not None:
            self._before.close()
        self._before, self.present, self._track = self.present, self._make(track, self._session), track
        return self.present, self._before
