"""Names, types and labels of the metrics are stable: dashboards depend on them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from streamsvc.core import metrics

# All metrics: name (counters without _total), type, labels.
NAMES = {
    "sessions_active": ("gauge", ()),
    "sessions": ("counter", ("result",)),
    "sessions_rejected": ("counter", ("reason",)),
    "stage_latency_seconds": ("histogram", ("stage",)),
    "caption_age_seconds": ("histogram", ("kind",)),
    "answer_first_delta_seconds": ("histogram", ()),
    "deadline_missed": ("counter", ("stage", "action")),
    "frames": ("counter", ("outcome",)),
    "queue_depth": ("gauge", ("queue",)),
    "asr_backlog_seconds": ("gauge", ()),
    "audio_processed_seconds": ("counter", ()),
    "caption_gap_seconds": ("counter", ()),
    "subscribers": ("gauge", ()),
    "events_dropped": ("counter", ("type",)),
    "store_failures": ("counter", ()),
    "events_unwritten": ("counter", ()),
    "ice_failures": ("counter", ("phase",)),
    "rtp_packets_lost": ("counter", ()),
    "batch_size": ("histogram", ("role",)),
    "worker_restarts": ("counter", ("role",)),
    "door_restarts": ("counter", ("door",)),
    "srt_packets_lost": ("counter", ()),
    "degradation_level": ("gauge", ()),
}


def rendered() -> dict[str, str]:
    return {family.name: family.type for family in text_string_to_metric_families(metrics.render().decode())}


def labels() -> dict[str, tuple[str, ...]]:
    described = [
        metric
        for metric in vars(metrics).values()
        if hasattr(metric, "describe") and hasattr(metric, "_labelnames")
    ]
    return {metric._name: metric._labelnames for metric in described}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_metric_has_the_type_and_the_labels_of_the_interface(name: str) -> None:
    kind, names = NAMES[name]
    assert rendered()[f"streamsvc_{name}"] == kind
    assert labels()[f"streamsvc_{name}"] == names


def test_no_metric_has_a_session_label() -> None:
    assert not any({"session", "session_id", "id"} & set(names) for names in labels().values())


def test_only_our_metrics_are_rendered() -> None:
    assert {name for name in rendered() if not name.startswith("streamsvc_")} == set()


def test_caption_ages_fall_into_the_buckets_of_the_interface() -> None:
    metrics.caption_age.labels("test").observe(0.3)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    edges = {
        sample.labels["le"]: sample.value
        for sample in families["streamsvc_caption_age_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["kind"] == "test"
    }
    assert [float(edge) for edge in edges] == [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, float("inf")]
    assert (edges["0.25"], edges["0.5"]) == (0.0, 1.0)


def test_counters_with_known_labels_begin_at_zero_before_anything_happens() -> None:
    code = "from streamsvc.core import metrics; print(metrics.render().decode())"
    fresh = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    begun = {
        (family.name, value)
        for family in text_string_to_metric_families(fresh.stdout)
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value == 0
        for value in sample.labels.values()
    }
    assert begun == {
        (counter._name, value) for counter, values in metrics.KNOWN_LABELS.items() for value in values
    }
    assert ("streamsvc_recordings_stopped", "limit") in begun


def test_build_info_has_version_and_engine() -> None:
    metrics.build_info.info({"version": "1", "engine": "test"})
    assert 'streamsvc_build_info{engine="test",version="1"} 1.0' in metrics.render().decode()


def test_a_shared_gauge_holds_the_sum_of_its_shares() -> None:
    gauge = Gauge("test", "test", registry=CollectorRegistry())
    one, other = metrics.Share(gauge), metrics.Share(gauge)
    one.set(3)
    other.set(4)
    one.set(1)
    assert gauge._value.get() == 5
    one.set(0)
    other.set(0)
    assert gauge._value.get() == 0
