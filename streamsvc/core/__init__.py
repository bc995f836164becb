"""The base of all other packages: units, errors, clock, settings, queues, metrics.

In: settings (TOML, environment, command line). Out: the frozen units of `types`, the error tree of `errors`,
the bounded queues of `queues`. Worker processes import `types` and `errors`, so this file imports nothing.
"""

__all__ = ["clock", "config", "errors", "metrics", "queues", "roles", "types"]
