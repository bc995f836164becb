"""Calls to the hear role for one track; failures open an outage instead of raising."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamsvc.core import clock
from streamsvc.core.errors import CapacityError, DeadlineMissed, WorkerError
from streamsvc.core.roles import Payload, Role
from streamsvc.speech.level import amplify

VAD_DEADLINE = 2.0  # seconds
DECODE_DEADLINE = 4.0  # seconds
RETRY_FIRST = 0.25  # seconds between tries; doubles at each try
RETRY_MAX = 2.0


class Recognizer:
    """The hear role of one track. At most one request is in flight.

    Args:
        hear: the worker role of engines/asr.py.
        session: id of the session, for affinity.

    Attributes:
        outage: reason of the present outage, "worker_restart" or "overload"; "" if the last call succeeded.
        last_outage: the same, kept after the outage.
        since: monotonic seconds at which the outage began.
        until: monotonic seconds of the last failure, or of the call that ended the outage.
        abandoned: audio of the present outage has been given up.
    """

    def __init__(self, hear: Role, session: str) -> None:
        self._hear = hear
        self._session = session
        self._delay = RETRY_FIRST
        # From one VAD request to the next:
        self._vad_state: NDArray[np.float32] | None = None  # opaque
        self._level = 0.0  # of the gain control
        self.outage = ""
        self.last_outage = ""
        self.since = 0.0
        self.until = 0.0
        self.abandoned = False

    async def vad(self, samples: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Speech probabilities of whole VAD windows, or None if the call failed."""
        amplified, level = amplify(samples, self._level)
        payload: Payload = {"samples": amplified}
        if self._vad_state is not None:
            payload["state"] = self._vad_state
        result = await self._call("vad", payload, VAD_DEADLINE)
        if result is None:
            return None
        self._level = level
        self._vad_state = result["state"]
        probabilities: NDArray[np.float32] = result["probability"]
        return probabilities

    async def detect_language(self, samples: NDArray[np.float32]) -> tuple[str, float] | None:
        """Language code and its probability, or None if the call failed."""
        result = await self._call("detect_language", {"samples": samples}, DECODE_DEADLINE)
        return None if result is None else (str(result["language"]), float(result["probability"]))

    async def transcribe(self, payload: Payload) -> Payload | None:
        """Result of the op "transcribe" (engines/asr.py), or None if the call failed."""
        return await self._call("transcribe", payload, DECODE_DEADLINE)

    async def wait(self) -> None:
        """Wait before the next try; exponential backoff."""
        await clock.sleep(self._delay)
        self._delay = min(2 * self._delay, RETRY_MAX)

    def abandon(self) -> None:
        """Audio of the present outage has been given up; holds until the outage ends."""
        self.abandoned = True

    def gap_reason(self, arrived: float, default: str) -> str:
        """Why audio that arrived at `arrived` (monotonic) is missing: an outage, or `default`."""
        return self.last_outage if self.last_outage and arrived <= self.until else default

    async def _call(self, op: str, payload: dict[str, Any], deadline: float) -> Payload | None:
        try:
            result = await self._hear.call(op, payload, deadline_in_s=deadline, affinity=self._session)
        except (WorkerError, DeadlineMissed, CapacityError) as error:
            self.until = clock.now()
            if not self.outage:
                self.since = self.until
            self.outage = "worker_restart" if isinstance(error, WorkerError) else self.outage or "overload"
            self.last_outage = self.outage
            return None
        if self.outage:
            self.outage = ""
            self.until = clock.now()
            self.abandoned = False
            self._delay = RETRY_FIRST
        return result
