"""Supervised child processes that run the models, behind `core.roles.Role`.

In: ops with JSON values and numpy arrays, and a relative deadline. Out: results or streams of payloads, or
CapacityError, DeadlineMissed, WorkerError.

`supervisor` runs in the service, `child` in the worker process; `framing` is the wire format between them,
`lanes` has the queues of the engines. `ray_bridge` is a child that carries requests to a Ray cluster instead.
`look_cache` deduplicates vision calls. A worker process imports this file, so it imports nothing.
"""

__all__ = ["look_cache", "supervisor"]
