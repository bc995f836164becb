"""The files of deploy/kubernetes: the schemas take them, and they agree with the source and each other."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from streamsvc.core import config, metrics
from streamsvc.core.web_address import port_range

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
Resource = dict[str, Any]


def read(name: str) -> list[Resource]:
    """All documents of a file."""
    return list(yaml.load_all((FOLDER / name).read_text(), yaml.CSafeLoader))


KUSTOMIZATION = read("kustomization.yaml")[0]
OPTIONAL = ("autoscaling.yaml", "servicemonitor.yaml")
CUSTOM = ("servicemonitor.yaml",)  # of kinds that Kubernetes itself does not know
ALL = [(name, one) for name in (*KUSTOMIZATION["resources"], *OPTIONAL) for one in read(name)]


def of(kind: str, name: str = "streamsvc") -> Resource:
    """The resource of a kind and name."""
    (found,) = [one for _, one in ALL if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


POD = of("StatefulSet")["spec"]["template"]
(NODE,) = POD["spec"]["containers"]
DOMAIN = next(one["value"] for one in NODE["env"] if one["name"] == "DOMAIN")


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once() -> Iterator[None]:
    """The definitions of a version are megabytes, and are read for each resource."""
    with mock.patch.object(utils, "schema_contents", functools.cache(utils.schema_contents)):
        yield


def label(resource: Resource) -> str:
    return f"{resource['kind']}/{resource['metadata']['name']}"


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize(
    "resource", [one for name, one in ALL if name not in CUSTOM], ids=lambda one: label(one)
)
def test_kubernetes_takes_the_resource(resource: Resource, version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def test_a_wrong_field_is_found() -> None:
    wrong = {**of("Service"), "spec": {**of("Service")["spec"], "selectr": {}}}
    with pytest.raises(kubernetes_validate.ValidationError, match="selectr"):
        kubernetes_validate.validate(wrong, "1.30", strict=True)


def test_every_file_is_applied_or_offered_in_the_kustomization_and_the_readme() -> None:
    text = (FOLDER / "kustomization.yaml").read_text()
    readme = (FOLDER / "README.md").read_text()
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    applied = {*re.findall(r"^  # - (\S+\.yaml)", text, re.MULTILINE), *KUSTOMIZATION["resources"]}
    assert applied == files - {"prometheus-adapter.values.yaml"}
    assert {name for name in files if f"`{name}`" not in readme} <= {"namespace.yaml"}
    assert {image["name"] for image in KUSTOMIZATION["images"]} == {NODE["image"]}


def environment(tmp_path: Path) -> dict[str, str]:
    """The container's environment, with what Kubernetes would put in."""
    made = {
        "API_KEY": "a-key-of-sixteen-or-more",
        "METRICS_KEY": "m" * 48,
        "CLUSTER_SECRET": "s" * 48,
        "REDIS_PASSWORD": "p" * 48,
    }
    fields = {"metadata.name": "streamsvc-1", "status.hostIP": "192.0.2.7"}
    found: dict[str, str] = {}
    for one in NODE["env"]:
        source = one.get("valueFrom", {})
        if "secretKeyRef" in source:
            assert source["secretKeyRef"]["name"] == "streamsvc"
            value = made[source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            value = fields[source["fieldRef"]["fieldPath"]]
        else:  # Kubernetes puts in what was named before, and leaves the rest as it stands
            value = re.sub(r"\$\((\w+)\)", lambda name: found.get(name[1], name[0]), one["value"])
        found[one["name"]] = value
    return found


def test_the_nodes_are_given_settings_that_the_service_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("STREAMSVC_")]:
        monkeypatch.delenv(name)
    given = environment(tmp_path)
    assert not [value for value in given.values() if "$(" in value]
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STREAMSVC_SERVER__HOST", "0.0.0.0")  # of the image
    settings = config.load()
    named = {name for name in given if name.startswith("STREAMSVC_")}
    known = {
        f"STREAMSVC_{group}__{name}".upper()
        for group, field in config.Settings.model_fields.items()
        for name in getattr(field.annotation, "model_fields", {})
    }
    assert named <= known
    assert settings.ingest.advertise == ("192.0.2.7",)
    assert settings.server.public_url == f"https://{DOMAIN}"
    assert settings.cluster.node == "streamsvc-1"
    assert settings.cluster.advertise == f"https://{DOMAIN}/node/streamsvc-1"
    service = of("StatefulSet")["spec"]["serviceName"]
    assert settings.cluster.reach == f"http://streamsvc-1.{service}:{NODE['ports'][0]['containerPort']}"
    assert settings.cluster.url is not None
    assert settings.cluster.url.get_secret_value() == f"redis://:{'p' * 48}@streamsvc-redis:6379/0"
    assert POD["spec"]["enableServiceLinks"] is False, "a Service named streamsvc would set STREAMSVC_PORT"


def test_the_secrets_are_those_of_the_example() -> None:
    told = set(re.findall(r"^(\w+)=$", (FOLDER / "secrets.env.example").read_text(), re.MULTILINE))
    assert told == set(
        re.findall(r"secretKeyRef: \{name: streamsvc, key: (\w+)\}", _text("node.yaml", "redis.yaml"))
    )


def _text(*names: str) -> str:
    return "".join((FOLDER / name).read_text() for name in names)


def test_media_reach_the_machine_under_the_ports_that_candidates_name() -> None:
    value = next(one["value"] for one in NODE["env"] if one["name"] == "STREAMSVC_INGEST__UDP_PORTS")
    media = [port for port in NODE["ports"] if port.get("protocol") == "UDP"]
    assert [port["containerPort"] for port in media] == list(port_range(value))
    assert all(port["hostPort"] == port["containerPort"] for port in media)
    assert len(media) >= 2 * config.Limits().sessions
    assert "hostPort" not in next(port for port in NODE["ports"] if port.get("name") == "http")


@pytest.mark.parametrize("name", ["streamsvc", "streamsvc-redis"])
def test_pods_are_not_root_have_no_rights_and_write_to_their_volumes_alone(name: str) -> None:
    spec = of("StatefulSet", name)["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] >= 10000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


def test_a_node_has_the_image_s_user_and_folders() -> None:
    image = (FOLDER.parent / "Dockerfile").read_text()
    user = POD["spec"]["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}" in image
    mounted = {mount["mountPath"] for mount in NODE["volumeMounts"]}
    assert mounted == {*re.findall(r"^VOLUME (\S+)$", image, re.MULTILINE), "/tmp"}
    assert f"EXPOSE {NODE['ports'][0]['containerPort']}/tcp" in image


def test_a_node_is_asked_where_it_answers_and_has_time_to_drain() -> None:
    source = (FOLDER.parents[1] / "streamsvc" / "service" / "app.py").read_text()
    for kind, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        assert NODE[f"{kind}Probe"]["httpGet"] == {"path": path, "port": "http"}
        assert f'"{path}"' in source
    seconds = next(one["value"] for one in NODE["env"] if one["name"] == "STREAMSVC_SERVER__DRAIN_SECONDS")
    (_, sleep) = NODE["lifecycle"]["preStop"]["exec"]["command"]
    assert POD["spec"]["terminationGracePeriodSeconds"] >= float(seconds) + float(sleep) + 30


def test_each_service_leads_to_pods_and_to_a_port_that_they_have() -> None:
    pods = [of("StatefulSet", name)["spec"]["template"] for name in ("streamsvc", "streamsvc-redis")]
    for service in [one for _, one in ALL if one["kind"] == "Service"]:
        selector = dict(service["spec"]["selector"])
        one = selector.pop("statefulset.kubernetes.io/pod-name", None)
        pod = (
            pods[0]
            if one
            else next(pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items())
        )
        named = {port["name"] for port in pod["spec"]["containers"][0]["ports"] if "name" in port}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named
    assert of("StatefulSet")["spec"]["serviceName"] == "streamsvc-nodes"
    assert of("Service", "streamsvc-nodes")["spec"]["clusterIP"] == "None"
    monitor = of("ServiceMonitor")["spec"]
    assert [one["metadata"]["name"] for _, one in ALL if one["kind"] == "Service"
            and monitor["selector"]["matchLabels"].items() <= one["metadata"].get("labels", {}).items()] == [
        "streamsvc-nodes"
    ]  # fmt: skip
    assert of("Service", "streamsvc-nodes")["metadata"]["labels"][monitor["jobLabel"]] == "streamsvc", (
        "of alerts.yml"
    )


def test_each_node_that_may_be_has_a_path_that_leads_to_it_alone() -> None:
    scaler = of("HorizontalPodAutoscaler")["spec"]
    assert of("StatefulSet")["spec"]["replicas"] == scaler["minReplicas"]
    nodes = [f"streamsvc-{number}" for number in range(scaler["maxReplicas"])]
    found: dict[str, dict[str, str]] = {}
    for name in ("streamsvc", "streamsvc-nodes"):
        spec = of("Ingress", name)["spec"]
        (rule,) = spec["rules"]
        assert (rule["host"], spec["tls"][0]["hosts"]) == (DOMAIN, [DOMAIN])
        found[name] = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert found["streamsvc"] == {"/": "streamsvc"}
    assert list(found["streamsvc-nodes"].values()) == nodes
    rewrite = of("Ingress", "streamsvc-nodes")["metadata"]["annotations"][
        "nginx.ingress.kubernetes.io/rewrite-target"
    ]
    advertised = next(one["value"] for one in NODE["env"] if one["name"] == "STREAMSVC_CLUSTER__ADVERTISE")
    for pattern, name in found["streamsvc-nodes"].items():
        path = advertised.removeprefix("https://$(DOMAIN)").replace("$(POD_NAME)", name)
        asked = re.fullmatch(pattern, f"{path}/whip/talk")
        assert asked is not None
        assert asked.expand(rewrite.replace("$", "\\")) == "/whip/talk"
        assert of("Service", name)["spec"]["selector"] == {"statefulset.kubernetes.io/pod-name": name}


def test_nodes_are_scaled_by_gauges_that_the_service_exports_and_the_adapter_passes_on() -> None:
    gauges = {metric.name for metric in metrics.REGISTRY.collect() if metric.type == "gauge"}
    named = {metric["pods"]["metric"]["name"] for metric in of("HorizontalPodAutoscaler")["spec"]["metrics"]}
    assert named <= gauges
    (rule,) = read("prometheus-adapter.values.yaml")[0]["rules"]["custom"]
    (expression,) = re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    assert {name for name in gauges if re.fullmatch(expression, name)} == named
    target = float(of("HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["target"]["averageValue"])
    assert target < config.Limits().sessions, "a node that is full is late to be helped"
    assert of("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "streamsvc"
    budget = of("PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"] == POD["metadata"]["labels"]


def redis_settings() -> Iterator[tuple[str, str]]:
    for line in of("ConfigMap", "streamsvc-redis")["data"]["redis.conf"].splitlines():
        name, _, value = line.partition(" ")
        yield name, value


def test_redis_forgets_nothing_and_asks_for_its_password() -> None:
    told = dict(redis_settings())
    assert (told["appendonly"], told["maxmemory-policy"]) == ("yes", "noeviction")
    (container,) = of("StatefulSet", "streamsvc-redis")["spec"]["template"]["spec"]["containers"]
    assert '--requirepass "$REDIS_PASSWORD"' in container["command"][-1]
    policy = of("NetworkPolicy", "streamsvc-redis")["spec"]
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": POD["metadata"]["labels"]}}]


# --- models on Ray ---


RAY_SERVICE, RAY_POLICY = read("ray/rayservice.yaml")
RAY_NODE = read("ray/node.yaml")[0]["spec"]["template"]["spec"]


def ray_pods() -> list[Resource]:
    """The specs of the pods of the Ray cluster."""
    cluster = RAY_SERVICE["spec"]["rayClusterConfig"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_ray_serves_the_applications_of_its_own_file() -> None:
    told = yaml.load(RAY_SERVICE["spec"]["serveConfigV2"], yaml.CSafeLoader)
    assert {one["args"]["worker"] for one in told["applications"]} == {"hear", "see", "think"}
    file = FOLDER.parent / "ray" / "serve.yaml"
    if not file.exists():
        pytest.skip("deploy/ray/serve.yaml is not there")
    own = yaml.load(file.read_text(), yaml.CSafeLoader)
    del own["proxy_location"]
    assert told == own


def test_pods_of_ray_are_confined_and_have_what_the_image_writes_to() -> None:
    patched = {one["name"]: one for one in RAY_NODE["containers"]}
    confined = NODE["securityContext"]
    for pod in ray_pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["enableServiceLinks"] is False
        for container in (*spec["initContainers"], *spec["containers"]):
            assert container["securityContext"] == confined
            mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert {"/var/lib/streamsvc", "/tmp"} <= mounted
            assert {mount["name"] for mount in container["volumeMounts"]} <= {
                one["name"] for one in spec["volumes"]
            }
        assert pod["metadata"]["labels"] == RAY_POLICY["spec"]["podSelector"]["matchLabels"]
        (container,) = spec["containers"]
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    assert patched["ray"]["securityContext"] == confined
    assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in patched["ray"]["env"]


def test_a_node_finds_the_ray_cluster_and_has_no_model_of_it() -> None:
    patched = {one["name"]: one for one in RAY_NODE["containers"]}
    head = f"{RAY_SERVICE['metadata']['name']}-head-svc:6379"
    assert f"--address={head}" in patched["ray"]["command"]
    assert "--num-cpus=0" in patched["ray"]["command"]
    folders = [
        {mount["mountPath"] for mount in container["volumeMounts"]}
        for container in (NODE, *RAY_NODE["containers"])
    ]
    assert {"/tmp", "/dev/shm"} <= (folders[0] | folders[1]) & folders[2], "both reach Ray's files"
    assert patched["streamsvc"]["env"] == [
        {"name": "STREAMSVC_WORKERS__TRANSPORT", "value": "ray"},
        {"name": "STREAMSVC_WORKERS__ADDRESS", "value": "auto"},
    ]


def test_kubernetes_takes_the_pods_of_ray() -> None:
    head = {"apiVersion": "v1", "kind": "Pod"}
    kubernetes_validate.validate(RAY_POLICY, "1.30", strict=True)
    for pod in ray_pods():
        kubernetes_validate.validate(head | pod, "1.30", strict=True)
    both = [one | {"image": one.get("image", "streamsvc")} for one in RAY_NODE["containers"]]
    kubernetes_validate.validate(head | {"spec": RAY_NODE | {"containers": both}}, "1.30", strict=True)


def test_the_kustomization_for_ray_has_the_same_image_and_place() -> None:
    made = read("ray/kustomization.yaml")[0]
    assert (made["images"], made["namespace"]) == (KUSTOMIZATION["images"], KUSTOMIZATION["namespace"])
    assert made["resources"] == ["..", "rayservice.yaml"]
    assert made["patches"] == [{"path": "node.yaml"}]
