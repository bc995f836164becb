"""All settings, validated once at start; rooms get their group as an argument and read nothing themselves.

Sources, the later wins: defaults here, a TOML file (`--config`, or STREAMSVC_CONFIG), the environment
(`STREAMSVC_SERVER__PORT=9000`), flags of the command line.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from streamsvc.core.errors import ConfigError


class Group(BaseModel):
    """A group of settings: unchangeable, and a misspelt name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Server(Group):
    """The doors."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535)
    api_key: str | None = Field(
        None, min_length=16, repr=False
    )  # also signs tokens; required unless the bind is loopback
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_self_signed: bool = False
    sources: tuple[Path, ...] = ()  # security limit: `file:` sources must lie below one of these folders
    private_urls: bool = False  # security limit: whether sources may name hosts of private networks
    origins: tuple[str, ...] = ()  # browser origins that may connect besides our own
    data_dir: Path | None = None  # sessions' folders; default: below the cache folder


class Limits(Group):
    """Sizes and times that protect the service."""

    sessions: int = Field(4, ge=1)  # admitted at once; the rest get 503 + Retry-After
    sdp_bytes: int = 128 * 1024
    sdp_media: int = 4  # m-lines
    sdp_candidates: int = 64
    sdp_seconds: float = 2.0  # to parse and answer
    message_bytes: int = 64 * 1024  # one client message on the event socket
    question_chars: int = 2000
    image_bytes: int = 2 * 1024 * 1024
    questions_waiting: int = 8  # per session
    subscribers: int = 64  # per session
    watches: int = 32  # per session
    pushes: int = 4  # per session; stopped ones count until they are deleted
    subscriber_events: int = 256
    subscriber_bytes: int = 1024 * 1024
    subscriber_seconds: float = 10.0
    requests_per_minute: int = 120  # creating sessions and tokens, per client address


class Ingest(Group):
    """How media comes in."""

    ice_servers: tuple[str, ...] = ()  # stun:… or turn:…; none: host candidates only
    loopback: bool = True  # offer 127.0.0.1 too: tests, containers
    handshake_seconds: float = 10.0
    stall_seconds: float = 3.0  # no media, no RTCP, no consent for so long: session.stalled
    close_seconds: float = 10.0  # ... the peer is closed
    resume_seconds: float = 30.0  # ... the context is kept for so long after that
    start_kbps: int = 1500  # x-google-start-bitrate in the answer
    reorder_packets: int = 3  # audio packets waited for before a hole is given up
    open_seconds: float = 8.0  # until a URL must have answered
    reconnects: int = 5  # tries, for live URLs, with backoff
    audio_seconds: float = Field(5.0, gt=0)  # encoded audio waiting to be decoded
    video_ring: int = 120  # encoded frames (4 s at 30 a second)


class Sample(Group):
    """Which pictures are looked at."""

    min_interval: float = 0.5  # seconds between keyframes; half of it while somebody speaks or has just asked
    max_interval: float = (
        10.0  # a picture that changes a little all the time is looked at this often; the same half
    )
    scene_threshold: float = 0.08  # share of the picture that must change
    budget: float = Field(
        1.0, gt=0
    )  # keyframes a second of one session, on the mean; what is refused is counted, and asks again
    budget_all: float = Field(4.0, gt=0)  # ... of all sessions
    burst: int = Field(5, ge=1)  # keyframes at once, of one or of all, after a pause
    probe_fps: float = 5.0  # pictures compared per second


_CODES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt la mi ml cy sk te fa lv
bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa
lb my bo tl mg as tt haw ln ha ba jw su
"""  # of Whisper's multilingual models (openai/whisper, tokenizer.py)
LANGUAGES = frozenset(_CODES.split())
Phrase = Annotated[str, Field(min_length=1, max_length=100)]
Phrases = Annotated[
    dict[Phrase, Phrase], Field(max_length=200)
]  # security limit; what is heard -> what is to be written


class Hear(Group):
    """Speech recognition."""

    model: str = "whisper-tiny.en"  # a name of engines/registry.toml with role "asr"
    device: Literal["cpu", "cuda"] = "cpu"  # of CTranslate2; on a GPU in float16, else in int8
    language: str | None = None  # None: English for *.en models, else detected
    translate: bool = False  # a second track of captions in English; needs a model that is not *.en
    replace: Phrases = {}  # phrases of captions written otherwise; a session's own come on top
    step: float = 0.38  # seconds between decode steps
    beam: int = Field(
        3, ge=1, le=10
    )  # hypotheses followed at once where a pause settles what was said; steps before it follow one
    hangover: float = 0.5  # seconds of silence that end an utterance
    workers: int = 2  # decode steps at once, one thread each
    backlog_seconds: float = 20.0  # audio waiting for the worker; more is skipped and said (caption.gap)

    @model_validator(mode="after")
    def _can_translate(self) -> Hear:
        if self.translate and self.model.endswith(".en"):
            raise ValueError(
                f"translate needs a multilingual model, such as whisper-base: {self.model} knows English alone"
            )
        return self


class See(Group):
    """Vision and screen text."""

    tagger: str = "efficientnet-lite3"
    detector: str = "ssd-mobilenet-v2-coco"
    tag_threshold: float = 0.4  # below, the tagger names what is not there
    box_threshold: float = 0.4
    ocr: bool = True
    clip: str | None = (
        None  # a vision-text model (CLIP, SigLIP): a folder below models.dir/models, as transformers saves it; extra gpu
    )
    clip_device: str = "cpu"  # of torch, e.g. "cuda"
    clip_adapter: str | None = None  # of `python -m engines.finetune`
    labels: Path | None = (
        None  # what it may name in a picture: a file, one label a line; tag_threshold holds for these too
    )

    @model_validator(mode="after")
    def _labels_have_a_model(self) -> See:
        if self.clip is None and (self.labels or self.clip_adapter):
            raise ValueError("labels and clip_adapter need see.clip, a vision-text model")
        return self


SMALL = "smollm2-135m-instruct"


class Think(Group):
    """The language model and the window it is shown."""

    model: str = SMALL  # profile gpu: the folder of a vision language model, as transformers saves it, below models.dir/models
    window_tokens: int = Field(4096, ge=256)  # profiles gpu and remote: of a session, shown at once
    visual_tokens: int = Field(1024, ge=0)  # profile gpu: of these, for keyframes
    device: str = "cpu"  # profile gpu: of torch, e.g. "cuda"
    tower: Literal["torch", "onnx"] = (
        "torch"  # profile gpu: what runs the vision tower; "onnx" is for the CPU
    )
    deadline: float = 3.0  # seconds for a whole answer
    scenes: bool = False  # profiles gpu and remote: the model captions scenes too; a remote one is sent pictures though nobody asks
    scene_seconds: float = Field(10.0, ge=1)  # between two of these captions of a session, at least


class Remote(Group):
    """Profile remote: an OpenAI-compatible endpoint (vLLM, Ollama, llama.cpp, a cloud). What was said and shown is sent there."""

    url: str = ""  # as OpenAI's clients take it, with its /v1: "http://127.0.0.1:11434/v1"
    key: SecretStr | None = None  # by the environment alone: STREAMSVC_REMOTE__KEY
    model: str = ""  # answers, and is shown pictures
    text_model: str | None = None  # answers where no picture is shown: a cheaper one; None: model
    timeout: float = Field(
        15.0, gt=0
    )  # seconds for a whole answer of the endpoint; a question's own deadline comes first
    images: int = Field(4, ge=0)  # of one request, the newest
    images_per_minute: int = Field(30, ge=0)  # of all sessions; beyond it a question goes as text
    image_pixels: int = Field(786_432, ge=4096)  # of one image, at most

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        read = urlsplit(url)
        plain = (
            read.scheme in ("http", "https")
            and read.hostname
            and read.port != 0
            and not (read.query or read.fragment)
        )
        if url and (not plain or "@" in read.netloc):
            raise ValueError(
                'an address such as "http://127.0.0.1:11434/v1", without user, query and fragment'
            )
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        bare = key.get_secret_value().strip() if key is not None else ""
        if not (bare.isascii() and bare.isprintable()) or " " in bare:
            raise ValueError("a key is made of ASCII characters without blanks")
        return SecretStr(bare) if bare else None

    def options(self) -> dict[str, Any]:
        """For the worker, with the key as it is."""
        return self.model_dump() | {"key": self.key.get_secret_value() if self.key is not None else ""}


class Embed(Group):
    """Sentence vectors, for search."""

    model: str = "minilm-l6-v2"


class Budget(Group):
    """The contract, p95 ages in seconds."""

    ladder: bool = True  # fidelity is spent before it is broken
    admission: bool = (
        True  # sessions are refused before those that are live break it; False: up to limits.sessions
    )

    stable: float = 1.2
    final: float = 1.6
    partial: float = 0.8
    scene: float = 2.0
    screen: float = 4.0
    first_clause: float = 1.5
    answer: float = 3.0


class Store(Group):
    """What is kept."""

    retention: float = 3600.0  # seconds after the end of a session
    frames: int = 2000  # thumbnails per session; the oldest go first
    events: int = 100_000  # durable events per session; the oldest go first


class Models(Group):
    """Where weights lie."""

    # gpu: answers by a vision language model (engines/vlm.py); remote: by an endpoint (engines/remote.py)
    profile: Literal["embedded", "gpu", "remote"] = "embedded"
    dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamsvc"
    )


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix="STREAMSVC_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    server: Server = Server()
    limits: Limits = Limits()
    ingest: Ingest = Ingest()
    sample: Sample = Sample()
    hear: Hear = Hear()
    see: See = See()
    think: Think = Think()
    remote: Remote = Remote()
    embed: Embed = Embed()
    budget: Budget = Budget()
    store: Store = Store()
    models: Models = Models()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then the environment, then the file."""
        path = _config_file.get("path")
        file = (TomlConfigSettingsSource(settings_cls, toml_file=path),) if path else ()
        if any("key" in (source.toml_data.get("remote") or ()) for source in file):
            raise ValueError("remote.key does not belong into a file: set STREAMSVC_REMOTE__KEY")
        return (init_settings, env_settings, *file)

    @model_validator(mode="after")
    def _bind_is_guarded(self) -> Settings:
        if not is_loopback(self.server.host) and self.server.api_key is None:
            raise ValueError(
                f"refusing to listen on {self.server.host} without a key: everybody who reaches this machine could "
                "publish and listen. Set STREAMSVC_SERVER__API_KEY to 16 characters or more, or bind 127.0.0.1"
            )
        if (self.server.tls_cert is None) != (self.server.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        return self

    @model_validator(mode="after")
    def _profile_has_its_model(self) -> Settings:
        if self.models.profile == "gpu" and self.think.model == SMALL:
            raise ValueError(
                "profile gpu needs think.model: the folder of a vision language model below models.dir/models"
            )
        if self.models.profile == "remote" and not (self.remote.url and self.remote.model):
            raise ValueError("profile remote needs remote.url and remote.model")
        if self.think.scenes and self.models.profile == "embedded":
            raise ValueError("think.scenes needs a model that sees: models.profile gpu or remote")
        if self.think.tower == "onnx" and self.think.device != "cpu":
            raise ValueError('think.tower "onnx" is for think.device "cpu"')
        return self

    @property
    def data_dir(self) -> Path:
        """The folder of the sessions' folders."""
        return self.server.data_dir or self.models.dir / "sessions"


_config_file: dict[str, Path] = {}  # handed to the settings source of one `load`


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(path: Path | None = None, **flags: dict[str, Any]) -> Settings:
    """Read and validate the settings.

    Args:
        path: a TOML file, or None.
        flags: groups of settings given on the command line, e.g. `server={"port": 9000}`.

    Raises:
        ConfigError: a setting is wrong; the message names it.
    """
    if path is not None and not path.is_file():
        raise ConfigError(f"the configuration file {path} does not exist")
    if path is not None:
        _config_file["path"] = path
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError("; ".join(_told(item["loc"], item["msg"]) for item in error.errors())) from None
    except ValueError as error:  # a TOML file that is none
        raise ConfigError(f"{path or 'settings'}: {error}") from None
    finally:
        _config_file.clear()


def _told(place: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, place)) or 'settings'}: {message.removeprefix('Value error, ')}"
