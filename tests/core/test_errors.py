"""Status, close code, headers and body of every error."""

from __future__ import annotations

import re

import pytest

from streamsvc.core import errors


def every_error() -> list[type[errors.StreamsvcError]]:
    classes = [errors.StreamsvcError]
    for known in classes:
        classes += known.__subclasses__()
    return [known for known in classes if known.__module__ == errors.__name__]


def test_the_body_has_type_code_message_and_retryable() -> None:
    error = errors.NotFound("there is no session x")
    assert error.body() == {
        "error": {
            "type": "invalid_request_error",
            "code": "not_found",
            "message": "there is no session x",
            "retryable": False,
        }
    }
    assert str(error) == "there is no session x [not_found]"


def test_headers_carry_retry_after_and_www_authenticate() -> None:
    assert errors.CapacityError("full", retry_after=7.4).headers()["Retry-After"] == "7"
    assert errors.CapacityError("full", retry_after=0.1).headers()["Retry-After"] == "1"
    assert errors.RateLimited("slow down").headers()["Retry-After"] == "5"
    assert errors.Unauthorized("who?").headers()["WWW-Authenticate"] == "Bearer"
    assert errors.InvalidRequest("no").headers() == {"Cache-Control": "no-store"}


def test_a_code_argument_replaces_the_default_of_that_error_only() -> None:
    assert errors.InvalidRequest("no", code="bad_sdp").code == "bad_sdp"
    assert errors.InvalidRequest("no").code == "bad_request"


@pytest.mark.parametrize(
    ("name", "status", "close_code"),
    [
        ("InvalidRequest", 400, 4400),
        ("Unauthorized", 401, 4401),
        ("Forbidden", 403, 4403),
        ("NotFound", 404, 4404),
        ("Conflict", 409, 4400),
        ("PreconditionFailed", 412, 4400),
        ("TooLarge", 413, 4400),
        ("UnsupportedMediaType", 415, 4400),
        ("Unprocessable", 422, 4400),
        ("PreconditionRequired", 428, 4400),
        ("RateLimited", 429, 4429),
        ("SourceError", 422, 4400),
        ("CapacityError", 503, 1013),
        ("ClusterUnavailable", 503, 1013),
        ("ModelMissing", 503, 1011),
        ("WorkerError", 503, 1011),
        ("DeadlineMissed", 504, 1011),
    ],
)
def test_each_error_has_its_http_status_and_close_code(name: str, status: int, close_code: int) -> None:
    error = getattr(errors, name)
    assert (error.status, error.close_code) == (status, close_code)


def test_capacity_worker_rate_and_deadline_errors_are_retryable() -> None:
    assert {error.__name__ for error in every_error() if error.retryable} == {
        "RateLimited",
        "CapacityError",
        "WorkerError",
        "DeadlineMissed",
        "ClusterUnavailable",
        "Redirected",
    }


def test_a_source_without_an_answer_is_502_and_retryable() -> None:
    silent = errors.SourceError("no answer", retryable=True)
    assert (silent.status, silent.retryable, silent.body()["error"]["retryable"]) == (502, True, True)
    assert (errors.SourceError.status, errors.SourceError("x").status) == (422, 422), "the class is unchanged"


def test_a_capacity_error_carries_retry_after() -> None:
    assert errors.CapacityError("full", retry_after=9).retry_after == 9


def test_every_error_is_drawn_in_the_docstring() -> None:
    drawn = set(re.findall(r"(?:^|-- )(\w+)", errors.__doc__ or "", re.M)) | set(
        re.findall(r"^\s*(\w+)$", errors.__doc__ or "", re.M)
    )
    assert {error.__name__ for error in every_error()} <= drawn


def test_codes_and_types_are_snake_case() -> None:
    for error in every_error():
        assert re.fullmatch(r"[a-z][a-z_]+", error.code), error
        assert re.fullmatch(r"[a-z][a-z_]+", error.type), error


def test_an_error_about_a_question_names_it_beside_the_error() -> None:
    error = errors.NotFound("no such question")
    assert set(error.body()) == {"error"}
    error.question_id = "q_1"
    assert error.body()["question_id"] == "q_1"
    assert "question_id" not in error.body()["error"]
