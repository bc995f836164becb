"""Containers are opened within limits, and every failure has its own code."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import av.error
import numpy as np
import pytest
from av.stream import Discard, Disposition

from streamsvc.core.errors import SourceError
from streamsvc.core.types import Kind, MediaTrack
from streamsvc.ingest.container import (
    changed_track,
    check_decodable,
    choose,
    differs,
    open_file,
    open_rtsp,
    open_web,
    packets,
    with_headers,
)
from streamsvc.ingest.rtsp_relay import RtspRelay
from streamsvc.ingest.source_fetch import open_input
from streamsvc.ingest.source_policy import Place, locate
from tests.builders.clips import clip


def failing(work: Callable[[], Any]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        work()
    assert caught.value.message
    return caught.value


def opened(path: Path) -> tuple[list[str], tuple[str, ...]]:
    """Kinds of the chosen streams of a file, and codecs of its tracks."""
    with contextlib.ExitStack() as stack:
        place = locate(str(path), None)
        streams, tracks = choose(open_file(place, stack), place.name)
        check_decodable(open_file(place, stack), {stream.index for stream in streams}, place.name)
        return [stream.type for stream in streams], tuple(track.codec for track in tracks)


# --- files ---


def test_the_first_track_of_each_kind_is_chosen_with_its_decoder(tmp_path: Path) -> None:
    assert opened(clip(tmp_path / "a.mp4", video="libx264", audio="aac")) == (
        ["audio", "video"],
        ("aac", "h264"),
    )
    assert opened(clip(tmp_path / "a.wav", video=None, audio="pcm_s16le")) == (["audio"], ("pcm_s16le",))
    assert opened(clip(tmp_path / "a.mkv", video="mpeg4", audio=None)) == (["video"], ("mpeg4",))


def test_each_bad_file_has_its_own_code(tmp_path: Path) -> None:
    whole = clip(tmp_path / "whole.mp4").read_bytes()
    garbage = bytearray(clip(tmp_path / "pictures.mp4", audio=None).read_bytes())
    start, end = garbage.index(b"mdat") + 4, garbage.index(b"moov") - 4
    garbage[start:end] = b"\x55" * (end - start)  # well formed, with garbage inside
    clip(tmp_path / "a.ts", video="mpeg4", audio=None)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n"
    for name, content, code in (
        ("noise.mp4", bytes(range(256)) * 40, "corrupt"),
        ("cut.mp4", whole[: len(whole) // 2], "corrupt"),
        ("garbage.mp4", bytes(garbage), "corrupt"),
        ("list.m3u8", playlist.encode(), "corrupt"),  # must not name another file
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n", "no_media"),
    ):
        (tmp_path / name).write_bytes(content)
        error = failing(lambda name=name: opened(tmp_path / name))  # type: ignore[misc]
        assert (error.code, error.status, error.retryable) == (code, 422, False), name
        assert name in error.message


def test_an_unreadable_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: str) -> Any:
        raise PermissionError

    monkeypatch.setattr(Path, "open", refuse)
    with contextlib.ExitStack() as stack:
        assert (
            failing(lambda: open_file(Place("file", "a.mp4", path=tmp_path / "a.mp4"), stack)).code
            == "not_found"
        )


def stream(kind: str, codec: str | None, disposition: Any = 0, comment: str = "") -> Any:
    context = SimpleNamespace(codec=SimpleNamespace(name=codec)) if codec else None
    return SimpleNamespace(
        type=kind,
        codec_context=context,
        disposition=Disposition(disposition),
        sample_aspect_ratio=None,
        metadata={"comment": comment},
    )


def test_a_cover_picture_is_the_video_of_sound_alone_and_an_unknown_codec_is_an_error() -> None:
    cover = stream("video", "mjpeg", Disposition.attached_pic, "Cover (back)")
    front = stream("video", "png", Disposition.attached_pic, "Cover (front)")
    song, strange, data = stream("audio", "mp3"), stream("video", None), stream("subtitle", "srt")
    film = stream("video", "h264")

    def of(*streams: Any) -> list[Any]:
        return choose(SimpleNamespace(streams=streams), "a.mp4")[0]

    assert of(cover, song) == [song, cover]
    assert of(cover, song, front) == [song, front]
    assert of(cover, song, film) == [song, film]
    assert of(cover, strange, film) == [film]
    assert of(stream("video", None, Disposition.attached_pic), song) == [song], (
        "a cover that libav cannot decode"
    )
    assert of(strange, song) == [song], "the decodable track is used"
    assert of(strange, film) == [film]
    unknown = failing(lambda: of(strange, data))
    assert (unknown.code, unknown.status) == ("no_decoder", 422)
    assert "video" in unknown.message
    assert failing(lambda: of(cover, data)).code == "no_media"
    assert failing(of).code == "no_media"


def test_the_default_track_is_chosen_before_the_first_and_a_commentary_last() -> None:
    def of(*streams: Any) -> list[Any]:
        return choose(SimpleNamespace(streams=streams), "a.mkv")[0]

    default = Disposition.default
    for kind in ("audio", "video"):
        first, second = stream(kind, "x"), stream(kind, "y", default)
        assert of(first, second) == [second]
        assert (first.discard, hasattr(second, "discard")) == (Discard.all, False), "libav skips the others"
        assert of(stream(kind, "a", default), stream(kind, "b", default))[0].codec_context.codec.name == "a"
        both = stream(kind, "y", default | Disposition.comment)
        assert of(both, stream(kind, "z", default))[0].codec_context.codec.name == "z"
        for secondary in (Disposition.comment, Disposition.visual_impaired, Disposition.descriptions):
            commentary, plain = stream(kind, "c", secondary), stream(kind, "p")
            assert of(commentary, plain) == [plain]
            assert of(commentary) == [commentary]
        assert of(stream(kind, None, default), first) == [first], "the default one cannot be decoded"


def test_the_default_track_of_a_file_is_read(tmp_path: Path) -> None:
    """Two sounds and two pictures; the second of each is the default."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        streams: list[Any] = []
        for number, name in enumerate(("aac", "mp2", "mpeg4", "mpeg2video")):
            made: Any = container.add_stream(name, rate=48_000 if number < 2 else 25)
            if number >= 2:
                made.width, made.height, made.pix_fmt = 160, 96, "yuv420p"
            made.disposition = Disposition.default if number % 2 else Disposition(0)
            streams.append(made)
        for made in streams[:2]:
            sound = av.AudioFrame.from_ndarray(
                np.zeros((1, 1152), np.int16 if made.name == "mp2" else np.float32),
                format="s16" if made.name == "mp2" else "fltp",
                layout="mono",
            )
            sound.sample_rate, sound.pts = 48_000, 0
            resampler = av.AudioResampler(format=made.format.name, layout=made.layout.name, rate=48_000)
            for piece in resampler.resample(sound):
                container.mux(made.encode(piece))
        for made in streams[2:]:
            picture = av.VideoFrame.from_ndarray(np.zeros((96, 160, 3), np.uint8), format="rgb24")
            picture.pts, picture.time_base = 0, Fraction(1, 25)
            container.mux(made.encode(picture))
        for made in streams:
            container.mux(made.encode(None))
    assert opened(path)[1] == ("mp2", "mpeg2video")


# --- packets ---


class Reel:
    """A container that yields packets and raises where it is damaged."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)

    def demux(self, streams: Any) -> Iterator[Any]:
        while self.items:
            item = self.items.pop(0)
            if isinstance(item, Exception):
                raise item
            yield item


def packet(size: int = 1, corrupt: bool = False) -> Any:
    return SimpleNamespace(size=size, is_corrupt=corrupt)


def damage() -> Exception:
    return av.error.InvalidDataError(1, "damaged")


def test_damaged_packets_are_counted_and_empty_ones_left_out() -> None:
    counted: list[int] = []
    good, bad = packet(), packet(corrupt=True)
    reel = Reel(damage(), good, packet(size=0), damage(), bad)
    assert list(packets(reel, [], "a.mp4", lambda: counted.append(1))) == [good, bad]
    assert len(counted) == 3


def test_too_many_unreadable_packets_in_a_row_are_an_error() -> None:
    reel = Reel(packet(), *(damage() for _ in range(20)), packet())
    readable = packets(reel, [], "a.mp4", lambda: None)
    assert next(readable)
    assert failing(lambda: next(readable)).code == "corrupt"


def test_new_parameter_sets_are_prepended_where_they_fit_in_band() -> None:
    def of(kind: Kind, extra: bytes | None) -> MediaTrack:
        return MediaTrack(kind, "h264", SimpleNamespace(extradata=extra))

    headers = b"\0\0\0\1sps\0\0\0\1pps"
    assert with_headers(b"\0\0\0\1idr", of("video", headers)) == headers + b"\0\0\0\1idr"
    assert with_headers(headers + b"idr", of("video", headers)) == headers + b"idr"
    assert with_headers(b"idr", of("video", b"\x01avcC")) == b"idr"
    assert with_headers(b"pcm", of("audio", headers)) == b"pcm"
    assert with_headers(b"idr", of("video", None)) == b"idr"


class Sided:
    """A packet with side data, of a track with extradata."""

    def __init__(self, codec: str, fresh: bytes | None) -> None:
        self.stream = SimpleNamespace(
            type="audio", codec_context=SimpleNamespace(codec=SimpleNamespace(name=codec))
        )
        self.fresh = fresh

    def has_sidedata(self, name: str) -> bool:
        return name == "new_extradata" and self.fresh is not None

    def get_sidedata(self, name: str) -> bytes:
        return self.fresh or b""


def test_new_parameters_in_the_middle_make_another_track() -> None:
    def track(codec: str, extradata: bytes | None) -> MediaTrack:
        return MediaTrack("audio", codec, SimpleNamespace(extradata=extradata))

    present = track("aac", b"\x11\x90")
    assert changed_track(Sided("aac", None), present) is None
    assert changed_track(Sided("aac", b"\x11\x90"), present) is None
    changed = changed_track(Sided("aac", b"\x12\x10"), present)
    assert changed is not None and bytes(changed.context.extradata) == b"\x12\x10"
    assert not differs(track("aac", b"\x11\x90"), present)
    assert differs(track("aac", b"\x12\x10"), present)
    assert differs(track("mp2", None), present)
    assert not differs(track("h264", b"\0\0\0\1sps"), track("h264", None)), "they come in band"


# --- URLs ---


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server on loopback.

    /a.wav is a recording, /STATUS answers with that status, /noise with random bytes, /away redirects.
    """
    recording = clip(tmp_path / "a.wav", video=None, audio="pcm_s16le").read_bytes()

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].strip("/")
            body = {"a.wav": recording, "noise": bytes(range(256)) * 40}.get(name, b"")
            self.send_response(302 if name == "away" else int(name) if name.isdigit() else 200)
            if name == "away":
                self.send_header("Location", "/a.wav")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):  # libav may close early
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def reach(url: str, private_urls: bool = True) -> tuple[str, ...]:
    with contextlib.ExitStack() as stack:
        place = locate(url, ())
        if place.scheme == "rtsp":
            relay = RtspRelay(place, 1.0, private_urls)
            stack.callback(relay.close)
            container = open_rtsp(relay.url, place.name, 1.0, stack)
        else:
            file = open_input(place, 1.0, private_urls, lambda: None)
            stack.callback(file.close)
            container = open_web(file, place.name, 1.0, stack)
        return tuple(track.codec for track in choose(container, place.name)[1])


def test_a_url_that_answers_with_media_is_opened(web: str) -> None:
    assert reach(f"{web}/a.wav") == ("pcm_s16le",)
    assert reach(f"{web}/away") == ("pcm_s16le",)


@pytest.mark.parametrize(
    ("path", "code"),
    [("404", "not_found"), ("401", "refused"), ("403", "refused"), ("500", "refused"), ("noise", "corrupt")],
)
def test_a_response_without_media_is_an_error(web: str, path: str, code: str) -> None:
    error = failing(lambda: reach(f"{web}/{path}?key=secret"))
    assert (error.code, error.retryable) == (code, False)
    assert "secret" not in str(error)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_silent_or_absent_server_is_no_answer(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts and stays silent
        port = server.getsockname()[1]
        silent = failing(lambda: reach(f"{scheme}://user:secret@127.0.0.1:{port}/a?key=secret"))
    gone = failing(lambda: reach(f"{scheme}://user:secret@127.0.0.1:{port}/a"))
    for error in (silent, gone):
        assert (error.code, error.status, error.retryable) == ("no_answer", 502, True)
        assert "secret" not in str(error)
