"""What the tests of evaluation share: a scenario, and the report of two of them by stand-in engines."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from streamsvc.evaluation import session_run
from streamsvc.evaluation.evaluate import planned, run
from tests.builders.clips import clip
from tests.fakes.engines_by_name import load, settings


def quiet(line: str) -> None:
    """No progress wanted."""


def scenario(folder: Path, name: str, **more: Any) -> Path:
    """A tone over a picture that gets brighter; "la" is what is heard and a cat what is seen."""
    clip(folder / f"{name}.mp4", seconds=4.0)
    asked = {"keywords": ["cat"], "evidence_s": [0, 4], "modality": "vision", "ask_at_s": 5.0}
    qa = [
        {"id": f"{name}1", "type": "yes/no", "question": "Has a cat been shown?", "answer": "yes", **asked},
        {
            "id": f"{name}2",
            "type": "yes/no",
            "question": "Has a dog been shown?",
            "answer": "no",
            "kind": "never",
            "half": "held",
            **asked,
        },
        {
            "id": f"{name}3",
            "type": "open",
            "question": "What colour are the eyes of the cat?",
            "answer": "red",
            "answerable": False,
            **asked,
        },
    ]
    truth = {
        "transcript": "la " * 9,
        "speech": [{"start": 0, "end": 4}],
        "intervals": [{"start": 0, "end": 4, "kind": "clip", "label": "cat"}],
    }
    (folder / f"{name}.json").write_text(json.dumps({"file": f"{name}.mp4", "qa": qa, **truth, **more}))
    return folder / f"{name}.json"


@pytest.fixture(scope="package")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("eval")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            session_run, "fixed_time_service", functools.partial(session_run.fixed_time_service, load=load)
        )
        paths = [scenario(folder, "one", noise="music"), scenario(folder, "two")]
        return run(settings(folder), planned([*map(str, paths), f"vqav2:{folder}"]), quiet)
