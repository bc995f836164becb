"""How many sessions fit: by the cores, by the event loop's core, and by how late it is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from streamsvc.service.capacity import MAX_LAG, PRIOR, Cost, Estimate, Kind, Room, learnt, room

ALL: dict[Kind, int] = {"audio": 1, "audio_video": 1}


def fits(cost: Cost, counts: Mapping[Kind, int], *, lag: float = 0.0, cores: int = 2) -> Room:
    """Where these sessions have all been measured."""
    return room(learnt(Estimate(), cost, counts), cost, counts, lag, cores)


def test_the_cores_bound_how_many_fit_and_pictures_cost_more() -> None:
    found = fits(Cost(cpu=0.4, loop=0.01), {"audio": 2})
    assert found == Room({"audio": 7, "audio_video": 3}, "cpu")
    assert fits(Cost(cpu=0.4, loop=0.01), {"audio": 2}, cores=4).free["audio"] == 17


def test_on_many_cores_the_core_of_the_event_loop_bounds() -> None:
    found = fits(Cost(cpu=4.0, loop=0.4), {"audio_video": 8}, cores=64)
    assert found == Room({"audio": 16, "audio_video": 8}, "event_loop")


def test_nothing_fits_where_cores_or_event_loop_are_used_up_or_the_loop_is_late() -> None:
    assert set(fits(Cost(cpu=1.9, loop=0.01), {"audio": 4}).free.values()) == {0}
    assert set(fits(Cost(cpu=0.5, loop=0.85), {"audio": 4}, cores=64).free.values()) == {0}
    late = fits(Cost(cpu=0.1, loop=0.01), {"audio": 1}, lag=MAX_LAG * 1.1)
    assert late == Room({"audio": 0, "audio_video": 0}, "lag")
    assert fits(Cost(cpu=0.1, loop=0.01), {"audio": 1}, lag=MAX_LAG).free["audio"] > 0


def test_the_first_session_fits_in_any_case() -> None:
    assert fits(Cost(cpu=9.0, loop=1.0), {}, lag=9.0, cores=1).free == ALL
    assert room(Estimate(99.0, 99.0, True), Cost(), {}, 0.0, 1).free == ALL


def test_sessions_that_have_just_begun_count_as_much_as_one_costs() -> None:
    warm = learnt(Estimate(), Cost(cpu=0.4, loop=0.01), {"audio": 2})
    assert room(warm, Cost(cpu=0.4, loop=0.01), {"audio": 6}, 0.0, 2).free["audio"] == 3


def test_before_anything_is_measured_the_prior_stands() -> None:
    found = room(Estimate(), Cost(), {}, 0.0, 8)
    assert found.free["audio_video"] == min(
        int(7.6 / PRIOR["audio_video"].cpu), int(0.8 / PRIOR["audio_video"].loop)
    )
    assert learnt(Estimate(), Cost(cpu=3.0), {}) == Estimate(), "no session, nothing learnt"


def test_an_estimate_rises_soon_and_falls_slowly() -> None:
    talking, silent = Cost(cpu=0.3, loop=0.06), Cost(cpu=0.06, loop=0.012)
    estimate = learnt(Estimate(), talking, {"audio": 2})
    assert [estimate.cpu, estimate.loop] == pytest.approx([1.0, 1.0])

    def after(times: int, cost: Cost, since: Estimate) -> list[float]:
        for _ in range(times):
            since = learnt(since, cost, {"audio": 2})
        return [since.cpu, since.loop]

    low = Estimate(0.2, 0.2, measured=True)
    assert after(1, silent, estimate) == pytest.approx([0.96, 0.96])
    assert after(100, silent, estimate) == pytest.approx([0.2, 0.2], abs=0.01)
    assert after(1, talking, low) == pytest.approx([0.4, 0.4]), "one peak is not what a session costs"
    assert min(after(10, talking, low)) > 0.95


def test_a_mix_of_kinds_is_told_apart_by_what_they_cost_in_general() -> None:
    cost = Cost(
        PRIOR["audio"].cpu + PRIOR["audio_video"].cpu, PRIOR["audio"].loop + PRIOR["audio_video"].loop
    )
    estimate = learnt(Estimate(), cost, ALL)
    assert [estimate.cpu, estimate.loop] == pytest.approx([1.0, 1.0])
