"""Live video and audio in; captions, scene captions and answers out, within a stated latency budget."""

__version__ = "0.1.0"
