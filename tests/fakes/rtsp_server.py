"""A real RTSP server on loopback: GStreamer's, which Debian packages for the system's Python alone.

    /usr/bin/python3 rtsp_server.py FILE PORT tcp|udp  serve rtsp://127.0.0.1:PORT/live; print PORT when ready
    /usr/bin/python3 rtsp_server.py --check            exit with 0 if everything it needs is installed

FILE is an MP4 with H.264 and AAC, streamed in real time from its start at the first client's request.
"""

# mypy: ignore-errors
from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

LAUNCH = """( filesrc location="{file}" ! qtdemux name=tracks
    tracks.video_0 ! queue ! rtph264pay name=pay0 pt=96 config-interval=-1
    tracks.audio_0 ! queue ! rtpmp4gpay name=pay1 pt=97 )"""
ELEMENTS = ("qtdemux", "rtph264pay", "rtpmp4gpay", "rtpbin", "udpsink")


def main() -> int:
    """Serve until killed."""
    Gst.init(None)
    missing = [name for name in ELEMENTS if Gst.ElementFactory.find(name) is None]
    if missing:
        print("missing: " + " ".join(missing), file=sys.stderr)
        return 1
    if sys.argv[1] == "--check":
        return 0
    file, port, transport = sys.argv[1:4]
    factory = GstRtspServer.RTSPMediaFactory(shared=True)
    factory.set_launch(LAUNCH.format(file=file))
    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP if transport == "udp" else GstRtsp.RTSPLowerTrans.TCP)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        return 1
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
