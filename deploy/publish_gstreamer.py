"""Publish with GStreamer's webrtcbin by WHIP. Debian packages it for the system's Python alone.

    /usr/bin/python3 deploy/publish_gstreamer.py FILE ADDRESS vp8|h264
    /usr/bin/python3 deploy/publish_gstreamer.py --check    exit with 0 if everything it needs is installed

It publishes FILE's speech, once and in real time, and a moving ball. It exits with 0 when the speech is over,
with 1 when the connection failed. A token is read from STREAMSVC_TOKEN. For a camera and a microphone,
replace the sources of LAUNCH.
"""

# mypy: ignore-errors
from __future__ import annotations

import os
import sys
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

VIDEO = {
    "vp8": "vp8enc deadline=1 keyframe-max-dist=30 ! rtpvp8pay",
    "h264": "openh264enc gop-size=30 ! rtph264pay config-interval=-1",
}
LAUNCH = """webrtcbin name=peer bundle-policy=max-bundle
    videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1
      ! {video} pt=96 ! queue ! peer.
    filesrc location="{file}" ! decodebin ! audioconvert ! audioresample ! clocksync
      ! opusenc ! rtpopuspay pt=97 ! queue name=speech ! peer."""
ELEMENTS = [
    "webrtcbin",
    "nicesink",
    "dtlssrtpenc",
    "vp8enc",
    "openh264enc",
    "opusenc",
    "rtpopuspay",
    "decodebin",
    "clocksync",
]


class Publisher:
    """A pipeline that publishes to a WHIP address."""

    def __init__(self, file: str, address: str, codec: str) -> None:
        self.address = address
        token = os.environ.get("STREAMSVC_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.resource = ""
        self.status = 1
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch(LAUNCH.format(file=file, video=VIDEO[codec]))
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-negotiation-needed", self.offer)
        self.peer.connect("notify::ice-gathering-state", self.post)
        self.peer.connect("notify::connection-state", self.note_state)
        # Pictures never end, so the end of the speech is the end.
        pad = self.pipeline.get_by_name("speech").get_static_pad("src")
        pad.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self.note_event)

    def run(self) -> int:
        """Publish until the speech is over; the exit status."""
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        if self.resource:
            end = urllib.request.Request(self.resource, headers=self.headers, method="DELETE")
            urllib.request.urlopen(end, timeout=10)
        self.pipeline.set_state(Gst.State.NULL)
        return self.status

    def offer(self, peer: Gst.Element) -> None:
        """Make the offer, which begins the gathering of candidates."""

        def made(promise: Gst.Promise) -> None:
            reply = promise.get_reply()  # a name of its own: it holds the offer's memory
            offer = reply.get_value("offer")
            peer.emit("set-local-description", offer, None)

        peer.emit("create-offer", None, Gst.Promise.new_with_change_func(made))

    def post(self, peer: Gst.Element, _: object) -> None:
        """Post the offer once it is complete, and take the answer."""
        if peer.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        offer = peer.get_property("local-description").sdp.as_text()
        request = urllib.request.Request(
            self.address, offer.encode(), self.headers | {"Content-Type": "application/sdp"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            self.resource = urllib.parse.urljoin(self.address, response.headers["Location"])
            _, message = GstSdp.SDPMessage.new_from_text(response.read().decode())
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        peer.emit("set-remote-description", answer, None)

    def note_state(self, peer: Gst.Element, _: object) -> None:
        """End when the connection fails."""
        state = peer.get_property("connection-state")
        print(state.value_nick, flush=True)
        if state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            self.loop.quit()

    def note_event(self, _: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        """End at the end of the speech."""
        if info.get_event().type == Gst.EventType.EOS:
            self.status = 0
            self.loop.quit()
            return Gst.PadProbeReturn.DROP
        return Gst.PadProbeReturn.OK


def main() -> int:
    """Publish once."""
    Gst.init(None)
    missing = [name for name in ELEMENTS if Gst.ElementFactory.find(name) is None]
    if missing:
        print("missing: " + " ".join(missing), file=sys.stderr)
        return 1
    return 0 if sys.argv[1] == "--check" else Publisher(*sys.argv[1:4]).run()


if __name__ == "__main__":
    sys.exit(main())
