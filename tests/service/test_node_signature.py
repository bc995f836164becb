"""What nodes sign for each other: only the cluster's nodes can, for one request or path, and not for long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from streamsvc.core import clock
from streamsvc.core.errors import Unauthorized
from streamsvc.core.types import Grants
from streamsvc.service.node_signature import Forwarded, NodeSignature

OURS, OTHER = NodeSignature("a" * 32), NodeSignature("b" * 32)
GRANTS = Grants("t", "talk", frozenset({"publish", "ask"}), 2e9, "abcdefghijkl.mnopqrstuvwx")
ASKED = Forwarded("POST", "/v1/sessions/talk/questions?x=1", b"{}", GRANTS, "192.0.2.7", "aud")


def code_of(call: object, *arguments: str) -> str:
    with pytest.raises(Unauthorized) as refused:
        call(*arguments)  # type: ignore[operator]
    return refused.value.code


def test_the_owner_learns_who_asks_and_what_body_was_signed() -> None:
    asker = OURS.asker(OURS.forwarded(ASKED), ASKED.method, ASKED.target)
    assert (asker.grants, asker.client, asker.audience) == (GRANTS, "192.0.2.7", "aud")
    assert asker.body == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_a_request_is_signed_for_one_method_and_target_by_this_cluster_alone() -> None:
    signed = OURS.forwarded(ASKED)
    assert code_of(OURS.asker, signed, "DELETE", ASKED.target) == "bad_request"
    assert code_of(OURS.asker, signed, "POST", "/v1/sessions/other/questions?x=1") == "bad_request"
    assert code_of(OTHER.asker, signed, ASKED.method, ASKED.target) == "bad_request"
    assert code_of(OURS.asker, "no.jwt", ASKED.method, ASKED.target) == "bad_request"


def test_a_ticket_is_no_request_and_a_request_no_ticket() -> None:
    ticket = OURS.ticket("POST /whip/talk", GRANTS)
    assert code_of(OURS.asker, ticket, "POST", "/whip/talk") == "bad_request"
    signed = OURS.forwarded(Forwarded("POST", "/whip/talk", b"", GRANTS))
    assert code_of(OURS.shown, signed, "POST /whip/talk") == "bad_ticket"


def test_a_ticket_publishes_and_does_nothing_else() -> None:
    shown = OURS.shown(OURS.ticket("/whip/talk", GRANTS), "/whip/talk")
    assert shown.grants.may == {"publish"}
    assert (shown.grants.session, shown.grants.holder) == (GRANTS.session, GRANTS.holder)
    assert 0 < shown.seconds <= 60
    assert code_of(OURS.shown, OURS.ticket("/whip/talk", GRANTS), "/whip/other") == "bad_ticket"


def test_a_ticket_tells_which_page_it_is_for() -> None:
    of_page = OURS.ticket("/whip/talk", GRANTS, "https://app.example")
    assert OURS.shown(of_page, "/whip/talk").origin == "https://app.example"
    assert OURS.shown(OURS.ticket("/whip/talk", GRANTS), "/whip/talk").origin == ""


def test_tickets_have_different_ids() -> None:
    one, other = (OURS.shown(OURS.ticket("/whip", GRANTS), "/whip").id for _ in range(2))
    assert one != other


def test_tickets_and_requests_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    with monkeypatch.context() as then:
        then.setattr(clock, "utc", lambda: long_ago)
        ticket, signed = OURS.ticket("/whip/talk", GRANTS), OURS.forwarded(ASKED)
    assert code_of(OURS.shown, ticket, "/whip/talk") == "ticket_expired"
    assert code_of(OURS.asker, signed, ASKED.method, ASKED.target) == "request_expired"
