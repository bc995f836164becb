"""`streamsvc bench captions --speed max` under the name that scripts and tests knew it by: there is nothing of its own here.

python -m load_tests.offline_wer [--model whisper-tiny.en] [--seconds 120] [--offline] [--json] RECORDING ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from streamsvc import recording
from streamsvc.recording import read
from streamsvc.score import align, norm
from streamsvc.trial import Heard, Timed, listen

__all__ = ["Heard", "Timed", "listen", "matches", "norm", "read", "truth_of"]


def matches(truth: Sequence[str], heard: Sequence[str]) -> tuple[int, list[tuple[int, int]]]:
    """Edit distance, and the pairs of places that are equal."""
    pairs, edits = align(truth, heard)
    return edits, pairs


def truth_of(path: Path) -> str | None:
    """The words that the nearest manifest.json gives for a recording."""
    truth = recording.truth_of(path)
    return None if truth is None else " ".join(truth.words)


if __name__ == "__main__":
    from streamsvc import __main__ as command  # only here: tests need no service

    sys.argv[1:1] = ["bench", "captions", "--speed", "max"]
    command.main()
