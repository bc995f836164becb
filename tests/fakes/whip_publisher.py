"""Publish noise and a tone with FFmpeg's WHIP muxer.

    python -m tests.fakes.whip_publisher ADDRESS SECONDS [CERTIFICATE KEY]

A program of its own, since the muxer holds the GIL while it waits for responses. Without a certificate FFmpeg
makes one; where it is built with GnuTLS, on a curve that WebRTC does not support (deploy/decisions.md).
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np

RATE = 25  # pictures a second


def main(address: str, seconds: float, certificate: str = "", key: str = "") -> None:
    """Publish in real time; raises av.error.OSError when the handshake fails."""
    options = {"cert_file": certificate, "key_file": key} if certificate else {}
    with av.open(address, "w", format="whip", options=options) as container:
        video: Any = container.add_stream(
            "libx264",
            rate=RATE,
            options={
                "profile": "baseline",
                "tune": "zerolatency",
                "preset": "ultrafast",
                "g": str(RATE),
                "bf": "0",
            },
        )
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        audio: Any = container.add_stream("libopus", rate=48_000, layout="stereo")
        audio.bit_rate = 64_000
        container.start_encoding()
        start = time.monotonic()
        for number in range(round(seconds * RATE)):
            pixels = np.random.default_rng(number).integers(0, 255, (120, 160, 3), dtype=np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(picture))
            for half in range(2):
                first = (2 * number + half) * 960  # 20 ms
                wave = 0.3 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(first, first + 960))
                sound = av.AudioFrame.from_ndarray(
                    np.stack([wave, wave]).astype(np.float32), format="fltp", layout="stereo"
                )
                sound.sample_rate, sound.pts, sound.time_base = 48_000, first, Fraction(1, 48_000)
                container.mux(audio.encode(sound))
            time.sleep(max(0.0, start + (number + 1) / RATE - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), *sys.argv[3:5])
