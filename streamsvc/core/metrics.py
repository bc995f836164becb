"""Prometheus metrics: one process-wide registry, rendered by `/metrics`.

Base units, no session label. The names are part of the interface: add, never rename.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

REGISTRY = CollectorRegistry()
AGE_BUCKETS = (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)  # seconds

sessions_active = Gauge("streamsvc_sessions_active", "Sessions that are live.", registry=REGISTRY)
sessions = Counter("streamsvc_sessions", "Sessions that ended, by result.", ["result"], registry=REGISTRY)
sessions_rejected = Counter(
    "streamsvc_sessions_rejected", "Sessions not admitted, by reason.", ["reason"], registry=REGISTRY
)
connections_refused = Counter(
    "streamsvc_connections_refused",
    "Connections closed, by the limit that they were over.",
    ["limit"],
    registry=REGISTRY,
)
socket_waits = Counter(
    "streamsvc_socket_waits",
    "Times that a WebSocket was not read for a while because it sent too many frames.",
    registry=REGISTRY,
)
stage_latency = Histogram(
    "streamsvc_stage_latency_seconds",
    "Parts of the ages of events, by stage.",
    ["stage"],
    buckets=AGE_BUCKETS,
    registry=REGISTRY,
)
caption_age = Histogram(
    "streamsvc_caption_age_seconds",
    "Age of published units, by kind.",
    ["kind"],
    buckets=AGE_BUCKETS,
    registry=REGISTRY,
)
answer_first_delta = Histogram(
    "streamsvc_answer_first_delta_seconds",
    "Time from a question to the first delta of its answer.",
    buckets=AGE_BUCKETS,
    registry=REGISTRY,
)
deadline_missed = Counter(
    "streamsvc_deadline_missed", "Work that was late or not started.", ["stage", "action"], registry=REGISTRY
)
frames = Counter("streamsvc_frames", "Encoded frames, by outcome.", ["outcome"], registry=REGISTRY)
queue_depth = Gauge("streamsvc_queue_depth", "Queued items.", ["queue"], registry=REGISTRY)
asr_backlog = Gauge(
    "streamsvc_asr_backlog_seconds", "Audio queued for recognition, all sessions.", registry=REGISTRY
)
audio_processed = Counter("streamsvc_audio_processed_seconds", "Audio decoded.", registry=REGISTRY)
caption_gap = Counter(
    "streamsvc_caption_gap_seconds", "Audio that will never be captioned.", registry=REGISTRY
)
speech = Counter(
    "streamsvc_speech_seconds",
    "Detected speech by outcome: captioned, or missing without a word; and gap: audio told as lost.",
    ["outcome"],
    registry=REGISTRY,
)
subscribers = Gauge("streamsvc_subscribers", "Event subscribers.", registry=REGISTRY)
events_dropped = Counter(
    "streamsvc_events_dropped", "Events not delivered to a slow subscriber.", ["type"], registry=REGISTRY
)
store_failures = Counter(
    "streamsvc_store_failures", "Writes of events and thumbnails that failed.", registry=REGISTRY
)
events_unwritten = Counter(
    "streamsvc_events_unwritten", "Durable events that were never written.", registry=REGISTRY
)
log_lines_lost = Counter(
    "streamsvc_log_lines_lost",
    "Log lines that stderr did not take: closed, or its disk full.",
    registry=REGISTRY,
)
recordings_stopped = Counter(
    "streamsvc_recordings_stopped",
    "Recordings that ended before their session: queue, limit, disk or format.",
    ["reason"],
    registry=REGISTRY,
)
ice_failures = Counter(
    "streamsvc_ice_failures", "WebRTC connections that failed, by phase.", ["phase"], registry=REGISTRY
)
ice_server_failures = Counter(
    "streamsvc_ice_server_failures",
    "ICE servers that gave no candidate: name, refused, credentials, silent or failed.",
    ["reason"],
    registry=REGISTRY,
)
rtp_lost = Counter("streamsvc_rtp_packets_lost", "RTP packets lost.", registry=REGISTRY)
batch_size = Histogram(
    "streamsvc_batch_size", "Requests per batch.", ["role"], buckets=(1, 2, 4, 8, 16, 32), registry=REGISTRY
)
looks = Counter(
    "streamsvc_looks",
    "Keyframe results: hit (cached, of this or another session) or miss.",
    ["outcome"],
    registry=REGISTRY,
)
alerts = Counter("streamsvc_alerts", "Watches that fired.", registry=REGISTRY)
alerts_withheld = Counter(
    "streamsvc_alerts_withheld", "Alerts of the rules that the model has denied.", registry=REGISTRY
)
webhooks = Counter(
    "streamsvc_webhooks",
    "Alerts for webhooks: sent, dropped, refused, no_answer or given_up.",
    ["result"],
    registry=REGISTRY,
)
worker_restarts = Counter(
    "streamsvc_worker_restarts", "Workers restarted after they died or hung.", ["role"], registry=REGISTRY
)
srt_lost = Counter(
    "streamsvc_srt_packets_lost",
    "Packets of SRT publishers that came too late, could not be decrypted, or were not taken in time.",
    registry=REGISTRY,
)
door_restarts = Counter(
    "streamsvc_door_restarts",
    "Restarts of the programs behind the RTMP and SRT doors.",
    ["door"],
    registry=REGISTRY,
)
degradation_level = Gauge(
    "streamsvc_degradation_level", "Degradation level: 0 is full fidelity, 7 the lowest.", registry=REGISTRY
)
ready = Gauge("streamsvc_ready", "1 where /readyz says 200, else 0.", registry=REGISTRY)
sessions_stalled = Gauge(
    "streamsvc_sessions_stalled", "Live sessions whose media have stopped coming.", registry=REGISTRY
)
disk_free = Gauge(
    "streamsvc_disk_free_bytes",
    "Free bytes of the disk of a folder, data or models; -1: it cannot be read.",
    ["folder"],
    registry=REGISTRY,
)
stored = Gauge(
    "streamsvc_stored_bytes", "Bytes of ended sessions on disk, after the last sweep.", registry=REGISTRY
)
stored_limit = Gauge(
    "streamsvc_stored_bytes_limit",
    "store.bytes: beyond it the oldest ended sessions are erased before their time.",
    registry=REGISTRY,
)
retention_sweeps = Counter(
    "streamsvc_retention_sweeps",
    "Times that ended sessions were looked through for erasing.",
    registry=REGISTRY,
)
cluster_redis_up = Gauge(
    "streamsvc_cluster_redis_up",
    "1 where the Redis of the cluster answers this node, else 0: failover is off. Without a cluster -1.",
    registry=REGISTRY,
)
cluster_redis_up.set(-1)  # else every lone node would say that its Redis is away
cluster_nodes = Gauge(
    "streamsvc_cluster_nodes", "Nodes of the cluster that live, as this one sees them.", registry=REGISTRY
)
cluster_events_waiting = Gauge(
    "streamsvc_cluster_events_waiting",
    "Durable events stored at this node that wait to be copied to Redis.",
    registry=REGISTRY,
)
cluster_dropped = Counter(
    "streamsvc_cluster_dropped",
    "What was not passed on to other nodes, by kind: thumbnail or ephemeral (events).",
    ["kind"],
    registry=REGISTRY,
)
cluster_fenced = Counter(
    "streamsvc_cluster_fenced",
    "Sessions that this node has ended because another node owns them.",
    registry=REGISTRY,
)
cluster_takeovers = Counter(
    "streamsvc_cluster_takeovers",
    "Sessions of other nodes that went on at this one, by epoch: kept or new (events may be missing).",
    ["epoch"],
    registry=REGISTRY,
)
cluster_followed = Gauge(
    "streamsvc_cluster_sessions_followed",
    "Sessions of other nodes that are read at this one.",
    registry=REGISTRY,
)
cluster_redirects = Counter(
    "streamsvc_cluster_redirects",
    "Publishers that were sent to another node, by 307 with a ticket.",
    registry=REGISTRY,
)
spans = Counter(
    "streamsvc_spans",
    "Spans of traces: exported; or dropped: queue (full), refused (by the collector, or in time) or ended.",
    ["result"],
    registry=REGISTRY,
)
build_info = Info("streamsvc_build", "Version and engines.", registry=REGISTRY)
# Counters begin at 0 for each label value that is known. Prometheus sees no increase where a series begins
# with its first event, so that an alert of that event would not fire
# (prometheus.io/docs/practices/instrumentation, "Avoid missing metrics").
KNOWN_LABELS: Mapping[Counter, Sequence[str]] = {
    sessions_rejected: ("capacity", "budget", "unpublished", "token_share", "draining"),
    connections_refused: ("total", "address", "token", "header_seconds", "slow_reader"),
    frames: ("dropped_audio", "dropped_video", "dropped_chunks"),
    speech: ("captioned", "missing", "gap"),
    recordings_stopped: ("queue", "limit", "disk", "format"),
    ice_failures: ("handshake", "failed"),
    ice_server_failures: ("name", "refused", "credentials", "silent", "failed"),
    webhooks: ("sent", "dropped", "refused", "no_answer", "given_up"),
    cluster_takeovers: ("kept", "new"),
    cluster_dropped: ("thumbnail", "ephemeral"),
    spans: ("exported", "queue", "refused", "ended"),
}
for _counter, _values in KNOWN_LABELS.items():
    for _value in _values:
        _counter.labels(_value)
# Memory, processor time, start time, open descriptors and their limit.
ProcessCollector(namespace="streamsvc", registry=REGISTRY)


class Share:
    """One session's share of a gauge: sessions set their own values, the gauge holds the sum."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._value = 0.0

    def set(self, value: float) -> None:
        """Replace this session's value."""
        self._gauge.inc(value - self._value)
        self._value = value


def render() -> bytes:
    """All metrics in the Prometheus text format."""
    return generate_latest(REGISTRY)


def count_dropped(queue: str) -> None:
    """Count an item that a full queue dropped, as an outcome of streamsvc_frames_total."""
    frames.labels(f"dropped_{queue}").inc()
