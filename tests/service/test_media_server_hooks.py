"""Questions of media servers are read as those servers write them, and broken ones are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from streamsvc.core.errors import Forbidden, InvalidRequest, Unauthorized
from streamsvc.service.media_server_hooks import Asked, Server, form_of, read, yes

SECRET = "a-secret-of-ome"
MEDIAMTX = {  # internal/auth/manager.go of bluenviron/mediamtx
    "ip": "10.0.0.1",
    "user": "",
    "password": "",
    "token": "",
    "action": "publish",
    "path": "live/studio",
    "protocol": "rtmp",
    "id": "6b29fc40-ca47-1067-b31d-00dd010662da",
    "query": "token=T",
}
NGINX = (  # ngx_rtmp_notify_module.c: first what it says, then what stands behind the key
    b"app=live&flashver=FMLE/3.0%20(compatible%3B%20Lavf59.27&swfurl=&tcurl=rtmp://a:1935/live&pageurl="
    b"&addr=10.0.0.1&clientid=4&call=publish&name=studio&type=live&token=T"
)
SRS = {  # trunk/doc of ossrs/srs
    "server_id": "vid-0xk989d",
    "action": "on_publish",
    "client_id": "9308h583",
    "ip": "10.0.0.1",
    "vhost": "__defaultVhost__",
    "app": "live",
    "tcUrl": "rtmp://a/live?x=1",
    "stream": "studio",
    "param": "?token=T",
    "stream_url": "/live/studio",
    "stream_id": "vid-124q9y3",
}
OME_REQUEST = {
    "direction": "incoming",
    "protocol": "rtmp",
    "status": "opening",
    "url": "rtmp://a:1935/live/studio?token=T",
    "time": "2021-05-12T13:45:00.000Z",
}
OME = {  # OvenMediaEngine's manual: Access Control, AdmissionWebhooks
    "client": {"address": "10.0.0.1", "port": 29291, "user_agent": "a"},
    "request": OME_REQUEST,
}


def signed(body: bytes, secret: str = SECRET) -> str:
    return (
        base64.urlsafe_b64encode(hmac.new(secret.encode(), body, hashlib.sha1).digest()).decode().rstrip("=")
    )


def asked(server: Server, question: Any, signature: str | None = None) -> Asked:
    body = question if isinstance(question, bytes) else json.dumps(question).encode()
    return read(server, body, signed(body) if signature is None else signature, SECRET)


@pytest.mark.parametrize(
    ("server", "question", "connection"),
    [
        ("mediamtx", MEDIAMTX, "6b29fc40-ca47-1067-b31d-00dd010662da"),
        ("nginx-rtmp", NGINX, "4"),
        ("srs", SRS, "9308h583"),
        ("ome", OME, ""),
    ],
)
def test_a_publisher_is_read_from_the_question_of_each_server(
    server: Server, question: Any, connection: str
) -> None:
    assert asked(server, question) == Asked("publish", "live", "studio", "T", "10.0.0.1", connection)


@pytest.mark.parametrize(
    ("server", "question", "wish"),
    [
        ("mediamtx", MEDIAMTX | {"action": "read"}, "play"),
        ("nginx-rtmp", NGINX.replace(b"call=publish", b"call=play"), "play"),
        ("nginx-rtmp", NGINX.replace(b"call=publish", b"call=publish_done"), "left"),
        ("nginx-rtmp", NGINX.replace(b"call=publish", b"call=update_publish"), "other"),
        ("srs", SRS | {"action": "on_unpublish"}, "left"),
        ("srs", SRS | {"action": "on_play"}, "play"),
        ("srs", SRS | {"action": "on_dvr"}, "other"),
        ("ome", OME | {"request": OME_REQUEST | {"status": "closing"}}, "left"),
        ("ome", OME | {"request": OME_REQUEST | {"direction": "outgoing"}}, "play"),
    ],
)
def test_other_wishes_are_told_apart(server: Server, question: Any, wish: str) -> None:
    assert asked(server, question).wish == wish


def test_mediamtx_gets_its_control_interface_opened_for_nobody() -> None:
    for action in ("api", "metrics", "pprof", ""):
        with pytest.raises(Forbidden):
            asked("mediamtx", MEDIAMTX | {"action": action})


def test_tokens_come_where_each_protocol_has_room_for_them() -> None:
    assert asked("mediamtx", MEDIAMTX | {"query": "", "password": "P"}).token == "P"
    assert asked("mediamtx", MEDIAMTX | {"token": "B"}).token == "B"
    assert asked("mediamtx", MEDIAMTX | {"path": "studio"}).application == ""
    url = "srt://a:9999?streamid=default%2Flive%2Fstudio%3Ftoken%3DT"
    assert asked("ome", OME | {"request": OME_REQUEST | {"url": url}}) == asked("ome", OME)
    assert "T" not in repr(asked("srs", SRS | {"param": "?token=T"})).replace("Type", "")


def test_what_a_publisher_writes_behind_its_key_replaces_no_field_of_nginx() -> None:
    form = form_of(NGINX + b"&name=other&addr=9.9.9.9&call=play&clientid=1")
    assert (form["name"], form["addr"], form["call"], form["clientid"]) == (
        "studio",
        "10.0.0.1",
        "publish",
        "4",
    )
    with pytest.raises(InvalidRequest):
        form_of(b"&".join([b"a=b"] * 101))


def test_ome_must_sign_what_it_sends() -> None:
    body = json.dumps(OME).encode()
    for wrong in ("", signed(body + b" "), signed(body, "another"), "é"):
        with pytest.raises(Unauthorized) as caught:
            asked("ome", OME, wrong)
        assert caught.value.code == "bad_signature"
    with pytest.raises(Unauthorized):
        read("ome", body, signed(body, ""), "")


@pytest.mark.parametrize(
    ("server", "question"),
    [
        ("mediamtx", b"no json"),
        ("mediamtx", [1]),
        ("mediamtx", MEDIAMTX | {"path": 3}),
        ("mediamtx", MEDIAMTX | {"path": "../a/studio"}),
        ("nginx-rtmp", NGINX.replace(b"app=live", b"app=..%2f..")),
        ("srs", SRS | {"app": "a?b"}),
        ("srs", SRS | {"app": "a//b"}),
        ("ome", OME | {"request": "x"}),
        ("ome", OME | {"request": OME_REQUEST | {"url": "rtmp://a/"}}),
        ("ome", OME | {"request": OME_REQUEST | {"url": "http://[a"}}),
    ],
)
def test_what_no_such_server_sends_is_refused(server: Server, question: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(server, question)
    assert caught.value.code == "bad_hook"


def test_yes_is_said_in_the_words_of_each_server() -> None:
    assert yes("ome")[2] == '{"allowed": true}'
    assert yes("srs")[2] == "0"
    assert {yes(server)[0] for server in ("mediamtx", "nginx-rtmp", "srs", "ome")} == {200}
