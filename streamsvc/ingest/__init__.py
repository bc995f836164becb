"""Media input: WebRTC publishers, files and URLs -> encoded frames -> audio and pictures.

In: an SDP offer (`whip` over HTTP, answered by `peer`), or a path or URL (`source`, read by libav).

Out: `EncodedFrame`s on the session's clock, passed to a tap before any decoder, and state changes (connected,
stalled, resumed, closed). `decode` turns frames into 16 kHz mono `AudioChunk`s and `VideoFrame`s, here or in
the process of a source (`decoders`); speech and vision import these two alone, so this file imports nothing.
"""

__all__ = ["decode", "peer", "source", "whip"]
