"""The first timestamp of an HLS segment: MPEG-TS, fragmented MP4 or packed audio. Pure.

For the X-TIMESTAMP-MAP of captions beside somebody's video (RFC 8216, 3.5). Headers alone are read, with
bounds checked: the bytes are a stranger's, and libav meets such in a sandboxed process only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

CLOCK = 90_000  # ticks of an MPEG-2 timestamp in a second
_PACKET = 188  # bytes (ISO 13818-1)
_SYNC = 0x47
_VIDEO = range(0xE0, 0xF0)  # stream ids (ISO 13818-1, table 2-22)
_AUDIO = range(0xC0, 0xE0)
_PRIVATE = (0xBD,)  # AC-3 and others
_OWNER = b"com.apple.streaming.transportStreamTimestamp\0"  # PRIV frame of packed audio (RFC 8216, 3.4)
_BOXES = 10_000  # of one file (security limit)


def first_timestamp(segment: bytes, initial: bytes = b"") -> int | None:
    """The timestamp at which a segment begins, in ticks of CLOCK; None: none was found.

    Args:
        segment: its first bytes.
        initial: the file of EXT-X-MAP, for fragmented MP4.
    """
    if segment[:1] == bytes([_SYNC]) and segment[_PACKET : _PACKET + 1] in (b"", bytes([_SYNC])):
        return _of_transport_stream(segment)
    if segment.startswith(b"ID3"):
        at = segment.find(_OWNER) + len(_OWNER)
        found = segment[at : at + 8] if at >= len(_OWNER) else b""
        return int.from_bytes(found) if len(found) == 8 else None
    return _of_mp4(segment, initial or segment)


# --- MPEG-TS ---


def _of_transport_stream(data: bytes) -> int | None:
    """The first presentation timestamp of video, else that of audio."""
    others: int | None = None
    for at in range(0, len(data) - _PACKET + 1, _PACKET):
        packet = data[at : at + _PACKET]
        if packet[0] != _SYNC or not packet[1] & 0x40:  # payload_unit_start_indicator
            continue
        begin = 4
        if packet[3] & 0x20:  # an adaptation field
            begin += 1 + packet[4]
        pes = packet[begin:]
        if len(pes) < 14 or not pes.startswith(b"\0\0\1") or not pes[7] & 0x80:  # a timestamp
            continue
        pts = (pes[9] >> 1 & 7) << 30 | pes[10] << 22 | pes[11] >> 1 << 15 | pes[12] << 7 | pes[13] >> 1
        if pes[3] in _VIDEO:
            return pts
        if others is None and (pes[3] in _AUDIO or pes[3] in _PRIVATE):
            others = pts
    return others


# --- fragmented MP4 ---


def _of_mp4(segment: bytes, initial: bytes) -> int | None:
    """The base decode time of video, else of the first track (ISO 14496-12, 8.8.12)."""
    scales: dict[int, tuple[int, bool]] = {}  # by track: ticks a second, whether it is video
    for track in _inside(initial, b"moov", b"trak"):
        number, scale, kind = _header(track, b"tkhd", 12, 20), b"", b""
        media = next(_inside(track, b"mdia"), b"")
        for name, body in _boxes(media):
            if name == b"mdhd" and body:
                scale = body[20:24] if body[0] else body[12:16]
            elif name == b"hdlr":
                kind = body[8:12]
        if number and len(scale) == 4 and any(scale):
            scales[number] = int.from_bytes(scale), kind == b"vide"
    found: list[tuple[bool, int]] = []
    for fragment in _inside(segment, b"moof", b"traf"):
        number = _header(fragment, b"tfhd", 4, 4)
        time = next((body for name, body in _boxes(fragment) if name == b"tfdt"), b"")
        ticks = time[4:12] if time[:1] == b"\1" else time[4:8]
        if number in scales and len(ticks) >= 4:
            each, is_video = scales[number]
            found.append((not is_video, int.from_bytes(ticks) * CLOCK // each))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _header(box: bytes, name: bytes, short: int, long: int) -> int:
    """The track number in a full box; `short`, `long`: where it is in version 0 and 1. 0: there is none."""
    body = next((body for found, body in _boxes(box) if found == name), b"")
    at = long if body[:1] == b"\1" else short
    return int.from_bytes(body[at : at + 4])


def _inside(data: bytes, *names: bytes) -> Iterator[bytes]:
    """The bodies of all boxes at a path of names."""
    for name, body in _boxes(data):
        if name == names[0]:
            if len(names) == 1:
                yield body
            else:
                yield from _inside(body, *names[1:])


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each box; the last one may be cut off."""
    at = 0
    for _ in range(_BOXES):
        if at + 8 > len(data):
            return
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            size, head = int.from_bytes(data[at + 8 : at + 16]), 16
        if size == 0:  # to the end of the file
            size = len(data) - at
        if size < head:
            return
        yield name, data[at + head : at + size]
        at += size
