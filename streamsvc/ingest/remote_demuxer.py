"""A Demuxer that runs in the process of a source."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from streamsvc.core.types import Kind, MediaTrack
from streamsvc.ingest.demuxer import Demuxed, Inputs, Opened, Opening
from streamsvc.ingest.source_channel import DAMAGED, Broken, Fields, error_of
from streamsvc.ingest.source_decoders import SIDE, RemoteCodec
from streamsvc.ingest.source_inputs import ServedInputs
from streamsvc.ingest.source_process import KINDS, SourceProcess

OPEN_SECONDS = 120.0  # for a file, which has no limit of its own: its disk may be slow
ASPECT_MAX = 1000.0  # of pixels; more is a lie
RATE = 1 << 23  # samples per second; the same


class RemoteDemuxer:
    """See Demuxer. `process`: the one to ask; not ended here."""

    def __init__(self, process: SourceProcess) -> None:
        self._process = process
        self._served = ServedInputs()
        self._name = ""
        self._limit = 0.0  # seconds that it may wait for what it reads

    def wait_ready(self) -> None:
        """See Demuxer."""
        self._process.wait_ready()

    def open(self, opening: Opening, inputs: Inputs) -> Opened:
        """See Demuxer. Raises SourceError also where the process fails."""
        self._name = opening.name
        self._limit = opening.limit
        self._served.use(inputs)
        asked = {
            "op": "open",
            "source": opening.name,
            "form": opening.form,
            "url": opening.url,
            "limit": opening.limit,
        }

        def check(answer: Fields, _: memoryview) -> Opened:
            self._raise_error(answer)
            tracks = tuple(self._track(one) for one in answer.objects("tracks", 2))
            return Opened(
                form=answer.text("form"),
                duration=answer.optional_number("duration"),
                start=answer.optional_number("start"),
                others=answer.flag("others"),
                tracks=tracks,
            )

        most = OPEN_SECONDS if opening.form == "file" else float("inf")
        return self._process.demux(asked, self._served, check, self._limit, most)

    def packets(self, on_damaged: Callable[[], None]) -> Iterator[Demuxed]:
        """See Demuxer."""
        end = ""
        while not end:
            found, damaged, end = self._process.demux(
                {"op": "packets", "source": self._name}, self._served, self._some_packets, self._limit
            )
            for _ in range(damaged):
                on_damaged()
            yield from found
        if end == "broken":
            raise OSError("libav cannot read on")

    def close(self) -> None:
        """Close what it reads; the container is closed with the next one, or with the process."""
        self._served.close()

    def listener(self) -> socket.socket | None:
        """See Demuxer."""
        return self._process.listener()

    def interrupt(self) -> None:
        """See Demuxer."""
        self._process.stop_demuxing()

    def _raise_error(self, answer: Fields) -> None:
        if (error := error_of(answer)) is not None:
            raise self._served.refused or error

    def _some_packets(self, answer: Fields, body: memoryview) -> tuple[list[Demuxed], int, str]:
        self._raise_error(answer)
        found, first = [], 0
        for one in answer.objects("packets"):
            end = first + one.integer("size", 1, len(body) - first)
            found.append(self._packet(one, bytes(body[first:end])))
            first = end
        ended = answer.text("end", 10)
        if not found and not ended:
            raise Broken("neither packets nor an end")
        return found, answer.integer("damaged", 0, DAMAGED), ended

    def _packet(self, one: Fields, payload: bytes) -> Demuxed:
        base = one.integers("base")
        if len(base) != 2 or not all(base):
            raise Broken("bad base")
        return Demuxed(
            kind=_kind(one),
            payload=payload,
            is_keyframe=one.flag("keyframe"),
            pts=one.optional_integer("pts"),
            dts=one.optional_integer("dts"),
            duration=one.integer("duration", -(1 << 63)),
            time_base=Fraction(*base),
            pos=one.optional_integer("pos"),
            strange=one.flag("strange"),
            changed=self._track(one.inner("changed")) if one.has("changed") else None,
        )

    def _track(self, one: Fields) -> MediaTrack:
        try:
            extradata = bytes.fromhex(one.text("extradata", 1 << 20))
        except ValueError:
            raise Broken("bad extradata") from None
        aspect = one.optional_number("pixel_aspect")
        if aspect is not None and not 1 / ASPECT_MAX <= aspect <= ASPECT_MAX:
            raise Broken("bad aspect")
        kind = _kind(one)
        told = _parameters(kind, one.inner("parameters"))
        codec = RemoteCodec(self._process, one.integer("codec"), extradata, told)
        return MediaTrack(kind, one.text("name", 40), codec, aspect)


def _kind(one: Fields) -> Kind:
    named = one.text("kind", 5)
    for kind in KINDS:
        if named == kind:
            return kind
    raise Broken("bad kind")


def _parameters(kind: Kind, told: Fields) -> dict[str, Any]:
    """See `decoders.parameters`."""
    if kind == "audio":
        found: dict[str, Any] = {"rate": told.integer("rate", 0, RATE), "layout": told.text("layout", 200)}
    else:
        found = {name: told.integer(name, 0, SIDE) for name in ("width", "height")}
    form = told.text("format", 40) if told.has("format") else None
    return {"context": told.text("context", 40), **found, "format": form}
