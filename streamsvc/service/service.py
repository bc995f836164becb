"""The running service: its workers, its sessions, and load control.

One object in one process. `app` puts HTTP in front of it; the command line uses it without.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import psutil
import structlog

import streamsvc
from streamsvc.answers import language, router, watch_router
from streamsvc.cluster.node import ClusterNode
from streamsvc.core import clock, metrics
from streamsvc.core.config import Settings
from streamsvc.core.context import Roles
from streamsvc.core.errors import ModelMissing, StreamsvcError
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.events.store import FolderLock
from streamsvc.ingest import source_process
from streamsvc.ingest.aiortc_hooks import check_hooks
from streamsvc.service import cluster_membership, retention
from streamsvc.service.auth import Auth
from streamsvc.service.cluster_part import ClusterPart
from streamsvc.service.engine_table import NICENESS, ThinkModel, engines_of, think_model, wrong_models
from streamsvc.service.load_controller import LoadController, levels_of
from streamsvc.service.media_input import State
from streamsvc.service.publications import Publications
from streamsvc.service.pushes import Pushes
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.revocations import FILE, Revocations
from streamsvc.service.session import Session, SharedResources
from streamsvc.service.sessions import Sessions
from streamsvc.service.started_by import StartedBy
from streamsvc.service.stream_keys import StreamPublishers
from streamsvc.vision import keyframes
from streamsvc.workers.look_cache import LookCache
from streamsvc.workers.supervisor import Worker

log = structlog.get_logger()
DECODING_THREADS = 2  # of all sessions together
FLUSH_SECONDS = 5.0  # for ending sessions to publish what came in
_SPARE_MEMORY = 6 << 30  # bytes available at start, for a spare process of 330 MB
_PREPARE_TRIES = 3  # after that each question does a part of it


class Service:
    """The running service: `async with Service(settings) as service`.

    Args:
        settings: validated.
        at_once: workers that start now; the others start at their first call.
        keeps: has the data folder for itself, with the sessions of earlier runs; False: stores no session.
        think: of `think_model`; None: it is found here, which may hash a file.

    Attributes:
        cluster: this node in its cluster; None: it is alone. part: what it does with sessions of other nodes.
        wrong_models: see `engine_table.wrong_models`; None: not yet checked.

    Raises:
        ConfigError: another process has the data folder; the cluster cannot be joined.
    """

    def __init__(
        self,
        settings: Settings,
        at_once: Sequence[str] = ("hear", "see"),
        *,
        keeps: bool = True,
        think: ThinkModel | None = None,
    ) -> None:
        self.settings = settings
        self.auth = Auth(settings.server, Revocations(settings.data_dir / FILE if keeps else None))
        self._at_once = tuple(at_once)
        self._keeps = keeps
        self._folder: FolderLock | None = None
        self._media = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="media")
        self._tasks = BackgroundTasks()
        think = think or think_model(settings)
        self.cluster: ClusterNode | None = None
        self.part: ClusterPart | None = None
        self.wrong_models: dict[str, str] | None = None
        self._checking: asyncio.Task[None] | None = None
        self.workers = _workers(settings, think, self._at_once)
        self.roles = _roles(self.workers, think)
        self.load_controller = LoadController(
            self._load_sources,
            lambda name: self.workers[name].ready,
            settings.budget,
            levels_of(settings),
            lambda: [one for one in self.sessions.by_id.values() if one.state is State.ENDED],
            lambda: sum(worker.cost for worker in self.workers.values()) + source_process.cost(),
        )
        sample = settings.sample
        shared = SharedResources(
            settings,
            self.roles,
            self._media,
            functools.partial(self.auth.sign, seconds=settings.store.retention + 3600),
            keyframes.TokenBucket(
                sample.budget_all, sample.burst, lambda: metrics.count_dropped("budget_all")
            ),
        )
        self.sessions = Sessions(shared, self._tasks, self.load_controller)
        self.publications = Publications(self.sessions, self._tasks)
        self.pushes = Pushes(self.sessions, self._tasks)
        self.started = StartedBy(self.auth.over)
        self.stream_publishers = StreamPublishers(
            self.auth, self.publications, self.started, self._tasks, settings.limits
        )
        self.updates = RateLimiter(settings.limits.updates_per_minute)  # of a session, with a token
        metrics.build_info.info({"version": streamsvc.__version__, "engine": settings.models.profile})

    async def __aenter__(self) -> Self:
        check_hooks()  # an incompatible aiortc is reported at start, not at the first publisher
        if self._keeps:
            self._folder = FolderLock(self.settings.data_dir)
            await self.sessions.stored.find_all()
            await self._join_cluster()
            self._tasks.spawn(retention.run(self.sessions))  # erases in the data folder
        if self.cluster is not None:
            self.part = ClusterPart(self.cluster, self.sessions, self.auth.revoked, self._tasks)
            self.publications.join(self.part.publishing)
            await self.part.start()
        if self._at_once:
            self._checking = self._tasks.spawn(self._check_models())
        for worker in self.workers.values():
            self._tasks.spawn(worker.run())
        self._tasks.spawn(self.started.run())
        self._tasks.spawn(self.load_controller.run(self._silent_workers))
        if "see" in self._at_once:
            self._tasks.spawn(self._prepare_router())
        return self

    async def _join_cluster(self) -> None:
        """Be a node of the cluster that the settings name. Raises ConfigError: it cannot be."""
        if self.settings.cluster.url is None:
            return
        try:
            node = cluster_membership.node_of(self.settings, self.sessions, self.load_controller, self._tasks)
            await node.start()
        except BaseException:
            if self._folder is not None:
                self._folder.close()
            raise
        self.cluster = node

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()
        await self._tasks.cancel()
        if self.part is not None:
            await self.part.close()
        if self.cluster is not None:
            await self.cluster.close()
        await self.sessions.close_stores()
        if self._folder is not None:
            self._folder.close()
        self._media.shutdown(wait=True)

    async def ready(self) -> None:
        """Wait until the models that every session needs are checked and loaded.

        Raises:
            StreamsvcError: they are broken or cannot be loaded (ModelMissing, WorkerError).
        """
        if self._checking is not None:
            await asyncio.shield(self._checking)
        if self.wrong_models:
            raise ModelMissing(" ".join(self.wrong_models.values()))
        await asyncio.gather(*(self.workers[name].wait_ready() for name in self._at_once))

    async def _check_models(self) -> None:
        """Check the files of all models, on a thread, also of those that no worker has loaded yet."""
        workers = (*self._at_once, "think", "sight") if self._keeps else self._at_once
        self.wrong_models = await asyncio.to_thread(wrong_models, self.settings, workers)
        for reason in self.wrong_models.values():
            log.error("a model is not whole", reason=reason)

    async def _prepare_router(self) -> None:
        """Have what questions are routed by before the first one is asked."""
        with contextlib.suppress(StreamsvcError):  # the worker does not start, and says so
            await asyncio.to_thread(language.prepare)
            await self.workers["see"].wait_ready()
            folder, embed = self.settings.models.dir, self.roles.embed
            for prepare in (router.prepare, watch_router.prepare):
                for _ in range(_PREPARE_TRIES):
                    if embed is None or await prepare(embed, folder=folder):
                        break

    def use_roles(self, roles: Roles) -> None:
        """Use other models than the workers' in new sessions, such as engines in this process."""
        self.roles = roles
        self.sessions.shared = replace(self.sessions.shared, roles=roles)

    async def drain(
        self, reason: str = "shutdown", seconds: float = FLUSH_SECONDS, patience: float = 0.0
    ) -> None:
        """Admit no session any more, tell all subscribers, and end the live sessions.

        Args:
            reason: told to subscribers.
            seconds: that the sessions have to publish what came in, at most.
            patience: seconds before, in which they go on, and may end by themselves.
        """
        told = self.sessions.draining
        self.sessions.draining = True
        live = self.sessions.live
        for session in live:
            if not told:  # once, also where the patience is cut short
                left = {"reason": reason, "time_left_ms": (patience + seconds) * 1000}
                session.log.emit("session.going_away", left)
        await _over(live, patience)
        for session in live:
            session.end(reason)
        await _over(live, seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.pushes.running:
                    await clock.sleep(0.05)

    def _silent_workers(self) -> list[str]:
        lost = ["redis"] if self.cluster is not None and not self.cluster.up else []
        return [name for name, worker in self.workers.items() if worker.silent] + lost

    def _load_sources(self) -> list[tuple[Session, float]]:
        """Live sessions that cannot wait for their media, each with the monotonic second of its start."""
        return [
            (session, session.clock.zero)
            for session in self.sessions.by_id.values()
            if session.state is State.LIVE and not session.options.lossless
        ]


async def _over(sessions: Sequence[Session], seconds: float) -> None:
    """Wait until all sessions are over, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for session in sessions:
                await session.over.wait()


def _workers(settings: Settings, think: ThinkModel, at_once: Sequence[str]) -> dict[str, Worker]:
    """The workers of the settings' profile, by name."""
    options: dict[str, Any] = {
        "models": str(settings.models.dir / "models"),
        "hear": settings.hear.model_dump(),
        "see": settings.see.model_dump(),
        "think": settings.think.model_dump() | {"model": think.name, "remote": settings.remote.options()},
        "embed": settings.embed.model_dump(),
        "sight": settings.think.model_dump(),
    }
    return {
        name: Worker(
            name,
            engines,
            {**options, **options[name]},
            nice=NICENESS[name],
            lazy=name not in at_once,
            spare=name == "hear" and _keeps_spare(settings.hear.spare),
        )
        for name, engines in engines_of(settings).items()
    }


def _keeps_spare(wanted: bool | None) -> bool:
    return psutil.virtual_memory().available > _SPARE_MEMORY if wanted is None else wanted


def _roles(workers: dict[str, Worker], think: ThinkModel) -> Roles:
    """The roles that the workers serve."""
    by_name = {role: worker.role(role) for worker in workers.values() for role in worker.roles}
    return Roles(
        hear=by_name["hear"],
        see=LookCache(by_name["see"]),
        think=by_name["think"],
        embed=by_name["embed"],
        vlm=by_name["think"] if think.sees else by_name.get("sight"),
        reads=think.reads,
    )
