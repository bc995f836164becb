"""Options of a session are filled with the service's settings, and a hangover out of range is refused."""

from __future__ import annotations

import pytest

from streamsvc.core.config import Hear
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.options import HANGOVER, SpeechOptions

HEAR = Hear(model="whisper-base", language="de", translate=True, replace={"a": "A", "b": "B"}, hangover=0.7)


def test_what_was_not_asked_for_is_as_the_settings_say() -> None:
    filled = SpeechOptions(replace={"b": "bee"}).with_defaults(HEAR)
    assert filled == SpeechOptions("de", (), 0.7, True, {"a": "A", "b": "bee"})


def test_what_was_asked_for_stays() -> None:
    asked = SpeechOptions("it", ("Anna",), 1.0, False, {})
    filled = asked.with_defaults(HEAR)
    assert (filled.language, filled.vocabulary, filled.hangover, filled.translate) == (
        "it",
        ("Anna",),
        1.0,
        False,
    )


@pytest.mark.parametrize("seconds", [HANGOVER[0] - 0.01, HANGOVER[1] + 0.1, float("nan")])
def test_a_hangover_out_of_range_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SpeechOptions(hangover=seconds).check()
    assert refused.value.code == "bad_hangover"


@pytest.mark.parametrize("seconds", [None, *HANGOVER])
def test_a_hangover_within_range_passes(seconds: float | None) -> None:
    SpeechOptions(hangover=seconds).check()
