"""The client of chat completions.

Streams as they come in the wild, errors by name, and nothing told that is not ours to tell.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, AuthenticationError
from openai.types.chat import completion_create_params

from engines.remote_chat import MAX_BYTES, Chat, Endpoint, Events, Piece, retry_after
from streamsvc.core.errors import CapacityError, ConfigError, DeadlineMissed, StreamsvcError, WorkerError
from tests.builders.certificate import certificate
from tests.engines.chat_server import (
    DONE,
    ROLE,
    SCHEMA,
    USAGE,
    Fake,
    Mark,
    Reply,
    chunk,
    refused,
    serving,
    stream,
)

KEY = "sk-a-secret-key"
SAID = "the budget is nine million"
BODY: dict[str, Any] = {
    "model": "seer",
    "messages": [{"role": "user", "content": SAID}],
    "max_tokens": 9,
    "temperature": 0,
}


@contextlib.contextmanager
def chatting(*script: Reply, timeout: float = 15.0, **fake: Any) -> Iterator[tuple[Fake, Chat]]:
    """A server with this script, and a client of it."""
    with (
        serving(Fake(list(script), **fake)) as served,
        closing(Chat(Endpoint(served.url, served.key, timeout))) as chat,
    ):
        yield served, chat


def closing(chat: Chat) -> contextlib.AbstractContextManager[Chat]:
    return contextlib.closing(chat)


def told(chat: Chat, **more: Any) -> tuple[str, str]:
    """The text of an answer, and why it ended."""
    pieces = list(chat.stream({**BODY, **more}))
    return "".join(piece.text for piece in pieces), pieces[-1].end


def failed(chat: Chat) -> StreamsvcError:
    with pytest.raises(StreamsvcError) as caught:
        told(chat)
    return caught.value


# --- Server-Sent Events ---

STREAM = b': a comment\r\ndata: {"a": 1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\n'
STREAM += b"id: 3\n\ndata: \xc3\xa4\r\rdata: end"


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    events = Events()
    parts = [STREAM[start:end] for start, end in itertools.pairwise(edges) if end > start]
    found = [event for part in [*parts, b""] for event in events.feed(part)]
    assert found == ['{"a": 1}', "two\nlines", "ä", "end"]


# --- answers ---


def test_an_answer_streams_and_the_request_is_what_was_asked_for() -> None:
    with chatting(stream("The ", "budget", "."), key=KEY) as (fake, chat):
        pieces = [piece for piece in chat.stream(BODY) if piece.text or piece.end]
        assert pieces == [Piece("The "), Piece("budget"), Piece("."), Piece(end="stop")]
        assert fake.asked == [{**BODY, "stream": True}]


def test_connections_are_reused_between_questions() -> None:
    with chatting(stream("yes")) as (fake, chat):
        assert [told(chat) for _ in range(8)] == [("yes", "stop")] * 8
        assert len(set(fake.ports)) <= 2, "an answer is told before its connection is read to its end"


ODD = {
    "comments and a chunk of usage": Reply(
        [b": ping\n\n", ROLE, chunk({"content": "yes"}), b":\n\n", chunk({}, "stop"), USAGE, DONE]
    ),
    "no [DONE]": Reply([chunk({"content": "yes"}), chunk({}, "stop")]),
    "no blank line at the end": Reply([chunk({"content": "yes"}, "stop"), b"data: [DONE]"]),
    "reasoning beside the answer": Reply(
        [chunk({"reasoning_content": "hm", "content": None}), chunk({"content": "yes"}), DONE]
    ),
    "not streamed": Reply(
        [
            json.dumps(
                {
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": "yes"},
                            "finish_reason": "stop",
                        }
                    ]
                }
            ).encode()
        ],
        headers={"Content-Type": "application/json"},
    ),
}


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD)
def test_what_servers_do_differently_is_taken_as_it_comes(reply: Reply) -> None:
    with chatting(reply) as (_, chat):
        assert told(chat) == ("yes", "stop")


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_cut_by_the_endpoint_has_its_reason(reason: str) -> None:
    with chatting(stream("half", finish=reason)) as (_, chat):
        assert told(chat) == ("half", reason)


# --- failures ---

STATUSES: list[tuple[Reply, type[StreamsvcError], str]] = [
    (
        refused(401, "invalid_api_key"),
        ConfigError,
        r"refuses the key \(401, invalid_api_key\): check STREAMSVC_REMOTE__KEY",
    ),
    (refused(403), ConfigError, "STREAMSVC_REMOTE__KEY"),
    (refused(404, "model_not_found"), ConfigError, r"remote\.model"),
    (
        refused(400, "context_length_exceeded"),
        ConfigError,
        r"\(400, context_length_exceeded\).*think\.window_tokens",
    ),
    (refused(429, headers={"Retry-After": "7"}), CapacityError, "429"),
    (refused(500), WorkerError, "500"),
    (refused(504), DeadlineMissed, "504"),
    (Reply([b"<h1>Bad gateway</h1>"], 502, {"Content-Type": "text/html"}), WorkerError, "502"),
    (Reply([b"<h1>Welcome</h1>"], 200, {"Content-Type": "text/html"}), WorkerError, "protocol"),
    (Reply([b"data: {]\n\n"]), WorkerError, "protocol"),
    (Reply([ROLE]), WorkerError, "broke off"),
    (Reply([ROLE, Mark.CUT]), WorkerError, "closed the connection"),
    (Reply([b'data: {"error": {"code": 429, "message": "no"}}\n\n']), CapacityError, "429"),
    (Reply([b'data: {"error": {"message": "out of memory"}}\n\n']), WorkerError, "failed"),
]


@pytest.mark.parametrize(("reply", "kind", "match"), STATUSES)
def test_failures_become_errors_of_ours_and_only_those_of_the_moment_are_tried_again(
    reply: Reply, kind: type[StreamsvcError], match: str
) -> None:
    with chatting(reply) as (fake, chat):
        with pytest.raises(kind, match=match) as caught:
            told(chat)
        assert type(caught.value) is kind
        assert len(fake.ports) == (2 if kind is WorkerError else 1)
        if isinstance(caught.value, CapacityError) and reply.status == 429:
            assert caught.value.retry_after == 7.0


def test_errors_and_reprs_contain_neither_the_key_nor_session_text() -> None:
    echo = refused(401, f"key_{KEY}", f"Incorrect key {KEY} for: {SAID}")
    with chatting(echo, key=KEY) as (fake, chat):
        error = failed(chat)
        assert KEY not in f"{error!s}{error!r}{error.body()}{Endpoint(fake.url, KEY)!r}"
        assert SAID not in f"{error!s}{error!r}"


def test_a_wrong_key_is_refused_by_the_real_rule() -> None:
    with (
        serving(Fake([stream("yes")], key=KEY)) as fake,
        closing(Chat(Endpoint(fake.url, "sk-another"))) as chat,
    ):
        assert isinstance(failed(chat), ConfigError)
        assert fake.asked == []


def test_one_failure_before_the_first_text_is_made_good() -> None:
    with chatting(refused(503), stream("yes")) as (_, chat):
        assert told(chat) == ("yes", "stop")
    with chatting(Reply([ROLE, Mark.CUT]), stream("yes")) as (_, chat):
        assert told(chat) == ("yes", "stop")


@pytest.mark.parametrize(
    "end", [Mark.CUT, b'data: {"error": {"code": 500, "message": "no"}}\n\n', b"data: {]\n\n"]
)
def test_a_stream_that_breaks_in_the_middle_ends_with_what_has_come(end: Any) -> None:
    with chatting(Reply([ROLE, chunk({"content": "The budget"}), end])) as (fake, chat):
        assert told(chat) == ("The budget", "broken")
        assert len(fake.ports) == 1


def test_an_unreachable_address_is_a_retryable_error() -> None:
    with serving(Fake([stream("yes")])) as fake:
        pass
    with closing(Chat(Endpoint(fake.url))) as chat:
        error = failed(chat)
    assert isinstance(error, WorkerError)
    assert error.retryable


def test_a_slow_endpoint_misses_the_deadline() -> None:
    with chatting(stream("The ", Mark.HOLD), timeout=0.3) as (fake, chat):
        assert isinstance(failed(chat), DeadlineMissed)
        assert fake.left.wait(5)


def test_beats_come_while_it_is_silent_and_leaving_closes_the_stream_at_the_endpoint() -> None:
    with chatting(Reply([Mark.HOLD])) as (fake, chat):
        pieces = chat.stream(BODY)
        assert next(pieces) == Piece()
        assert fake.held.wait(5)
        pieces.close()
        assert fake.left.wait(5)


def test_an_answer_without_end_is_cut() -> None:
    with chatting(Reply([chunk({"content": "a"}), b": " + b"x" * MAX_BYTES, DONE])) as (_, chat):
        assert told(chat) == ("a", "broken")


def test_a_redirect_is_not_followed() -> None:
    with serving(Fake([stream("yes")])) as other:
        headers = {"Location": f"{other.url}/chat/completions", "Content-Type": "text/plain"}
        with chatting(Reply([b"there"], 307, headers), key=KEY) as (_, chat):
            assert isinstance(failed(chat), ConfigError)
        assert other.ports == []


def test_an_untrusted_certificate_is_refused(tmp_path: Path) -> None:
    theirs, _ = certificate(tmp_path, "localhost")
    assert isinstance(theirs, ssl.SSLContext)
    with (
        serving(Fake([stream("yes")], key=KEY), theirs) as fake,
        closing(Chat(Endpoint(fake.url, KEY))) as chat,
    ):
        error = failed(chat)
        assert isinstance(error, ConfigError)
        assert "certificate" in error.message
        assert fake.ports == []


def test_a_field_that_the_endpoint_does_not_know_is_left_out_or_renamed_and_not_tried_again() -> None:
    limit = refused(400, "unsupported_parameter", param="max_tokens")
    heat = refused(400, "unsupported_value", param="temperature")
    with chatting(limit, heat, stream("yes")) as (fake, chat):
        assert told(chat) == told(chat) == ("yes", "stop")
        assert [
            sorted({"max_tokens", "max_completion_tokens", "temperature"} & asked.keys())
            for asked in fake.asked
        ] == [
            ["max_tokens", "temperature"],
            ["max_completion_tokens", "temperature"],
            ["max_completion_tokens"],
            ["max_completion_tokens"],
        ]
    with chatting(limit) as (fake, chat):  # one that refuses it under both names
        assert isinstance(failed(chat), ConfigError)
        assert len(fake.ports) == 2


def test_retry_after_is_seconds_or_a_date_and_never_for_ever() -> None:
    now = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    dated = format_datetime(now.replace(second=30), usegmt=True)
    values = ["12", dated, format_datetime(now.replace(hour=11), usegmt=True), "", "soon", "9" * 30]
    assert [retry_after(value, now.timestamp()) for value in values] == [12.0, 30.0, 0.0, 5.0, 5.0, 3600.0]


# --- the server of these tests ---


async def test_the_official_client_takes_the_server_for_the_real_thing() -> None:
    with serving(
        Fake([Reply([b": ping\n\n", *stream("The ", "cat").parts[:-1], USAGE, DONE]), refused(500)], key=KEY)
    ) as fake:
        async with AsyncOpenAI(
            base_url=fake.url, api_key=KEY, max_retries=0, _strict_response_validation=True
        ) as client:
            asked = await client.chat.completions.create(
                model="seer",
                messages=[
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                ],
                stream=True,
                stream_options={"include_usage": True},
                max_tokens=5,
                temperature=0,
                stop=["\n"],
            )
            chunks = [event async for event in asked]
        assert (
            "".join(choice.delta.content or "" for event in chunks for choice in event.choices) == "The cat"
        )
        assert chunks[-1].usage is not None
        async with AsyncOpenAI(base_url=fake.url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(AuthenticationError):
                await client.chat.completions.create(
                    model="seer", messages=[{"role": "user", "content": "Hi"}], stream=True
                )


def test_the_server_knows_no_field_that_the_official_client_does_not_know() -> None:
    real = completion_create_params.CompletionCreateParamsStreaming.__annotations__
    assert SCHEMA["properties"].keys() <= real.keys()


def test_the_fake_server_rejects_invalid_requests() -> None:
    with (
        pytest.raises(AssertionError, match="sorcery"),
        chatting(stream("yes")) as (_, chat),
        contextlib.suppress(ConfigError),
    ):
        told(chat, sorcery=1)
