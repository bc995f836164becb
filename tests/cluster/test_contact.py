"""Whether Redis answers, as all sessions of a node see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamsvc.cluster.contact import Contact
from streamsvc.core import metrics


class Session:
    async def catch_up(self) -> None: ...

    async def abandon(self) -> None: ...


@pytest.fixture
def contact() -> Iterator[Contact]:
    before = metrics.REGISTRY.get_sample_value("streamsvc_cluster_redis_up") or 0.0
    yield Contact(lambda _: None)
    metrics.cluster_redis_up.set(before)


def gauge() -> float | None:
    return metrics.REGISTRY.get_sample_value("streamsvc_cluster_redis_up")


def test_an_outage_is_told_by_a_gauge(contact: Contact) -> None:
    contact.found()
    assert gauge() == 1
    contact.lost()
    seen = [(contact.up, gauge())]
    contact.found()
    seen.append((contact.up, gauge()))
    assert seen == [(False, 0), (True, 1)]


def test_what_is_behind_is_copied_once_redis_answers(contact: Contact) -> None:
    contact.lost()
    contact.fell_behind("a", Session())
    assert not contact.work.is_set()
    contact.found()
    assert contact.work.is_set()


def test_what_falls_behind_while_redis_answers_is_copied_at_once(contact: Contact) -> None:
    contact.found()
    assert not contact.work.is_set()
    contact.fell_behind("a", Session())
    assert contact.work.is_set()


def test_an_outage_is_logged_once(contact: Contact, capsys: pytest.CaptureFixture[str]) -> None:
    contact.lost()
    contact.lost()
    assert capsys.readouterr().out.count("failover is off") == 1


def test_an_earlier_copy_of_a_session_does_not_speak_for_a_later_one(contact: Contact) -> None:
    earlier, later = Session(), Session()
    contact.fell_behind("a", later)
    contact.caught_up("a", earlier)
    assert contact.behind == {"a": later}
    contact.caught_up("a", later)
    assert contact.behind == {}
