"""HLS videos of colours and a tone, as libav's own muxer writes them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 10  # pictures a second


def hls_video(
    folder: Path, seconds: float, segment: float = 2.0, first: float = 0.0, mp4: bool = False
) -> Path:
    """Write a recording of H.264 and AAC; returns its playlist, without dates.

    `segment`: seconds of one. `first`: seconds of the first timestamp. `mp4`: fragmented MP4, not MPEG-TS.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "video.m3u8"
    options = {
        "hls_time": str(segment),
        "hls_list_size": "0",
        "hls_playlist_type": "vod",
        "hls_segment_type": "fmp4" if mp4 else "mpegts",
        "hls_segment_filename": str(folder / ("%d.m4s" if mp4 else "%d.ts")),
        "output_ts_offset": str(first),
    }
    with av.open(str(path), "w", format="hls", options=options) as out:
        picture = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "tune": "zerolatency"})
        assert isinstance(picture, av.VideoStream)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        picture.codec_context.gop_size = RATE
        sound = out.add_stream("aac", rate=48_000, layout="mono")
        assert isinstance(sound, av.AudioStream)
        count = round(seconds * RATE)
        for number in range(count):
            image = np.full((48, 64, 3), number * 255 // count, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(picture.encode(frame))
            samples = np.sin(np.arange(48_000 // RATE) * 0.05).astype(np.float32)[None] / 10
            tone = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 48_000, number * 48_000 // RATE
            tone.time_base = Fraction(1, 48_000)
            out.mux(sound.encode(tone))
        out.mux(picture.encode(None))
        out.mux(sound.encode(None))
    return path
