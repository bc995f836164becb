"""The stages of `load_tests.alerts`: which fault fires which alert."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from load_tests import alert_faults
from load_tests.alert_stage import Stage

Cause = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """One fault. alerts: that it fires. fault: in words. cause: makes it and keeps it up until cancelled."""

    alerts: Sequence[str]
    fault: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Plan:
    """A stage: begin starts what is well; steps are its faults, one after the other on the same servers."""

    name: str
    begin: Cause
    steps: Sequence[Step]


PLANS: Sequence[Plan] = (
    Plan(
        "publishers",
        alert_faults.publishers,
        (
            Step(
                ["StreamsvcRecordingsStopped"],
                "a recording over store.record_bytes",
                alert_faults.recording_too_long,
            ),
            Step(["StreamsvcWebhooksFail"], "a webhook's server answers 500", alert_faults.webhook_fails),
            Step(["StreamsvcSpansDropped"], "the collector of traces is gone", alert_faults.collector_dies),
            Step(["StreamsvcConnectionsRefused"], "connections that send nothing", alert_faults.says_nothing),
            Step(["StreamsvcConnectionsFail"], "offers without ICE after them", alert_faults.offers_alone),
            Step(["StreamsvcStalled"], "a publisher loses its network", alert_faults.publisher_vanishes),
            Step(
                ["StreamsvcMediaDropped"],
                "serve stands still for 6 s of 8.5",
                alert_faults.serve_stands_still,
            ),
            Step(
                ["StreamsvcEventsDropped"],
                "subscribers that read 1 kB a second",
                alert_faults.slow_subscribers,
            ),
            Step(["StreamsvcRefusing"], "more publishers than limits.sessions", alert_faults.one_too_many),
        ),
    ),
    Plan(
        "relays",
        alert_faults.relays,
        (
            Step(["StreamsvcIceServerFails"], "all TURN servers are dead", alert_faults.dead_relays),
            Step(["StreamsvcDown"], "kill -9 of serve", alert_faults.kill),
        ),
    ),
    Plan(
        "speech",
        alert_faults.speech,
        (
            Step(
                ["StreamsvcSpeechMissing"],
                "a whistle, loud and no speech",
                alert_faults.sound_without_words,
            ),
            Step(
                ["StreamsvcCaptionGaps"],
                "a network that is away for 1 s of 3",
                alert_faults.broken_network,
            ),
            Step(
                ["StreamsvcLate", "StreamsvcDegraded", "StreamsvcNoQuestions"],
                "the worker hear stands still for 1.2 s of 1.4",
                alert_faults.hear_has_no_processor,
            ),
            Step(
                ["StreamsvcWorkerRestarts", "StreamsvcNotReady", "StreamsvcBacklog"],
                "the worker hear is killed whenever it serves",
                alert_faults.hear_is_killed,
            ),
        ),
    ),
    Plan(
        "disk",
        alert_faults.big_disk,
        (
            Step(["StreamsvcDiskLow"], "other files take all but 1.98 GB", alert_faults.disk_gets_low),
            Step(
                ["StreamsvcRetentionCut"],
                "more ended sessions than store.bytes",
                alert_faults.many_sessions_end,
            ),
        ),
    ),
    Plan(
        "full",
        alert_faults.small_disk,
        (
            Step(["StreamsvcStoreFails", "StreamsvcLogLost"], "the disk is full", alert_faults.disk_is_full),
            Step(
                ["StreamsvcDiskUnreadable", "StreamsvcRetentionStopped"],
                "the folder above the data is locked (chmod 000)",
                alert_faults.folder_is_locked,
            ),
        ),
    ),
    Plan(
        "process",
        alert_faults.process,
        (
            Step(
                ["StreamsvcDescriptors"],
                f"{alert_faults.DESCRIPTORS} descriptors for many",
                alert_faults.descriptors_run_out,
            ),
            Step(["StreamsvcRestarts"], "kill -9 of serve, four times", alert_faults.restarts),
        ),
    ),
    Plan(
        "cluster",
        alert_faults.cluster,
        (
            Step(["StreamsvcNodeLost"], "kill -9 of a node", alert_faults.node_dies),
            Step(
                ["StreamsvcRedisDown", "StreamsvcEventsNotShared"],
                "kill -9 of Redis",
                alert_faults.redis_dies,
            ),
            Step(
                ["StreamsvcFenced", "StreamsvcTakeoverWithLoss"],
                "a node stands still, and its publisher goes to the other",
                alert_faults.node_stands_still,
            ),
        ),
    ),
)
