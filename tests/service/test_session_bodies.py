"""Bodies of requests: what they turn into, and what they refuse."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from streamsvc.core.options import SpeechOptions
from streamsvc.service.session_bodies import NewSession, SessionBody, SessionUpdate


def test_a_new_session_has_the_options_that_were_asked_for() -> None:
    options = NewSession(language="de", vocabulary=["Ada"], no_store=True).options()
    assert options.speech == SpeechOptions(language="de", vocabulary=("Ada",))
    assert not options.stored


def test_an_update_knows_what_was_left_out_from_what_is_null() -> None:
    assert SessionUpdate.model_validate({"language": None}).model_fields_set == {"language"}
    assert SessionUpdate.model_validate({}).model_fields_set == set()


MUCH = [
    {"vocabulary": ["a"] * 201},
    {"vocabulary": ["a" * 101]},
    {"replace": {str(number): "b" for number in range(201)}},
    {"replace": {"a" * 101: "b"}},
    {"replace": {"a": "b" * 101}},
    {"language": "x" * 17},
]


@pytest.mark.parametrize("body", [*MUCH, {"source": "a"}])
def test_an_update_with_too_much_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SessionUpdate.model_validate(body)


@pytest.mark.parametrize("body", [*MUCH, {"source": "a" * 4097}, {"adapter": "a" * 65}, {"name": "a" * 65}])
def test_a_new_session_with_too_much_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NewSession.model_validate(body)


def test_what_a_session_says_beyond_the_model_is_not_lost() -> None:
    urls = dict.fromkeys(("events_url", "whip_url", "overlay_url", "captions_url"), "/x")
    body = SessionBody(id="a", name=None, state="live", started_utc="2026", tracks=[], more=1, **urls)
    assert body.model_dump()["more"] == 1
