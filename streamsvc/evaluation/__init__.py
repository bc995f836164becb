"""Evaluation: measures the service on recordings whose truth is known.

In: scenarios (a recording, its truth, questions; `scenario`), published datasets (`datasets`), or recordings
with a transcript (`recordings`). They are played through a whole session (`session_run`, `evaluate`:
`streamsvc eval`) or through speech alone (`transcriber_run`, `caption_bench`: `streamsvc bench captions`), in
real time or on a virtual clock. Out: figures as JSON, Markdown tables and panels of a plot. The service
imports nothing from here; `commands` adds the commands to the command line.

This file imports nothing: a process whose memory is measured must not load the whole service with
`transcriber_run`.
"""

__all__ = [
    "caption_bench",
    "commands",
    "datasets",
    "evaluate",
    "recordings",
    "scenario",
    "session_run",
    "transcriber_run",
]
