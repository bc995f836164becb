"""An error is answered with its status, its headers and one JSON body."""

from __future__ import annotations

import json

from streamsvc.core.error_response import error_response
from streamsvc.core.errors import CapacityError


def test_an_error_is_a_response_with_its_status_headers_and_body() -> None:
    error = CapacityError("full", retry_after=7.0)
    response = error_response(error)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "7"
    assert json.loads(bytes(response.body)) == error.body()
