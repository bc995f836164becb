"""JSON as clients send it: read with one kind of error."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE_BYTES = re.compile(_SURROGATE.pattern.encode())


def parse(text: str | bytes) -> Any:
    r"""The value of a JSON text.

    Raises:
        ValueError: it is no JSON, is nested too deep, or holds half of a surrogate pair ("\ud800"): a text
            with it cannot be encoded as UTF-8, so it could be neither stored nor sent.
    """
    try:
        value = json.loads(text)
        if has_escaped_surrogate(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def has_escaped_surrogate(text: str | bytes) -> bool:
    """Whether a JSON text may hold a surrogate, paired or not."""
    found = _SURROGATE.search(text) if isinstance(text, str) else _SURROGATE_BYTES.search(text)
    return found is not None
