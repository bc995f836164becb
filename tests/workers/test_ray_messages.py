"""Messages are pickled, and the arrays of their payloads travel beside the pickle, uncopied."""

from __future__ import annotations

import pickle

import numpy as np

from streamsvc.workers.ray_messages import Failure, Items, ReplicaState, Request, Result


def test_an_array_of_a_request_is_not_copied_by_pickling() -> None:
    samples = np.frombuffer(bytes(4 * 80_000), np.float32)  # as the bridge receives it
    buffers: list[pickle.PickleBuffer] = []
    request = Request("hear", "vad", {"samples": samples, "n": 1}, 2.0)
    pickled = pickle.dumps(request, protocol=5, buffer_callback=buffers.append)
    assert len(pickled) < 1000
    assert buffers[0].raw().nbytes == samples.nbytes
    back = pickle.loads(pickled, buffers=buffers)
    assert np.shares_memory(back.payload["samples"], samples)


def test_all_messages_survive_pickling() -> None:
    for message in (
        Failure("CapacityError", "full", 5.0),
        Result({"a": 1}, 3),
        Items(({"n": 1}, {"n": 2}), Failure("WorkerError", "died")),
        ReplicaState("0.1", 7, {"hear": "of a test"}, 0.5, 1.5),
    ):
        assert pickle.loads(pickle.dumps(message)) == message
