"""HLS over HTTP: one variant is fetched, holes and discontinuities lie where the playlist says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from streamsvc.core.config import Ingest
from streamsvc.core.errors import SourceError
from streamsvc.ingest.hls import Hls, is_playlist
from streamsvc.ingest.source_channel import Channel
from streamsvc.ingest.source_policy import locate
from streamsvc.ingest.source_process import SourceProcess
from tests.builders.internet import Answer
from tests.builders.internet import site as site_at
from tests.builders.stamped import Part, Web, hear, playlist, web

TAG = "#EXT-X-DISCONTINUITY"
KEY = bytes(range(16))
CANARY = "canary-5c1f"
PARTS = [f"/s{number}.ts" for number in range(4)]


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segments of 3 s: s0 to s3 with one time line, d0 to d3 with one of their own each."""
    folder = tmp_path_factory.mktemp("hls")
    for number, first in enumerate((0.0, 0.0, 5000.0, 20.0)):
        Part(first=10.0 + 3 * number, video="mpeg4").write(folder / f"s{number}.ts")
        Part(first=first, video="mpeg4").write(folder / f"d{number}.ts")
    return folder


@pytest.fixture
def site(segments: Path) -> Iterator[tuple[Path, Web]]:
    with web(segments) as server:
        yield segments, server


def begins(sound: list[tuple[float, float]]) -> list[int]:
    """The whole seconds at which stretches of sound begin."""
    return [round(start) for start, _ in sound]


@pytest.mark.parametrize(
    ("entries", "sound", "gaps"),
    [
        (["s0.ts", "s1.ts", "s2.ts"], [0, 3, 6], []),
        (["s0.ts", "gone.ts", "s2.ts", "s3.ts"], [0, 6, 9], [(3, 6)]),
        (["s0.ts", "gone.ts", "gone.ts", "s3.ts"], [0, 9], [(3, 9)]),
        (["gone.ts", "s1.ts", "s2.ts"], [3, 6], [(0, 3)]),
        (["s0.ts", "s1.ts", "gone.ts"], [0, 3], [(6, 9)]),
        (["d0.ts", TAG, "d1.ts", TAG, "d2.ts", TAG, "d3.ts"], [0, 3, 6, 9], []),
        (["d0.ts", TAG, "d0.ts", TAG, "d0.ts"], [0, 3, 6], []),
        (["d0.ts", TAG, "gone.ts", "d2.ts", TAG, "d3.ts"], [0, 6, 9], [(3, 6)]),
        (["s0.ts", TAG, "s1.ts", TAG, "s2.ts", TAG, "d0.ts"], [0, 3, 6, 9], []),
        (["s0.ts", TAG, "s1.ts", TAG, "gone.ts", "s3.ts"], [0, 3, 9], [(6, 9)]),
        (["d3.ts", "d0.ts", "d2.ts"], [0, 3, 6], []),
    ],
    ids=[
        "whole",
        "one-missing",
        "two-missing",
        "first-missing",
        "last-missing",
        "discontinuities",
        "the-same-part-thrice",
        "first-of-a-part-missing",
        "tags-without-a-step",
        "missing-after-a-tag",
        "untagged",
    ],
)
async def test_what_is_missing_is_told_and_the_rest_lies_in_its_time(
    site: tuple[Path, Web], entries: list[str], sound: list[int], gaps: list[tuple[int, int]]
) -> None:
    folder, server = site
    (folder / "index.m3u8").write_text(playlist(*entries))
    heard = await hear(f"{server.url}/index.m3u8")
    assert begins(heard.sound) == sound
    assert [(round(gap.start), round(gap.end), gap.reason) for gap in heard.gaps] == [
        (start, end, "missing") for start, end in gaps
    ]
    assert heard.stats["missing_segments"] == entries.count("gone.ts")
    assert all(any(abs(at - second) < 0.15 for at in heard.pictures) for second in sound)


async def test_a_discontinuity_of_a_live_playlist_goes_on_in_real_time(tmp_path: Path) -> None:
    for number, first in enumerate((7.0, 8.0, 9.0, 0.0, 1.0)):
        Part(seconds=1.0, first=first).write(tmp_path / f"l{number}.ts")
    index = tmp_path / "index.m3u8"
    index.write_text(playlist("l0.ts", "l1.ts", "l2.ts", seconds=1.0, ended=False))
    with web(tmp_path) as server:
        reading = asyncio.create_task(hear(f"{server.url}/index.m3u8"))
        await asyncio.sleep(1.0)
        index.write_text(playlist("l0.ts", "l1.ts", "l2.ts", TAG, "l3.ts", "l4.ts", seconds=1.0))
        heard = await reading
    starts = [start for start, _ in heard.sound]
    assert len(starts) == 5
    assert [after - before for before, after in pairwise(starts)] == [pytest.approx(1.0, abs=0.1)] * 4
    assert heard.gaps == [] and heard.stats["time_lines"] == 1


MASTER = """#EXTM3U
#EXT-X-STREAM-INF:BANDWIDTH=800000,RESOLUTION=640x360
low.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=1280x720
{best}.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=6000000,RESOLUTION=1920x1080
large.m3u8
"""


@pytest.mark.parametrize(("best", "taken"), [("middle", "middle"), ("gone", "low")])
async def test_one_variant_of_a_master_playlist_is_fetched(
    site: tuple[Path, Web], best: str, taken: str
) -> None:
    folder, server = site
    for name, first in (("low", 0), ("middle", 1), ("large", 2)):
        (folder / f"{name}.m3u8").write_text(playlist(f"s{first}.ts", f"d{first}.ts"))
    (folder / "index.m3u8").write_text(MASTER.format(best=best))
    server.asked.clear()
    await hear(f"{server.url}/index.m3u8")
    number = {"low": 0, "middle": 1}[taken]
    tried = [f"/{best}.m3u8"] if best == "gone" else []
    assert server.asked == [
        "/index.m3u8",
        *tried,
        f"/{taken}.m3u8",
        f"/s{number}.ts",
        f"/d{number}.ts",
    ]


async def test_of_the_audio_renditions_the_default_one_is_fetched(tmp_path: Path) -> None:
    for number in range(2):
        Part(first=3.0 * number, audio=None, video="mpeg4").write(tmp_path / f"v{number}.ts")
        Part(first=3.0 * number).write(tmp_path / f"a{number}.ts")
    (tmp_path / "v.m3u8").write_text(playlist("v0.ts", "v1.ts"))
    (tmp_path / "a.m3u8").write_text(playlist("a0.ts", "a1.ts"))
    (tmp_path / "index.m3u8").write_text(
        '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="x",NAME="comment",URI="comment.m3u8"\n'
        '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="x",NAME="main",DEFAULT=YES,URI="a.m3u8"\n'
        '#EXT-X-STREAM-INF:BANDWIDTH=800000,AUDIO="x"\nv.m3u8\n'
    )
    with web(tmp_path) as server:
        heard = await hear(f"{server.url}/index.m3u8")
    assert begins(heard.sound) == [0, 3]
    assert len(heard.pictures) == 60
    assert "/comment.m3u8" not in server.asked


async def test_encrypted_segments_and_byte_ranges_are_read(site: tuple[Path, Web]) -> None:
    folder, server = site
    pieces = [(folder / f"s{number}.ts").read_bytes() for number in range(3)]
    for number, piece in enumerate(pieces):
        cipher = Cipher(algorithms.AES(KEY), modes.CBC(number.to_bytes(16, "big"))).encryptor()
        pad = 16 - len(piece) % 16
        (folder / f"e{number}.ts").write_bytes(cipher.update(piece + bytes([pad]) * pad) + cipher.finalize())
    (folder / "key.bin").write_bytes(KEY)
    (folder / "all.ts").write_bytes(b"".join(pieces))
    spans = [
        line for piece in pieces for line in (f"#EXT-X-BYTERANGE:{len(piece)}", "all.ts")
    ]  # without offsets: each follows the one before
    spans[0] += "@0"
    key = '#EXT-X-KEY:METHOD=AES-128,URI="key.bin"'
    for entries in ([key, "e0.ts", "e1.ts", "e2.ts"], spans):
        (folder / "index.m3u8").write_text(playlist(*entries))
        assert begins((await hear(f"{server.url}/index.m3u8")).sound) == [0, 3, 6]


async def test_fragmented_mp4_is_read_with_its_initialisation(tmp_path: Path) -> None:
    whole = Part(seconds=6.0, video="mpeg4").write(tmp_path / "whole.mp4")
    options = {"hls_time": "2", "hls_list_size": "0", "hls_segment_type": "fmp4", "hls_playlist_type": "vod"}
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "index.m3u8"), "w", format="hls", options=options) as cut,
    ):
        streams: dict[int, Any] = {
            stream.index: cut.add_stream_from_template(stream) for stream in source.streams
        }
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                cut.mux(packet)
    with web(tmp_path) as server:
        heard = await hear(f"{server.url}/index.m3u8")
    (sound,) = heard.sound
    assert sound == pytest.approx((0.0, 5.5), abs=0.1)
    assert len(heard.pictures) == 60


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("gone.m3u8", None, "not_found"),
        ("noise.m3u8", "<html>", "corrupt"),
        ("empty.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", "no_media"),
        ("dead.m3u8", "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\ngone.m3u8\n", "not_found"),
    ],
)
async def test_each_bad_playlist_has_its_own_code(
    site: tuple[Path, Web], name: str, content: str | None, code: str
) -> None:
    folder, server = site
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(SourceError) as caught:
        await hear(f"{server.url}/{name}?key=secret")
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


async def test_a_playlist_of_missing_segments_alone_is_an_error(site: tuple[Path, Web]) -> None:
    folder, server = site
    (folder / "index.m3u8").write_text(playlist("gone.ts", "gone.ts"))
    with pytest.raises(SourceError):
        await hear(f"{server.url}/index.m3u8", Ingest(open_seconds=1.0, reconnects=0))


def test_a_playlist_is_known_by_its_name() -> None:
    assert is_playlist(locate("HTTP://host/a/INDEX.M3U8?x=1", ()))
    assert not is_playlist(locate("https://host/a.mp4?x=.m3u8", ()))
    assert not is_playlist(locate("rtsp://host/a.m3u8", ()))


def test_libav_opens_what_playlists_name_and_learns_neither_password_nor_url() -> None:
    def live(number: int) -> Answer:
        return Answer(playlist(f"s{number}.ts", ended=False, head=f"#EXT-X-MEDIA-SEQUENCE:{number}").encode())

    with site_at("127.0.0.1") as server:
        home = f"127.0.0.1:{server.port}"
        server.pages = {"/index.m3u8": [live(0), live(1), live(2)], **dict.fromkeys(PARTS, Answer(b"media"))}
        hls = Hls(locate(f"http://me:secret@{home}/index.m3u8?t=token", None), 4.0, True, lambda: None)
        url = hls.start()
        segments: list[str] = []
        for number in range(3):
            text = hls.open_nested(url, 0, {}).read(10_000).decode()
            assert not any(word in url + text for word in ("secret", "token", home))
            segments += [line for line in text.splitlines() if line.endswith(".ts")]
            assert len(segments) == number + 1
            for allowed in segments[-2:]:
                assert hls.open_nested(allowed, 0, {}).read(10) == b"media"
        assert all("Authorization" in headers for _, headers in server.asked)
        assert [path for path, _ in server.asked][:2] == ["/index.m3u8?t=token", "/s0.ts"]
        asked = len(server.asked)
        for other in (segments[0], f"http://{home}/s2.ts", "http://source/99.ts", "file:///etc/passwd"):
            with pytest.raises(SourceError, match="names nothing like that") as caught:
                hls.open_nested(other, 0, {})
            assert caught.value.code == "refused"
        assert len(server.asked) == asked
        hls.close()


def test_what_a_playlist_names_by_another_protocol_than_http_is_refused() -> None:
    with site_at("127.0.0.1") as server:
        server.pages = {"/index.m3u8": Answer(playlist("file:///etc/passwd").encode())}
        hls = Hls(locate(f"http://127.0.0.1:{server.port}/index.m3u8", None), 4.0, True, lambda: None)
        text = hls.open_nested(hls.start(), 0, {}).read(10_000).decode()
        (named,) = [line for line in text.splitlines() if line.startswith("http")]
        with pytest.raises(SourceError, match="something that is not http"):
            hls.open_nested(named, 0, {})
        hls.close()


async def test_no_token_of_an_address_or_a_playlist_reaches_the_process_that_reads_it(
    site: tuple[Path, Web], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, server = site
    cipher = Cipher(algorithms.AES(KEY), modes.CBC(bytes(16))).encryptor()
    piece = (folder / "s0.ts").read_bytes()
    pad = 16 - len(piece) % 16
    (folder / "e0").write_bytes(cipher.update(piece + bytes([pad]) * pad) + cipher.finalize())
    (folder / "key.bin").write_bytes(KEY)
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="key.bin?a={CANARY}"'
    (folder / "v.m3u8").write_text(playlist(key, f"e0?b={CANARY}", "#EXT-X-KEY:METHOD=NONE", "s1.ts"))
    (folder / "index.m3u8").write_text(f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=800000\nv.m3u8?c={CANARY}\n")
    sent: list[bytes] = []
    started: list[bytes] = []
    send, wait_ready = Channel.send, SourceProcess.wait_ready

    def sending(self: Channel, header: Any, parts: Any = ()) -> None:
        sent.append(json.dumps(header).encode() + b"".join(map(bytes, parts)))
        send(self, header, parts)

    def starting(self: SourceProcess) -> None:
        wait_ready(self)
        place = Path(f"/proc/{self.pid}")
        started.append((place / "cmdline").read_bytes() + (place / "environ").read_bytes())

    monkeypatch.setattr(Channel, "send", sending)
    monkeypatch.setattr(SourceProcess, "wait_ready", starting)
    heard = await hear(f"{server.url}/index.m3u8?token={CANARY}")
    assert begins(heard.sound) == [0, 3]
    asked = [f"/v.m3u8?c={CANARY}", f"/key.bin?a={CANARY}", f"/e0?b={CANARY}"]
    assert server.asked == [f"/index.m3u8?token={CANARY}", *asked, "/s1.ts"], "the server sees them all"
    assert len(started) == 1 and b"source_child" in started[0]
    assert any(b"#EXTM3U" in message for message in sent)
    assert not any(CANARY.encode() in message for message in (*started, *sent))
