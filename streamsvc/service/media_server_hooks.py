"""What media servers ask before somebody publishes or plays, and the answers that each of them wants.

mediamtx    `authMethod: http`: JSON with action, path, query, user, password, token; 2xx is yes
nginx-rtmp  `on_publish` and the like: a form with call, app, name, and what stood behind the key; 2xx is yes
srs         `http_hooks`: JSON with action, app, stream, param; 200 with the body 0 is yes
ome         AdmissionWebhooks: signed JSON with request.direction, status, url; always 200, {"allowed": true}
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from streamsvc.core import json_input
from streamsvc.core.errors import Forbidden, InvalidRequest, Unauthorized
from streamsvc.service.stream_keys import token_of

Server = Literal["mediamtx", "nginx-rtmp", "srs", "ome"]
Wish = Literal["publish", "play", "left", "other"]
_APPLICATION = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*|")


@dataclass(frozen=True, slots=True)
class Asked:
    """One question of a media server.

    Attributes:
        wish: what its client wants; "left": a publisher has ended; "other": it tells something, asks nothing.
        application: the part of the path before the name; "": none.
        name: of the stream, which is the session's.
        token: that the client has shown; "": none.
        client: its address.
        connection: of the client, as the server counts them; "": it does not tell.
    """

    wish: Wish
    application: str = ""
    name: str = ""
    token: str = field(default="", repr=False)
    client: str = ""
    connection: str = ""


def read(server: Server, body: bytes, signature: str, secret: str) -> Asked:
    """Read a question.

    Args:
        server: that sends it.
        body: as it came.
        signature: X-OME-Signature; "": none.
        secret: SecretKey of AdmissionWebhooks, with which ome signs.

    Raises:
        InvalidRequest: "bad_hook": not what this server sends. Unauthorized: "bad_signature". Forbidden: it
            asks for what is not ours.
    """
    if server == "nginx-rtmp":
        asked = _nginx_rtmp(form_of(body))
    elif server == "ome":
        check_signature(body, signature, secret)
        asked = _ome(_object(body))
    else:
        fields = _object(body)
        asked = _mediamtx(fields) if server == "mediamtx" else _srs(fields)
    if not _APPLICATION.fullmatch(asked.application):
        raise InvalidRequest("the application of the stream cannot be part of an address", code="bad_hook")
    return asked


def form_of(body: bytes) -> dict[str, str]:
    """The fields of a question of nginx-rtmp; of several of one name the first.

    What the publisher has written after the question mark of its stream key comes last, and unescaped: so it
    can set no field of nginx's own.
    """
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise InvalidRequest("too many fields", code="bad_hook") from None
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def check_signature(body: bytes, signature: str, secret: str) -> None:
    """Raise Unauthorized unless ome has signed the body: HMAC-SHA1, in base64 for URLs without padding."""
    digest = hmac.new(secret.encode(), body, hashlib.sha1).digest()
    right = base64.urlsafe_b64encode(digest).rstrip(b"=")
    if not secret or not hmac.compare_digest(right, signature.rstrip("=").encode()):
        raise Unauthorized("X-OME-Signature is not that of ingest.hooks.ome_secret", code="bad_signature")


def _mediamtx(fields: Mapping[str, Any]) -> Asked:
    wishes: dict[str, Wish] = {"publish": "publish", "read": "play", "playback": "play"}
    application, _, name = _text(fields, "path").rpartition("/")
    token = _text(fields, "token") or _text(fields, "password") or token_of(_text(fields, "query"))
    action = _text(fields, "action")
    if action not in wishes:  # api, metrics, pprof: not ours to open
        raise Forbidden(f"only publishing and reading are allowed here, not {action[:40]!r}")
    return Asked(wishes[action], application, name, token, _text(fields, "ip"), _text(fields, "id"))


def _nginx_rtmp(form: Mapping[str, str]) -> Asked:
    wishes: dict[str, Wish] = {
        "publish": "publish",
        "play": "play",
        "publish_done": "left",
        "update_publish": "other",
    }
    wish = wishes.get(form.get("call", ""), "other")
    connection, token = form.get("clientid", ""), form.get("token", "")
    return Asked(wish, form.get("app", ""), form.get("name", ""), token, form.get("addr", ""), connection)


def _srs(fields: Mapping[str, Any]) -> Asked:
    wishes: dict[str, Wish] = {"on_publish": "publish", "on_play": "play", "on_unpublish": "left"}
    wish = wishes.get(_text(fields, "action"), "other")
    token, connection = token_of(_text(fields, "param")), str(fields.get("client_id", ""))
    name, client = _text(fields, "stream"), _text(fields, "ip")
    return Asked(wish, _text(fields, "app"), name, token, client, connection)


def _ome(fields: Mapping[str, Any]) -> Asked:
    request, client = _inner(fields, "request"), _inner(fields, "client")
    try:
        path, query = _ome_stream(_text(request, "url"))
    except ValueError:
        raise InvalidRequest("request.url is no URL", code="bad_hook") from None
    if len(path) < 2:
        raise InvalidRequest("request.url has no /app/stream", code="bad_hook")
    incoming = _text(request, "direction") == "incoming"
    wish: Wish = "publish" if incoming else "play"
    if _text(request, "status") == "closing":
        wish = "left" if incoming else "other"
    return Asked(wish, path[0], path[1], token_of(query), _text(client, "address"), "")


def _ome_stream(url: str) -> tuple[list[str], str]:
    """The parts of the path of a stream, and its query. Raises ValueError."""
    parts = urlsplit(url)
    path, query = unquote(parts.path), parts.query
    if parts.scheme == "srt" and "streamid=" in query:  # srt://host:port?streamid=vhost/app/stream?query
        stream_id = urlsplit(dict(parse_qsl(query, max_num_fields=100)).get("streamid", ""))
        path, query = stream_id.path.lstrip("/").partition("/")[2], stream_id.query
    return [part for part in path.split("/") if part], query


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json_input.parse(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("the body must be a JSON object", code="bad_hook")
    return found


def _text(fields: Mapping[str, Any], name: str) -> str:
    """A field that is a text; missing or null: ""."""
    value = fields.get(name) or ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a text", code="bad_hook")
    return value


def _inner(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object", code="bad_hook")
    return value


def yes(server: Server) -> tuple[int, str, str]:
    """Status, media type and body of an answer that allows."""
    if server == "ome":
        return 200, "application/json", json.dumps({"allowed": True})
    if server == "srs":
        return 200, "text/plain", "0"
    return 200, "application/json", "{}"
