"""What waits for the next write."""

from __future__ import annotations

import pytest

from streamsvc.cluster.pending import FRAMES, Aside, Pending
from streamsvc.cluster.shared_log import QUESTIONS
from streamsvc.core import metrics


def dropped() -> float:
    return metrics.REGISTRY.get_sample_value("streamsvc_cluster_dropped_total", {"kind": "thumbnail"}) or 0.0


def test_all_that_waits_is_taken_once() -> None:
    pending = Pending({"name": "lecture"})
    pending.put_frame(1.0, b"a")
    pending.put_question(("q", "", "", None, "what?"))
    assert pending.facts_wait
    assert pending.take() == Aside({"name": "lecture"}, (("q", "", "", None, "what?"),), ((1.0, b"a"),))
    assert pending.take() == Aside()
    assert not pending.facts_wait


def test_what_could_not_be_written_comes_before_what_came_since() -> None:
    pending = Pending({"name": "lecture", "epoch": "old"})
    pending.put_frame(1.0, b"a")
    pending.put_question(("q", "", "", None, "first"))
    taken = pending.take()
    pending.put_frame(2.0, b"b")
    pending.put_question(("r", "", "", None, "second"))
    pending.put_facts({"epoch": "new"})
    pending.put_back(taken)
    again = pending.take()
    assert again.facts == {"name": "lecture", "epoch": "new"}
    assert [asked[4] for asked in again.questions] == ["first", "second"]
    assert [at for at, _ in again.frames] == [1.0, 2.0]


def test_thumbnails_are_bounded_and_the_oldest_are_counted_as_dropped() -> None:
    pending, before = Pending({}), dropped()
    for at in range(FRAMES + 3):
        pending.put_frame(float(at), b"")
    taken = pending.take()
    assert [at for at, _ in taken.frames] == [float(at) for at in range(3, FRAMES + 3)]
    assert dropped() == before + 3
    pending.put_frame(99.0, b"")
    pending.put_back(taken)
    assert len(pending.take().frames) == FRAMES
    assert dropped() == before + 4


@pytest.mark.parametrize("again", [False, True])
def test_facts_and_questions_are_written_again_where_redis_has_lost_them(again: bool) -> None:
    pending = Pending({"name": "lecture"})
    for number in range(QUESTIONS + 2):
        pending.put_question((f"q{number}", "", "", None, "what?"))
    pending.take()
    pending.put_facts({"epoch": "new"})
    if again:
        pending.all_again()
    taken = pending.take()
    assert taken.facts == {"epoch": "new"} | ({"name": "lecture"} if again else {})
    assert [asked[0] for asked in taken.questions] == (
        [f"q{number}" for number in range(2, QUESTIONS + 2)] if again else []
    )


def test_questions_that_wait_are_bounded() -> None:
    pending = Pending({})
    for number in range(QUESTIONS + 2):
        pending.put_question((f"q{number}", "", "", None, "what?"))
    assert [asked[0] for asked in pending.take().questions] == [
        f"q{number}" for number in range(2, QUESTIONS + 2)
    ]
