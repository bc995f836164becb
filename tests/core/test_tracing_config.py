"""The address of a collector is checked, and carries no secret into a message."""

from __future__ import annotations

import pytest

from streamsvc.core.config import Tracing, load
from streamsvc.core.errors import ConfigError


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:4318", "http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"]
)
def test_the_path_of_traces_may_be_said_or_not(endpoint: str) -> None:
    assert Tracing(endpoint=endpoint).endpoint == "http://127.0.0.1:4318"


def test_without_an_endpoint_nothing_is_traced() -> None:
    assert Tracing().endpoint == ""


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://me:s3cret@127.0.0.1:4318", "http://a/?key=s3cret"],
)
def test_another_address_is_refused_without_being_quoted(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"tracing\.endpoint") as refused:
        load(None, tracing={"endpoint": endpoint})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(("name", "value"), [("sample", 1.5), ("sample", -0.1), ("spans", 1), ("timeout", 0)])
def test_a_number_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"tracing\.{name}"):
        load(None, tracing={name: value})
