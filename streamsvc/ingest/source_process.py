"""The process of a source, from our side: started, asked to demux, and ended.

It parses what a stranger wrote, confined by `sandbox`. What it reads comes from here, and it answers with
packets that stay opaque here, samples, and pictures (`source_decoders`). It ends when its source is closed
and no decoder of it is open.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

import psutil
import structlog

from streamsvc.core import clock
from streamsvc.core.degradation import WorkRate
from streamsvc.core.errors import ConfigError, SourceError
from streamsvc.core.types import Kind
from streamsvc.ingest import sandbox
from streamsvc.ingest.source_channel import Broken, Channel, Fields, Late, raised_of
from streamsvc.ingest.source_inputs import ServedInputs

log = structlog.get_logger()
T = TypeVar("T")
START_SECONDS = 30.0  # from its start to its first message
COST_INTERVAL = 2.0  # between measurements of its CPU time
ASKS = 1 << 20  # requests for bytes before one answer; more: it never ends (security limit)
_END_SECONDS = 0.5  # from the end of its connections to its own
STEP_SECONDS = 20.0  # of its own work in one step; longer: it hangs
KINDS: tuple[Kind, Kind] = ("audio", "video")
_KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "LANG",
)  # of our environment: no key, no token
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def tell_sandbox(mode: str) -> None:
    """Log what will confine the processes of sources. Blocking.

    Args:
        mode: the setting ingest.sandbox.

    Raises:
        ConfigError: it is "require", and the kernel does not allow enough.
    """
    if mode == "off":
        log.warning("sources are read by this process itself", setting="ingest.sandbox")
        return
    layers = sandbox.examine()
    if mode == "require" and not sandbox.enough(layers):
        raise ConfigError(f'ingest.sandbox is "require", but sources would be {sandbox.described(layers)}')
    tell = log.info if sandbox.enough(layers, loopback=True) else log.warning
    tell("sources are read by processes of their own", sandbox=sandbox.described(layers))


_running: weakref.WeakSet[SourceProcess] = weakref.WeakSet()  # for `cost`; who is done leaves by itself


def cost() -> float:
    """CPU seconds a second that the processes of all sources spend; on the loop's thread."""
    now = clock.now()
    return sum(process.cost(now) for process in list(_running))


class SourceProcess:
    """The process of one source. Made on the event loop's thread: it dies with the thread that started it.

    Args:
        name: of the source, for messages.
        require: whether to refuse to read where the kernel does not let it be confined.
        loopback: whether it connects to 127.0.0.1 (see `sandbox.confine`).

    Attributes:
        failure: why it was ended; None: it runs, or was ended because nobody needs it.
    """

    def __init__(self, name: str, *, require: bool = False, loopback: bool = False) -> None:
        self.failure: SourceError | None = None
        self._name = name
        self._require = require
        self._loopback = loopback
        self._listener: socket.socket | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self._holders = 1  # the source itself
        self._ended = False  # nobody holds it any more
        self._threads = ThreadPoolExecutor(len(KINDS), thread_name_prefix="source decoder")
        pairs = [socket.socketpair() for _ in range(3)]
        theirs = [other for _, other in pairs]
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "streamsvc.ingest.source_child",
                    "loopback" if loopback else "none",
                    *(str(other.fileno()) for other in theirs),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={key: os.environ[key] for key in _KEPT if key in os.environ} | _ENVIRONMENT,
                pass_fds=[other.fileno() for other in theirs],
            )
        except OSError as error:
            for ours, _ in pairs:
                ours.close()
            raise SourceError(
                f"no process can be started to read {name} ({error.strerror})", code="source_crashed"
            ) from None
        finally:
            for other in theirs:
                other.close()
        self._spent = WorkRate()
        self._measured_at = -COST_INTERVAL
        _running.add(self)
        self._demuxing, audio, video = (Channel(ours) for ours, _ in pairs)
        self._decoding: dict[Kind, Channel] = {"audio": audio, "video": video}
        self._locks: dict[Kind, threading.Lock] = {kind: threading.Lock() for kind in KINDS}
        self._demux_lock = threading.Lock()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def threads(self) -> Executor | None:
        """See source_decoders.Process: one for each kind."""
        return None if self._ended else self._threads

    def cost(self, now: float) -> float:
        """Its CPU seconds a second at monotonic second `now`; 0 where it has ended."""
        if now - self._measured_at < COST_INTERVAL:
            return self._spent.value
        self._measured_at = now
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            _running.discard(self)
            return 0.0
        self._spent.add(times.user + times.system, now)
        return self._spent.value

    # --- life ---

    def wait_ready(self) -> None:
        """Wait until it has confined itself. Blocking. Raises SourceError."""
        with self._demux_lock, self._watched():
            self._listener = self._demuxing.receive_socket(START_SECONDS)
            hello, _ = self._received(self._demuxing, START_SECONDS)
            told = hello.text("layers").split()
        layers = [name for name in sandbox.LAYERS if name in told]
        if self._require and not sandbox.enough(layers, loopback=self._loopback):
            raise SourceError(
                f"{self._name} is not read: it would be {sandbox.described(layers)} (ingest.sandbox)",
                code="no_sandbox",
            )

    def listener(self) -> socket.socket | None:
        """Where its connections to 127.0.0.1 arrive, once it is ready; to be closed."""
        return None if self._listener is None else self._listener.dup()

    @contextlib.contextmanager
    def _watched(self, *, demuxing: bool = True) -> Iterator[None]:
        """Kill the process where it ends, hangs or breaks the protocol meanwhile; then raise SourceError."""
        try:
            yield
        except Broken as error:
            if demuxing and self._stopped:  # by us: its decoders go on
                raise SourceError(f"{self._name} is closed", code="closed") from None
            raise self._fail(late=isinstance(error, Late)) from None

    def _fail(self, *, late: bool) -> SourceError:
        status = None if late else self._status()
        reason = "ran out of memory" if status == sandbox.NO_MEMORY else "ended unexpectedly"
        reason = "did not answer in time" if late else reason
        with self._lock:
            if self.failure is None:
                self.failure = SourceError(
                    f"{self._name} cannot be read: its process {reason}", code="source_crashed"
                )
                if not self._ended:  # nobody expected its end
                    log.warning("source process failed", reason=reason, pid=self.pid, status=status)
        self._process.kill()
        return self.failure

    def _status(self) -> int | None:
        """Its exit status, or the negative number of the signal that ended it; None: it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_END_SECONDS)
        return None

    def hold(self) -> None:
        """Keep it running until as many `release`s."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """The opposite of `hold`, and of the construction. The last one ends the process."""
        with self._lock:
            self._holders -= 1
            if self._holders or self._ended:
                return
            self._ended = True
        self._process.kill()
        threading.Thread(target=self._reap, name="source end").start()

    def _reap(self) -> None:
        self._process.wait()
        if self._listener is not None:
            self._listener.close()
        for lock, channel in (
            (self._demux_lock, self._demuxing),
            *((self._locks[kind], self._decoding[kind]) for kind in KINDS),
        ):
            channel.wake()
            with lock:  # a call under way ends now
                channel.close()
        self._threads.shutdown()

    # --- asking ---

    def _received(self, channel: Channel, seconds: float) -> tuple[Fields, memoryview]:
        """The next message. Raises Broken: also where it tells of an exception, which is logged."""
        header, body = channel.receive(seconds)
        fields = Fields(header)
        if (raised := raised_of(fields)) is not None:
            log.warning("source process raised", pid=self.pid, **raised)
            raise Broken("raised")
        return fields, body

    def ask(
        self,
        kind: Kind,
        header: Mapping[str, Any],
        parts: Sequence[bytes],
        check: Callable[[Fields, memoryview], T],
    ) -> T:
        """Have something decoded, and return what `check` makes of the answer. Blocking.

        Raises:
            SourceError: the process has failed.
        """
        with self._locks[kind], self._watched(demuxing=False):
            channel = self._decoding[kind]
            channel.send(header, parts)
            return check(*self._received(channel, STEP_SECONDS))

    def demux(
        self,
        header: Mapping[str, Any],
        served: ServedInputs,
        check: Callable[[Fields, memoryview], T],
        waits: float,
        most: float = float("inf"),
    ) -> T:
        """Have something demuxed, and give it what it reads meanwhile. As `ask`.

        `waits`: seconds that libav may wait by itself: for a relay, or for the next version of a playlist.
        `most`: seconds for all of it.
        """
        end = clock.now() + most
        with self._demux_lock, self._watched():
            self._demuxing.send(header)
            for _ in range(ASKS):
                fields, body = self._received(self._demuxing, STEP_SECONDS + waits)
                if not fields.has("ask"):
                    return check(fields, body)
                if clock.now() > end:
                    raise Late("it reads on and on")
                self._demuxing.send(*served.answer(fields))
            raise Late("it reads on and on")

    def stop_demuxing(self) -> None:
        """End a `demux` that waits, from another thread; decoders stay."""
        self._stopped = True
        self._demuxing.wake()
