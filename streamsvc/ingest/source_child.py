"""The process of a source: it confines itself, then demuxes and decodes what our side asks for.

    python -m streamsvc.ingest.source_child none|loopback DEMUX AUDIO VIDEO

The numbers are descriptors of connected sockets; with "loopback" it keeps TCP to 127.0.0.1, for RTSP.

It ends with its last channel. See `source_channel` for the messages, `source_process` for the other end.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import av
import numpy as np
import PIL.Image

from streamsvc.core.errors import SourceError
from streamsvc.core.types import EncodedFrame, Kind, MediaTrack, VideoFrame
from streamsvc.ingest import decode, sandbox
from streamsvc.ingest.channels import Block, channel_blocks
from streamsvc.ingest.decoders import audio_decoder, parameters, video_decoder
from streamsvc.ingest.demuxer import FORMS, Demuxed, LibavDemuxer, Opened, Opening
from streamsvc.ingest.source_channel import (
    BODY_BYTES,
    DAMAGED,
    Broken,
    Channel,
    Fields,
    error_header,
    raised_header,
)
from streamsvc.ingest.source_inputs import URL_CHARACTERS, AskedInputs

CODECS = 32  # codec contexts kept: of the newest containers
DECODERS = 2  # of a channel: the next one is made before the last one is freed
PACKETS = 32  # of one answer
PACKET_BYTES = 256 << 10  # after which an answer takes no more
Message = tuple[dict[str, Any], Sequence[bytes | memoryview]]


class Codecs:
    """The tracks of the newest containers, by number."""

    def __init__(self) -> None:
        self._tracks: OrderedDict[int, MediaTrack] = OrderedDict()
        self._lock = threading.Lock()
        self._last = 0

    def add(self, track: MediaTrack) -> dict[str, Any]:
        """Keep a track; returns what our side is told of it."""
        with self._lock:
            self._last += 1
            self._tracks[self._last] = track
            while len(self._tracks) > CODECS:
                self._tracks.popitem(last=False)
            extra = bytes(track.context.extradata or b"")
            return {
                "codec": self._last,
                "kind": track.kind,
                "name": track.codec,
                "pixel_aspect": track.pixel_aspect,
                "extradata": extra.hex(),
                "parameters": parameters(track),
            }

    def track(self, number: int) -> MediaTrack:
        """A track that was added. Raises SourceError: others have come since."""
        with self._lock:
            if number not in self._tracks:
                raise SourceError("too many other parameters have come since", code="corrupt")
            return self._tracks[number]


class Demuxing:
    """Answers on the channel of demuxing."""

    def __init__(self, channel: Channel, codecs: Codecs) -> None:
        self._channel = channel
        self._codecs = codecs
        self._demuxer = LibavDemuxer()
        self._found: Iterator[Demuxed] = iter(())
        self._blocks: Iterator[Block] | None = None  # of the one file whose channels are read
        self._ended: dict[str, Any] | None = None  # what ended the packets
        self._damaged = 0
        self._most = 1  # packets of an answer
        self._name = ""  # of the source

    def serve(self) -> None:
        """Answer until the channel is closed."""
        while True:
            header, _ = self._channel.receive()
            self._channel.send(*self._answer(Fields(header)))

    def _ask(self, asked: dict[str, Any]) -> tuple[Fields, memoryview]:
        self._channel.send(asked)
        answer, body = self._channel.receive()
        return Fields(answer), body

    def _answer(self, asked: Fields) -> Message:
        try:
            match asked.text("op"):
                case "open":
                    return self._open(asked), ()
                case "channels":
                    return self._channels(asked)
            return self._packets()
        except SourceError as error:
            return error_header(error), ()
        except Broken:
            raise
        except Exception as error:  # any other class that libav raises
            text = f"{asked.text('source')} cannot be read: {type(error).__name__}"
            return error_header(SourceError(text, code="corrupt")), ()

    def _open(self, asked: Fields) -> dict[str, Any]:
        form = next(form for form in FORMS if form == asked.text("form"))
        url = asked.text("url", URL_CHARACTERS)
        opening = Opening(asked.text("source"), form, url, asked.number("limit"))
        self._name = opening.name
        self._most = PACKETS if form == "file" else 1
        opened: Opened = self._demuxer.open(opening, AskedInputs(self._ask))
        self._ended = None
        self._found = self._demuxer.packets(self._count_damaged)
        return {
            "form": opened.form,
            "duration": opened.duration,
            "start": opened.start,
            "others": opened.others,
            "tracks": [self._codecs.add(track) for track in opened.tracks],
        }

    def _channels(self, asked: Fields) -> Message:
        """The next block of a file whose channels are read; no channels: its end."""
        if self._blocks is None:
            self._blocks = channel_blocks(AskedInputs(self._ask).open(), asked.text("source"))
        block = next(self._blocks, Block(0, b""))
        return {"channels": block.channels}, (block.samples,)

    def _count_damaged(self) -> None:
        self._damaged += 1

    def _packets(self) -> Message:
        """Some packets; what ends them is told by itself."""
        packets: list[dict[str, Any]] = []
        parts: list[bytes] = []
        size = 0
        while self._ended is None and len(packets) < self._most and size < PACKET_BYTES:
            try:
                packet = next(self._found, None)
            except SourceError as error:
                self._ended = error_header(error)
            except OSError:
                self._ended = {"end": "broken"}
            else:
                if packet is None:
                    self._ended = {"end": "end"}
                    continue
                if len(packet.payload) > BODY_BYTES - PACKET_BYTES:
                    text = (
                        f"{self._name} holds a packet of {len(packet.payload) >> 20} MiB, which is too large"
                    )
                    self._ended = error_header(SourceError(text, code="corrupt"))
                    continue
                packets.append(self._described(packet))
                parts.append(packet.payload)
                size += len(packet.payload)
        damaged = min(self._damaged, DAMAGED)
        self._damaged -= damaged
        header: dict[str, Any] = {"packets": packets, "damaged": damaged, "end": ""}
        return (header, parts) if packets or self._ended is None else (header | self._ended, ())

    def _described(self, packet: Demuxed) -> dict[str, Any]:
        return {
            "kind": packet.kind,
            "size": len(packet.payload),
            "keyframe": packet.is_keyframe,
            "pts": packet.pts,
            "dts": packet.dts,
            "duration": packet.duration,
            "base": [packet.time_base.numerator, packet.time_base.denominator],
            "pos": packet.pos,
            "strange": packet.strange,
            "changed": None if packet.changed is None else self._codecs.add(packet.changed),
        }


class Decoding:
    """Answers on the channel of one kind of decoding."""

    def __init__(self, channel: Channel, kind: Kind, codecs: Codecs) -> None:
        self._channel = channel
        self._kind = kind
        self._codecs = codecs
        self._decoders: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._pictures: dict[int, VideoFrame] = {}
        self._last = 0  # number of the newest picture

    def serve(self) -> None:
        """Answer until the channel is closed."""
        while True:
            header, body = self._channel.receive()
            try:
                answer = self._answer(Fields(header), body)
            except SourceError as error:
                answer = error_header(error), ()
            self._channel.send(*answer)

    def _answer(self, asked: Fields, body: memoryview) -> Message:
        op = asked.text("op")
        if op == "pixels":
            picture = self._pictures.get(asked.integer("picture"))
            if picture is None:
                raise SourceError("the picture is gone", code="corrupt")
            shown = decode.pixels(picture, tuple(asked.integers("shape")))
            return {}, (shown.data.cast("B"),)
        decoder = self._decoder(asked.integer("codec"), asked.integer("decoder"))
        done = decoder.flush() if op == "flush" else decoder.decode(_frames(self._kind, asked, body))
        if self._kind == "audio":
            return self._chunks(decoder, done)
        if not asked.flag("continued"):  # the newest one of before may be what is shown now
            self._pictures = dict(list(self._pictures.items())[-1:])
        return self._shown(decoder, done)

    def _decoder(self, codec: int, number: int) -> Any:
        decoder = self._decoders.get((codec, number))
        if decoder is None:
            make = audio_decoder if self._kind == "audio" else video_decoder
            decoder = self._decoders[codec, number] = make(self._codecs.track(codec), "")
            while len(self._decoders) > DECODERS:
                self._decoders.popitem(last=False)
        return decoder

    def _chunks(self, decoder: Any, chunks: Sequence[Any]) -> Message:
        described = [
            {
                "at": chunk.at,
                "arrived": chunk.arrived,
                "samples": len(chunk.samples),
                "gap": chunk.gap,
                "loss": chunk.loss,
            }
            for chunk in chunks
        ]
        header = {"chunks": described, "errors": decoder.errors, "repeated": decoder.repeated}
        return header, [chunk.samples.data.cast("B") for chunk in chunks]

    def _shown(self, decoder: Any, pictures: Sequence[VideoFrame]) -> Message:
        described = []
        for picture in pictures:
            self._last += 1
            self._pictures[self._last] = picture
            described.append(
                {
                    "picture": self._last,
                    "at": picture.at,
                    "arrived": picture.arrived,
                    "width": picture.width,
                    "height": picture.height,
                }
            )
        counts = {"errors": decoder.errors, "skipped": decoder.skipped, "waiting": decoder.waiting}
        return {"pictures": described, **counts}, ()


def _frames(kind: Kind, asked: Fields, body: memoryview) -> list[EncodedFrame]:
    frames, first = [], 0
    for one in asked.objects("frames"):
        end = first + one.integer("size")
        frames.append(
            EncodedFrame(
                session="",
                track="",
                at=one.number("at"),
                arrived=one.number("arrived"),
                kind=kind,
                payload=bytes(body[first:end]),
                codec="",
                keyframe=one.flag("keyframe"),
                gap=one.number("gap"),
                stamped=one.flag("stamped"),
                loss=one.text("loss"),
                alone=one.flag("alone"),
            )
        )
        first = end
    return frames


def main(network: str, descriptors: Sequence[str]) -> None:
    """Confine this process, tell how, and serve until our side has closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our side
    demux, audio, video = (Channel(socket.socket(fileno=int(number))) for number in descriptors)
    try:
        _import_all()
        confined = sandbox.confine(loopback=network == "loopback")
    except Exception as error:
        demux.send_socket(None)
        _end(demux, error)
    demux.send_socket(confined.listener)
    demux.send({"layers": " ".join(confined.layers)})
    codecs = Codecs()
    serving = (
        (demux, Demuxing(demux, codecs).serve),
        (audio, Decoding(audio, "audio", codecs).serve),
        (video, Decoding(video, "video", codecs).serve),
    )
    threads = [threading.Thread(target=_serve, args=pair) for pair in serving]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _import_all() -> None:
    """Import what is imported where it is first needed: nothing can be, later."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in ("av.__main__", "av.datasets"):
            importlib.import_module(module.name)
    PIL.Image.preinit()  # cover pictures are turned by their EXIF
    np.zeros(2, dtype=np.float32).dot(np.ones(2, dtype=np.float32))


def _serve(channel: Channel, serve: Callable[[], None]) -> None:
    """Serve one channel until it is closed; any other failure is told, and ends the process."""
    try:
        serve()
    except Broken:
        channel.close()
    except MemoryError:
        os._exit(sandbox.NO_MEMORY)
    except BaseException as error:
        _end(channel, error)


def _end(channel: Channel, error: BaseException) -> NoReturn:
    """End the process, and tell our side what was raised where."""
    try:
        channel.send(raised_header(error))
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
