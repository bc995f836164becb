"""Settings come from four sources by precedence; errors name the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from streamsvc.core import web_address
from streamsvc.core.config import load, read
from streamsvc.core.errors import ConfigError

KEY = "a-key-of-sixteen-or-more"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("STREAMSVC_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_valid_and_bind_loopback() -> None:
    settings = load()
    assert web_address.is_loopback(settings.server.host)
    assert settings.server.api_key is None
    assert settings.server.sources == ()


def test_flags_override_the_environment_and_that_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "streamsvc.toml"
    path.write_text('[server]\nport = 1001\nhost = "127.0.0.2"\n[limits]\nsessions = 9\n')
    monkeypatch.setenv("STREAMSVC_SERVER__PORT", "1002")
    settings = load(path)
    assert (settings.server.port, settings.server.host, settings.limits.sessions) == (1002, "127.0.0.2", 9)
    assert load(path, server={"port": 1003}).server.port == 1003
    assert load().server.port == 1002, "the file of one load is not used by the next"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nport = 99999\n", r"server\.port"),
        ("[server]\nprot = 80\n", r"server\.prot"),
        ("[limits]\nsessions = 0\n", r"limits\.sessions"),
        ("[nonsense]\nx = 1\n", "nonsense"),
        ("[hear]\ntranslate = true\n", "multilingual"),
        ('[hear.replace]\na = ""\n', r"hear\.replace"),
        ("[server\n", "server|Expected|TOML"),
    ],
)
def test_an_invalid_setting_in_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "streamsvc.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load(path)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"server": {"prot": 1}}, r"server\.prot: unknown key \(meant port\?\); allowed: api_key, "),
        ({"server": {"port": "x"}}, r"server\.port must be a whole number \["),
        ({"hera": {}}, r"hera: unknown key \(meant hear\?\); allowed: budget, "),
        ({"server": {"api_key": "short"}}, "must be at least 16 characters long"),
        ({"server": {"metrics_key": KEY}}, "metrics_key opens less than api_key: it needs one"),
        ({"server": {"metrics_key": KEY, "api_key": KEY}}, "metrics_key opens less .* is another"),
        ({"server": {"metrics_key": "short", "api_key": KEY}}, "must be at least 16 characters long"),
        ({"server": {"origins": ["example.org"]}}, r"server\.origins must be a URL such as"),
        ({"server": {"public_url": "https://a/v1"}}, r"server\.public_url: its path must not begin with /v1"),
    ],
)
def test_a_wrong_setting_is_told_in_plain_words(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(**flags)
    assert "Input should" not in caught.value.message


def test_a_list_in_the_environment_is_json_and_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSVC_SERVER__ORIGINS", "https://example.org")
    with pytest.raises(ConfigError, match="STREAMSVC_SERVER__ORIGINS") as caught:
        load()
    assert caught.value.message.startswith("server: in the environment a list or a table is written as JSON")
    monkeypatch.setenv("STREAMSVC_SERVER__ORIGINS", '["https://Example.org/"]')
    assert load().server.origins == ("https://example.org",)


def test_addresses_begin_with_the_public_url() -> None:
    server = load(server={"public_url": "https://example.org/live/"}).server
    assert (server.prefix, server.address("/whip/a")) == ("/live", "https://example.org/live/whip/a")
    assert (load().server.prefix, load().server.address("/whip/a")) == ("", "/whip/a")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml does not exist"):
        load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_a_public_bind_needs_a_key_and_the_error_names_the_setting(host: str) -> None:
    with pytest.raises(ConfigError, match="STREAMSVC_SERVER__API_KEY"):
        load(server={"host": host})
    assert load(server={"host": host, "api_key": KEY}).server.host == host


def test_a_short_key_is_refused_and_a_key_is_never_shown() -> None:
    with pytest.raises(ConfigError, match=r"server\.api_key"):
        load(server={"api_key": "short"})
    assert KEY not in repr(load(server={"api_key": KEY}))


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="go together"):
        load(server={"tls_cert": tmp_path / "cert.pem"})


def test_session_folders_lie_below_the_cache_unless_set(tmp_path: Path) -> None:
    assert load(models={"dir": tmp_path}).data_dir == tmp_path / "sessions"
    assert load(server={"data_dir": tmp_path / "here"}).data_dir == tmp_path / "here"


def test_the_profile_gpu_needs_a_vlm_and_a_tower_of_its_device() -> None:
    with pytest.raises(ConfigError, match="vision language model"):
        load(models={"profile": "gpu"})
    with pytest.raises(ConfigError, match="onnx"):
        load(think={"tower": "onnx", "device": "cuda"})
    assert load(models={"profile": "gpu"}, think={"model": "qwen2-vl-2b"}).think.window_tokens == 4096


def test_labels_and_an_adapter_need_a_vision_text_model(tmp_path: Path) -> None:
    for group in ({"labels": tmp_path / "labels.txt"}, {"clip_adapter": "colours"}):
        with pytest.raises(ConfigError, match=r"see\.clip"):
            load(None, see=group)
        assert load(None, see={**group, "clip": "siglip-base"}).see.clip == "siglip-base"


def test_the_profile_remote_needs_an_address_and_a_model() -> None:
    with pytest.raises(ConfigError, match=r"remote\.url and remote\.model"):
        load(models={"profile": "remote"}, remote={"url": "http://127.0.0.1:11434/v1"})
    settings = load(
        models={"profile": "remote"}, remote={"url": "http://127.0.0.1:11434/v1/", "model": "gemma3"}
    )
    assert settings.remote.url == "http://127.0.0.1:11434/v1"
    for url in (
        "127.0.0.1:11434",
        "ftp://host/v1",
        "https://user:pass@host/v1",
        "https://host/v1?key=1",
        "http://[::1/v1",
    ):
        with pytest.raises(ConfigError, match=r"remote\.url") as caught:
            load(remote={"url": url})
        assert "pass" not in str(caught.value)


def test_the_endpoint_key_comes_from_the_environment_only_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSVC_REMOTE__KEY", f" {KEY}\n")
    settings = load()
    assert settings.remote.options()["key"] == KEY
    assert KEY not in f"{settings!r}{settings}{settings.model_dump()}{settings.model_dump_json()}"
    monkeypatch.setenv("STREAMSVC_REMOTE__KEY", "two words")
    with pytest.raises(ConfigError, match=r"remote\.key") as caught:
        load()
    assert "two words" not in str(caught.value)
    monkeypatch.setenv("STREAMSVC_REMOTE__KEY", "")
    assert load().remote.options()["key"] == ""
    path = tmp_path / "streamsvc.toml"
    path.write_text(f'[remote]\nkey = "{KEY}"\n')
    with pytest.raises(ConfigError, match="STREAMSVC_REMOTE__KEY") as caught:
        load(path)
    assert KEY not in str(caught.value)


def test_scene_captions_by_a_model_need_a_vlm() -> None:
    with pytest.raises(ConfigError, match=r"think\.scenes needs a model that sees"):
        load(think={"scenes": True})
    settings = load(models={"profile": "gpu"}, think={"model": "qwen2-vl-2b", "scenes": True})
    assert (settings.think.scenes, settings.think.scene_seconds) == (True, 10.0)
    assert not load(models={"profile": "gpu"}, think={"model": "qwen2-vl-2b"}).think.scenes, "off by default"


def test_settings_are_immutable() -> None:
    settings = load()
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]


@pytest.mark.parametrize("setting", ["rtmp_listen", "srt_listen"])
def test_a_door_beyond_loopback_needs_a_key(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting}: refusing to open 0.0.0.0:9710 without a key"):
        load(ingest={setting: "0.0.0.0:9710"})
    load(ingest={setting: "127.0.0.1:9710"})
    load(ingest={setting: "0.0.0.0:9710"}, server={"api_key": "a key of sixteen characters"})


def test_a_command_without_listeners_needs_no_key() -> None:
    with pytest.raises(ConfigError, match=r"settings: refusing to listen on 0\.0\.0\.0 without a key"):
        load(server={"host": "0.0.0.0"})
    settings = read(server={"host": "0.0.0.0"}, ingest={"srt_listen": "0.0.0.0:9710"})
    assert settings.server.host == "0.0.0.0"
