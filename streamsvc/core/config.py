"""All settings, validated once at start.

Components get their group as an argument. Sources, in rising precedence: the defaults here, a TOML file
(`--config`, or STREAMSVC_CONFIG), the environment (`STREAMSVC_SERVER__PORT=9000`), flags of the command.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from streamsvc.core import web_address
from streamsvc.core.cluster_config import Cluster as Cluster
from streamsvc.core.errors import ConfigError
from streamsvc.core.media_config import Group as Group
from streamsvc.core.media_config import Ingest as Ingest
from streamsvc.core.media_config import Sample as Sample
from streamsvc.core.media_config import Turn as Turn
from streamsvc.core.plain_errors import plain_errors
from streamsvc.core.tracing_config import Tracing as Tracing
from streamsvc.core.workers_config import Workers as Workers


class Server(Group):
    """HTTP server, access, and sources."""

    host: str = "127.0.0.1"  # address to listen on; one that is not loopback needs api_key
    port: int = Field(8080, ge=0, le=65535)  # TCP, of everything but media; 0: any free one
    api_key: str | None = Field(None, min_length=16, repr=False)  # signs tokens too; needed beyond loopback
    # Opens /metrics and /v1/capacity alone, for Prometheus and load balancers; it needs api_key beside it.
    metrics_key: str | None = Field(None, min_length=16, repr=False)
    tls_cert: Path | None = None  # certificate chain, PEM; goes with tls_key
    tls_key: Path | None = None  # private key, PEM
    tls_self_signed: bool = False  # make a certificate at start; browsers warn of it
    sources: tuple[Path, ...] = ()  # security limit: `file:` sources must lie below one of these folders
    private_urls: bool = False  # security limit: sources may name hosts of private networks
    drain_seconds: float = Field(30.0, ge=0)  # that live sessions may go on after SIGTERM
    # addresses or networks ("10.0.0.0/8") whose X-Forwarded-* headers are believed
    trusted_proxies: tuple[Annotated[str, AfterValidator(web_address.proxy)], ...] = ()
    origins: tuple[str, ...] = ()  # of browsers (CORS) besides our own: "https://example.org"; "*": any
    # what addresses begin with behind a proxy, path stripped or not: "https://example.org/live"; "": nothing.
    public_url: str = ""
    data_dir: Path | None = None  # session folders; default: below the cache folder

    @field_validator("origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(origin if origin == "*" else web_address.origin(origin) for origin in origins)

    @field_validator("public_url")
    @classmethod
    def _is_public(cls, url: str) -> str:
        return web_address.public_url(url)

    @model_validator(mode="after")
    def _metrics_key_is_another(self) -> Server:
        if self.metrics_key is not None and self.api_key in (None, self.metrics_key):
            raise ValueError("metrics_key opens less than api_key: it needs one beside it, and is another")
        return self

    @property
    def prefix(self) -> str:
        """The path of `public_url`, such as "/live"; "": it has none."""
        return urlsplit(self.public_url).path

    def address(self, path: str) -> str:
        """Where `path` of this service is found from outside: absolute with `public_url`, else the path."""
        return f"{self.public_url}{path}"


class Limits(Group):
    """Limits that protect the service."""

    sessions: int = Field(4, ge=1)  # with a publisher at once; more get 503 + Retry-After
    sessions_per_token: int = 2  # of them, made with one token; uploads to /v1/listen likewise; the key: all
    unpublished: int = 64  # sessions that wait for their first publisher; they hold no place
    unpublished_per_holder: int = 16  # of them, made with one token
    unpublished_seconds: float = 600.0  # that such a session waits, then it ends: "never_published"
    # After a session is deleted: what has come in and is not understood by then is given up.
    delete_seconds: float = Field(10.0, ge=0)
    sdp_bytes: int = 128 * 1024  # of an offer
    sdp_media: int = 4  # m-lines
    sdp_candidates: int = 64  # of an offer and its trickled ones
    sdp_seconds: float = 2.0  # to parse and answer
    message_bytes: int = 64 * 1024  # one client message on the event socket
    question_chars: int = 2000  # of a question
    image_bytes: int = 2 * 1024 * 1024  # of an image that comes with a question
    questions_waiting: int = 8  # per session
    subscribers: int = 64  # per session; half of them with one token; with the key: all
    watches: int = 32  # per session
    pushes: int = 4  # per session; stopped ones count until deleted
    subscriber_events: int = 256  # that wait for a slow subscriber; then ephemeral ones go, then 4008
    subscriber_bytes: int = 1024 * 1024  # likewise
    subscriber_seconds: float = 10.0  # that it may read nothing; likewise
    messages_per_second: int = Field(50, ge=1)  # on an event socket, in bursts of twice as many; then 4429
    frames_per_second: int = Field(1000, ge=1)  # of any kind on any WebSocket; more wait unread
    requests_per_minute: int = 120  # that create sessions or tokens; per token, with the key per address
    updates_per_minute: int = 10  # session.update and PATCH of one session, with one token
    failures_per_minute: int = 30  # wrong or missing keys of one address; more get 429, right keys never do
    connections: int = 1024  # open at once; fewer where the process may open fewer files
    connections_per_address: int = 64  # that have not shown a valid token
    connections_per_token: int = 256  # that have shown one token or one made with it; not behind a proxy
    header_seconds: float = 10.0  # for the header of a request
    body_seconds: float = 30.0  # for its body
    body_bytes: int = 64 * 1024  # of a body; a question's may hold an image


_CODES = """
en zh de es ru ko fr ja pt tr pl ca nl ar sv it id hi fi vi he uk el ms cs ro da hu ta no th ur hr bg lt
la mi ml cy sk te fa lv bn sr az sl kn et mk br eu is hy ne mn bs kk sq sw gl mr pa si km sn yo so af oc
ka be tg sd gu am yi lo uz fo ht ps tk nn mt sa lb my bo tl mg as tt haw ln ha ba jw su
"""  # of Whisper's multilingual models (openai/whisper, tokenizer.py)
LANGUAGES = frozenset(_CODES.split())
Phrase = Annotated[str, Field(min_length=1, max_length=100)]
Phrases = Annotated[dict[Phrase, Phrase], Field(max_length=200)]  # recognised -> written; security limit


class Hear(Group):
    """Speech recognition."""

    model: str = "whisper-tiny.en"  # a name of engines/registry.toml with role "asr"
    device: Literal["cpu", "cuda"] = "cpu"  # of CTranslate2; on a GPU in float16, else in int8
    language: str | None = None  # None: English for *.en models, else detected
    translate: bool = False  # a second caption track in English; needs a multilingual model
    replace: Phrases = Field({})  # replacements in captions; a session may add its own
    screen_vocabulary: bool = True  # names and rare words on the screen are expected in speech; English alone
    step: float = 0.38  # seconds between decode steps
    beam: int = Field(3, ge=1, le=10)  # beam size of the final step of an utterance; earlier steps are greedy
    hangover: float = 0.5  # seconds of silence that end an utterance
    workers: int = 2  # concurrent decode steps, one thread each
    spare: bool | None = None  # a second process (330 MB) that takes over at once; None: where memory allows
    backlog_seconds: float = 20.0  # bound of the audio backlog; more is skipped (caption.gap)

    @model_validator(mode="after")
    def _can_translate(self) -> Hear:
        if self.translate and self.model.endswith(".en"):
            raise ValueError(
                f"translate needs a multilingual model, such as whisper-base: {self.model} knows English only"
            )
        return self


class See(Group):
    """Vision and screen text."""

    tagger: str = "efficientnet-lite3"  # a name of engines/registry.toml with role "tagger"
    detector: str = "ssd-mobilenet-v2-coco"  # a name of it with role "detector"
    tag_threshold: float = 0.4  # below it tags are mostly wrong
    box_threshold: float = 0.4  # the same of detections
    ocr: bool = True  # read the text on the screen
    clip: str | None = None  # CLIP or SigLIP of transformers: folder in models.dir/models; extra "gpu"
    clip_device: str = "cpu"  # torch device, e.g. "cuda"
    clip_adapter: str | None = None  # made by `python -m engines.finetune`
    labels: Path | None = None  # file of the labels it may name, one a line; tag_threshold applies

    @model_validator(mode="after")
    def _labels_have_a_model(self) -> See:
        if self.clip is None and (self.labels or self.clip_adapter):
            raise ValueError("labels and clip_adapter need see.clip, a vision-text model")
        return self


AUTO_MODEL = "auto"


class Think(Group):
    """Language model and its context window."""

    # "auto": the best there is of engines/registry.toml; else a name of it, or a folder in models.dir/models
    model: str = AUTO_MODEL
    sees: str = "none"  # embedded: a model that sees beside it, "smolvlm-500m" or a folder with mmproj*.gguf
    window_tokens: int = Field(4096, ge=256)  # of a session; embedded: context of a slot, answer included
    threads: int | None = Field(None, ge=1)  # embedded; None: half of the cores
    visual_tokens: int = Field(1024, ge=0)  # profile gpu: share of the window for keyframes
    device: str = "cpu"  # profile gpu: torch device, e.g. "cuda"
    tower: Literal["torch", "onnx"] = "torch"  # profile gpu: runtime of the vision tower; "onnx" on the CPU
    deadline: float = 3.0  # seconds for a whole answer
    scenes: bool = False  # scene captions by a model that sees (remote: sends pictures unasked)
    scene_seconds: float = Field(10.0, ge=1)  # minimum between two of these captions of a session


class Remote(Group):
    """Profile remote: an OpenAI-compatible endpoint, which is sent the session's text and pictures."""

    url: str = ""  # with /v1, as OpenAI clients take it: "http://127.0.0.1:11434/v1"
    key: SecretStr | None = None  # only from the environment: STREAMSVC_REMOTE__KEY
    model: str = ""  # answers questions with pictures
    text_model: str | None = None  # answers questions without pictures, cheaper; None: model
    timeout: float = Field(15.0, gt=0)  # seconds for a whole response; a question's deadline may be earlier
    images: int = Field(4, ge=0)  # most per request, the newest
    images_per_minute: int = Field(30, ge=0)  # of all sessions; beyond it questions are sent as text
    image_pixels: int = Field(786_432, ge=4096)  # most per image

    @field_validator("url")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        if url:
            web_address.http_url(url, "http://127.0.0.1:11434/v1")
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        plain = key.get_secret_value().strip() if key is not None else ""
        if not (plain.isascii() and plain.isprintable()) or " " in plain:
            raise ValueError("must be printable ASCII without blanks")
        return SecretStr(plain) if plain else None

    def options(self) -> dict[str, Any]:
        """Options for the worker, with the key in clear text."""
        return self.model_dump() | {"key": self.key.get_secret_value() if self.key is not None else ""}


class Embed(Group):
    """Sentence embeddings, for retrieval."""

    model: str = "e5-small-v2"  # sentence vectors: a name of engines/registry.toml


class Budget(Group):
    """The latency budget: p95 ages in seconds, and what enforces it."""

    ladder: bool = True  # degradation levels: spend fidelity before the budget is exceeded
    admission: bool = True  # refuse sessions that would exceed it; False: only limits.sessions counts
    stable: float = 1.2  # words that will not change any more
    final: float = 1.6  # closed captions, after their last word
    partial: float = 0.8  # open captions
    scene: float = 2.0  # scene captions
    screen: float = 4.0  # text on the screen
    first_clause: float = 1.5  # the first sentence of an answer
    answer: float = 3.0  # whole answers


class Store(Group):
    """Retention of a session's data."""

    retention: float = 3600.0  # seconds after the end of a session
    bytes: int = Field(10 << 30, ge=0)  # of all ended sessions on disk; the oldest are deleted first
    frames: int = 2000  # thumbnails per session; the oldest are deleted first
    events: int = 100_000  # durable events per session; the oldest are deleted first
    record: Literal["off", "asked", "all"] = "off"  # bundles for `replay`, with all media; asked: by `record`
    record_bytes: int = Field(1 << 30, ge=1)  # of one bundle; then its recording ends
    sync: Literal["process", "power"] = "process"  # what events survive: kill -9, or power loss too


class Models(Group):
    """Model profile and folder."""

    profile: Literal["embedded", "gpu", "remote"] = "embedded"  # gpu: a VLM answers; remote: an endpoint
    # weights, what is built of them, and (without server.data_dir) sessions; default: ~/.cache/streamsvc
    dir: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "streamsvc"
    )


class Settings(BaseSettings):
    """All groups of settings."""

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
    cluster: Cluster = Cluster()
    tracing: Tracing = Tracing()
    workers: Workers = Workers()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of precedence: flags, environment, file."""
        file = (TomlConfigSettingsSource(settings_cls, path),) if (path := _config_file.get("path")) else ()
        if any("key" in (source.toml_data.get("remote") or ()) for source in file):
            raise ValueError("remote.key must not be in a file: set STREAMSVC_REMOTE__KEY")
        return (init_settings, env_settings, *file)

    def check_listeners(self) -> None:
        """Raise ConfigError where a listener would be open to other machines without a key."""
        if self.server.api_key is not None:
            return
        if not web_address.is_loopback(self.server.host):
            raise ConfigError(
                f"settings: refusing to listen on {self.server.host} without a key: anyone who can reach "
                "this machine could publish and listen. Set STREAMSVC_SERVER__API_KEY (16 characters or "
                "more) or bind 127.0.0.1"
            )
        for door, listens in (("rtmp", self.ingest.rtmp_listen), ("srt", self.ingest.srt_listen)):
            if listens and not web_address.is_loopback(web_address.host_and_port(listens)[0]):
                raise ConfigError(
                    f"settings: ingest.{door}_listen: refusing to open {listens} without a key: anyone may "
                    "publish. Set STREAMSVC_SERVER__API_KEY (16 characters or more) or listen on 127.0.0.1"
                )

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> Settings:
        if (self.server.tls_cert is None) != (self.server.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        return self

    @model_validator(mode="after")
    def _profile_has_its_model(self) -> Settings:
        if self.models.profile == "gpu" and self.think.model == AUTO_MODEL:
            raise ValueError("profile gpu needs think.model: a vision language model below models.dir/models")
        if self._is_ambiguous():
            raise ValueError(
                'workers.transport "ray" needs think.model: "auto" may be one model here and another one on'
                " the cluster's machines"
            )
        if self.models.profile == "remote" and not (self.remote.url and self.remote.model):
            raise ValueError("profile remote needs remote.url and remote.model")
        if self.think.scenes and self.models.profile == "embedded" and self.think.sees == "none":
            raise ValueError("think.scenes needs a model that sees: think.sees, or profile gpu or remote")
        if self.think.tower == "onnx" and self.think.device != "cpu":
            raise ValueError('think.tower "onnx" is for think.device "cpu"')
        return self

    def _is_ambiguous(self) -> bool:
        auto = self.models.profile == "embedded" and self.think.model == AUTO_MODEL
        return auto and self.workers.transport == "ray"

    @property
    def data_dir(self) -> Path:
        """Parent of the session folders."""
        return self.server.data_dir or self.models.dir / "sessions"


_config_file: dict[str, Path] = {}  # read by the TOML source during one `load`


def load(path: Path | None = None, **flags: dict[str, Any]) -> Settings:
    """Load and validate the settings.

    Args:
        path: a TOML file, or None.
        flags: groups of settings given on the command line, e.g. `server={"port": 9000}`.

    Raises:
        ConfigError: a setting is invalid; the message names it.
    """
    settings = read(path, **flags)
    settings.check_listeners()
    return settings


def read(path: Path | None = None, **flags: dict[str, Any]) -> Settings:
    """Load the settings of a command that opens no listener, such as `models pull`: no key is needed."""
    if path is not None and not path.is_file():
        raise ConfigError(f"the configuration file {path} does not exist")
    if path is not None:
        _config_file["path"] = path
    try:
        return Settings(**flags)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(plain_errors(error.errors(), Settings, "settings")) from None
    except SettingsError as error:  # its cause may quote a key
        group = str(error).partition('field "')[2].partition('"')[0] or "settings"
        raise ConfigError(
            f"{group}: in the environment a list or a table is written as JSON, as in "
            """STREAMSVC_SERVER__ORIGINS='["https://example.org"]'"""
        ) from None
    except ValueError as error:  # invalid TOML
        raise ConfigError(f"{path or 'settings'}: {error}") from None
    finally:
        _config_file.clear()
