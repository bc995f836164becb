"""Settings of apt and pip reach a build, and a Compose service becomes options of podman."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from load_tests import container_engine
from load_tests.container_engine import (
    DOCKERFILE,
    Engine,
    apt_options,
    dockers_rule,
    interpolated,
    missing,
    pip_conf,
    pip_mounts,
    pip_settings,
    run_flags,
    suite,
)

LISTED = """\
:env:.default-timeout='180'
:env:.find-links='/a/wheels'
:env:.disable-pip-version-check='1'
global.cert='/etc/ssl/ca.pem'
global.find-links='/b/wheels'
global.extra-index-url='file:///c/simple https://index.example/simple'
"""


def test_programs_that_are_not_there_are_named_with_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: None if name in ("ip", "podman") else f"/usr/bin/{name}")
    assert missing() == "apt-get install --no-install-recommends podman iproute2"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert missing() == "building and running an image needs root"


def test_the_base_is_of_the_dockerfiles_debian_release() -> None:
    assert suite(DOCKERFILE.read_text()) == "bookworm"
    with pytest.raises(ValueError, match="no debian:SUITE-slim"):
        suite("ARG BASE=docker.io/library/alpine:3\n")


def test_apt_fetches_as_on_this_machine() -> None:
    dump = 'APT::Architecture "amd64";\nAcquire::http::Proxy "http://p:1/";\nAcquire::Languages "none";\n'
    assert apt_options(dump) == 'Acquire::http::Proxy "http://p:1/";\n'


def test_pip_fetches_as_on_this_machine_and_the_environment_comes_before_files() -> None:
    settings = pip_settings(LISTED)
    assert settings == {
        "cert": "/etc/ssl/ca.pem",
        "find-links": "/a/wheels",
        "extra-index-url": "file:///c/simple https://index.example/simple",
        "timeout": "180",
    }
    conf = pip_conf(settings)
    assert conf.startswith("[global]\n")
    assert "\nextra-index-url = file:///c/simple https://index.example/simple\n" in conf
    (certificates,) = re.findall(r"^cert = (\S+)$", conf, re.MULTILINE)
    assert pip_mounts(settings) == [
        (Path("/etc/ssl/ca.pem"), certificates),  # not where the package ca-certificates writes
        (Path("/a/wheels"), "/a/wheels"),
        (Path("/c"), "/c"),  # an index of files: they lie beside its folder "simple"
    ]


def test_dockers_rule_allows_no_namespaces_and_all_else_as_before() -> None:
    allowed = {
        "names": ["clone", "clone3", "read", "setns", "unshare"],
        "action": "SCMP_ACT_ALLOW",
        "args": [],
    }
    of_admin = {"names": ["setns"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}}
    made = dockers_rule({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allowed, of_admin]})
    kept, clone, clone3, refused = made["syscalls"]
    assert made["defaultAction"] == "SCMP_ACT_ERRNO"
    assert kept == {**allowed, "names": ["read"]}
    assert (clone["names"], clone["action"]) == (["clone"], "SCMP_ACT_ALLOW")
    new_user = 0x10000000
    assert clone["args"][0]["value"] & new_user
    assert clone["args"][0]["valueTwo"] == 0
    assert (clone3["names"], clone3["errnoRet"]) == (["clone3"], 38)  # glibc then calls clone
    assert refused["action"] == "SCMP_ACT_ERRNO"
    assert {"unshare", "setns", "mount"} <= set(refused["names"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("https://${A:?set it in .env}/b", "https://a/b"),
        ("${B:-auto}", "auto"),
        ("${A:-auto}", "a"),
        ('["${A}", "${A}"]', '["a", "a"]'),
    ],
)
def test_variables_of_a_compose_file_get_their_values(text: str, value: str) -> None:
    assert interpolated(text, {"A": "a"}) == value


def test_a_variable_that_must_be_set_is_missed() -> None:
    with pytest.raises(KeyError):
        interpolated("${C:?set it in .env}", {"A": "a"})


def test_a_compose_service_is_confined_alike_by_podman() -> None:
    service: dict[str, Any] = {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "tmpfs": ["/tmp:size=512m,mode=1777"],
        "volumes": ["a:/var/lib/a"],
        "environment": {"KEY": "${KEY:?}"},
        "ulimits": {"nofile": 65536},
        "stop_grace_period": "60s",
    }
    flags = run_flags(service, {"KEY": "secret"}, 70_000)
    for one in (
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--init",
        "--tmpfs=/tmp:size=512m,mode=1777",
        "--volume=a:/var/lib/a",
        "--env=KEY=secret",
        "--ulimit=nofile=65536:65536",
        "--stop-timeout=60",
    ):
        assert one in flags
    assert "--ulimit=nofile=1000:1000" in run_flags(service, {"KEY": "secret"}, 1000)
    assert run_flags({}, {}, 1000) == ["--ulimit=nofile=1000:1000", "--ulimit=nproc=16384:16384"]


def test_a_command_that_fails_ends_the_test_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="sh ended with status 3: a word"):
        container_engine._run(["sh", "-c", "echo a word; exit 3"])
    assert container_engine._run(["sh", "-c", "exit 3"], check=False).returncode == 3
    assert Engine(tmp_path).command("ps")[:3] == ["podman", "--root", str(tmp_path / "root")]
