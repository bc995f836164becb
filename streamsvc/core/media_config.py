"""Settings of media that come in: doors, sources, keyframe sampling; and what every group of settings is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from streamsvc.core import web_address


class Group(BaseModel):
    """A group of settings: immutable; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Turn(Group):
    """TURN servers that take credentials made of a shared secret (coturn: use-auth-secret)."""

    urls: tuple[str, ...] = ()  # "turn:host:3478", told to publishers with credentials
    secret: SecretStr | None = None  # coturn's static-auth-secret; better from the environment
    seconds: int = Field(86_400, ge=60)  # that credentials hold


class Hooks(Group):
    """Media servers of the operator's whose publish hooks we answer: where their streams are pulled.

    {app} and {name} stand for the stream's; its name is the session's. "": its hooks are refused.
    """

    mediamtx: Annotated[str, AfterValidator(web_address.pull)] = ""  # "rtsp://127.0.0.1:8554/{name}"
    nginx_rtmp: Annotated[str, AfterValidator(web_address.pull)] = ""  # "rtmp://127.0.0.1:1935/{app}/{name}"
    srs: Annotated[str, AfterValidator(web_address.pull)] = ""  # "rtmp://127.0.0.1:1935/{app}/{name}"
    # "http://127.0.0.1:3333/{app}/{name}/ts:playlist.m3u8"
    ome: Annotated[str, AfterValidator(web_address.pull)] = ""
    ome_secret: SecretStr | None = None  # SecretKey of its AdmissionWebhooks

    @model_validator(mode="after")
    def _is_signed(self) -> Hooks:
        if self.ome and self.ome_secret is None:
            raise ValueError("ome needs ome_secret, the SecretKey of its AdmissionWebhooks")
        return self


class Ingest(Group):
    """Media input: WebRTC and sources."""

    ice_servers: tuple[str, ...] = ()  # "stun:…" or "turn:…"; empty: host candidates only
    turn: Turn = Turn()  # servers that share a secret with us
    udp_ports: Annotated[str, AfterValidator(web_address.checked_ports)] = ""  # "50000-50100", for media
    advertise: tuple[Annotated[str, AfterValidator(web_address.ip)], ...] = ()  # of a router in front of us
    srt_listen: Annotated[str, AfterValidator(web_address.listen)] = ""  # "0.0.0.0:9710"; "": no SRT
    srt_passphrase: Annotated[SecretStr, Field(min_length=10, max_length=79)] | None = None  # None: plain SRT
    srt_latency_ms: int = Field(200, ge=20, le=8000)  # to repair losses in; a publisher may ask for more
    ice_seconds: float = Field(1.0, gt=0)  # to wait for them; then the answer goes without their candidates
    loopback: bool = True  # offer 127.0.0.1 as a candidate: tests, containers
    # For publishers of RTMP, address:port such as "0.0.0.0:1935", by Debian's nginx; "": no RTMP.
    rtmp_listen: Annotated[str, AfterValidator(web_address.listen)] = ""
    hooks: Hooks = Hooks()
    handshake_seconds: float = 10.0  # for ICE and DTLS of an offer; then its place is free again
    stall_seconds: float = 3.0  # without media, RTCP and consent: session.stalled
    close_seconds: float = 10.0  # without them: the peer is closed
    resume_seconds: float = 30.0  # after that the session still accepts a publisher
    # Without media of a publisher by RTMP or SRT: another connection with its token or key takes over then.
    takeover_seconds: float = Field(1.0, gt=0)
    start_kbps: int = 1500  # x-google-start-bitrate in the answer
    reorder_packets: int = 3  # fewest audio packets behind a hole until it counts as lost
    open_seconds: float = 8.0  # connection time limit of a URL
    sandbox: Literal["auto", "require", "off"] = "auto"  # of the process that reads a file or URL
    reconnects: int = 5  # of a live URL, with backoff
    # What is decoded of video. "auto": codec keyframes alone where they come each second, by themselves or on
    # request; else "full". "keyframes": these alone, however seldom they come.
    video: Literal["auto", "full", "keyframes"] = "auto"
    keyframe_kbps: float = Field(300.0, gt=0)  # "auto": that requested keyframes may cost a publisher
    audio_seconds: float = Field(5.0, gt=0)  # size of the queue of encoded audio
    video_ring: int = 120  # encoded frames (4 s at 30 a second)


class Sample(Group):
    """Keyframe sampling."""

    min_interval: float = 0.5  # seconds between keyframes; halved during speech and after a question
    max_interval: float = 10.0  # seconds between keyframes of slow, steady change; halved likewise
    scene_threshold: float = 0.08  # share of the picture that must change
    budget: float = Field(1.0, gt=0)  # mean keyframes a second, per session; refusals are counted and retried
    budget_all: float = Field(4.0, gt=0)  # mean keyframes a second, all sessions
    burst: int = Field(5, ge=1)  # token bucket size of both budgets
    probe_fps: float = 5.0  # pictures compared per second
