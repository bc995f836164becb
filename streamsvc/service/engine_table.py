"""Which engine serves which role, by profile."""

from __future__ import annotations

# worker -> role -> engine
_EMBEDDED = {
    "hear": {"hear": "engines.asr"},
    "see": {"see": "engines.vision", "embed": "engines.embed"},
    "think": {"think": "engines.llm"},
}
ENGINES = {
    "embedded": _EMBEDDED,
    "gpu": {**_EMBEDDED, "think": {"think": "engines.vlm"}},
    "remote": {**_EMBEDDED, "think": {"think": "engines.remote"}},
}
NICENESS = {"hear": 0, "see": 5, "think": 10}
