"""Stream ids of SRT, plain and by access control; what is none is refused without being quoted."""

from __future__ import annotations

import pytest

from streamsvc.core.errors import InvalidRequest
from streamsvc.ingest.srt_stream_id import StreamId, parse


@pytest.mark.parametrize(
    ("text", "name", "token"),
    [
        ("talk", "talk", ""),
        ("talk?token=a.b-c_d", "talk", "a.b-c_d"),
        ("live/talk?token=a", "talk", "a"),
        ("talk?x=1&token=a", "talk", "a"),
        ("talk.20261130-211500-ab12", "talk.20261130-211500-ab12", ""),
        ("#!::r=talk", "talk", ""),
        ("#!::r=talk,m=publish,s=a", "talk", "a"),
        ("#!::m=publish,r=talk?token=a", "talk", "a"),
        ("#!::u=someone,r=live/talk,t=stream,token=a=,h=host,bmd_uuid=1", "talk", "a="),
        ("#!::r=talk?token=a,s=a", "talk", "a"),
    ],
)
def test_name_and_token_are_read_from_both_forms(text: str, name: str, token: str) -> None:
    assert parse(text) == StreamId(name, token)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_stream_id"),
        ("?token=secret", "bad_stream_id"),
        ("talk?token=secret&token=secret2", "bad_stream_id"),
        ("#!::", "bad_stream_id"),
        ("#!::r", "bad_stream_id"),
        ("#!::m=publish,s=secret", "bad_stream_id"),
        ("#!::r=a,r=secret", "bad_stream_id"),
        ("#!::r=talk?token=secret,s=secret2", "bad_stream_id"),
        ("#!{r=secret}", "bad_stream_id"),
        ("#!:r=secret", "bad_stream_id"),
        ("#!::r=secret,m=request", "bad_mode"),
        ("#!::r=secret,m=bidirectional", "bad_mode"),
        ("#!::r=secret,t=file", "bad_type"),
        ("secret\n", "bad_stream_id"),
        ("secret" * 100, "bad_stream_id"),
    ],
)
def test_what_is_no_stream_id_is_refused_and_not_quoted(text: str, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


def test_a_token_is_not_shown_where_a_stream_id_is() -> None:
    assert "secret" not in repr(parse("talk?token=secret"))
