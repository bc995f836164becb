"""Memory over time: the slope is told, a leak is found, connections leave nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from load_tests.looped import looped
from load_tests.soak import Figures, Round, Sample, churn, server_in, slope, soak, table, verdict

SPEECH = Path(__file__).parents[1] / "fixtures" / "canary.ogg"


def samples(slope_mb_h: float, descriptors: int = 20, count: int = 60) -> list[Sample]:
    return [
        Sample(60.0 * n, 100 + slope_mb_h * n / 60 + (50 if n < 10 else 0), 20 if n < 50 else descriptors, 9)
        for n in range(count)
    ]


def test_the_slope_is_that_after_the_warm_up() -> None:
    assert slope(samples(3.0), 600) == pytest.approx(3.0)
    assert slope(samples(3.0), 3500) is None


def test_growth_of_memory_and_descriptors_is_wrong() -> None:
    assert verdict(Figures(4, {"serve": samples(7.9)}), 600) == []
    assert verdict(Figures(4, {"serve": samples(9.0)}), 600) == ["serve grows by 2.2 MB an hour and session"]
    assert verdict(Figures(4, {"serve": samples(0.0, 22)}), 600) == [
        "serve has 2 descriptors more at the end"
    ]
    assert verdict(Figures(4, {"serve": samples(0.0)}, failed=["see has ended"]), 600) == ["see has ended"]
    assert "+9.0 (+2.2 a session)" in table(Figures(4, {"serve": samples(9.0)}), 600)


def test_growth_of_the_process_of_a_source_is_wrong() -> None:
    found = Figures(4, {"serve": samples(0.0), "source 1": samples(1.9), "source 2": samples(2.1)})
    assert verdict(found, 600) == ["the process of source 2 grows by 2.1 MB an hour"]


def test_what_the_second_round_of_connections_leaves_behind_is_wrong() -> None:
    first, second = Sample(1.0, 100.0, 20, 9), Sample(2.0, 106.0, 21, 9)
    found = Figures(1, {"serve": samples(0.0)}, [Round("offers", first), Round("offers", second)])
    assert verdict(found, 600) == [
        "offers: 6.0 MB more after the second round",
        "offers: 1 descriptors more after the second round",
    ]


async def change(address: str) -> None:
    """Change all sessions again and again: each time an event."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as client:
        while True:
            for one in (await client.get("/v1/sessions")).json()["sessions"]:
                await client.patch(f"/v1/sessions/{one['id']}", json={"vocabulary": ["Ada"]})
            await asyncio.sleep(0.02)


@pytest.mark.load
@pytest.mark.parametrize("leak", [False, True])
async def test_a_leak_is_found(leak: bool, tmp_path: Path) -> None:
    server, found = server_in(tmp_path, 1, leak=leak), Figures(1)
    await asyncio.to_thread(server.start, models=False)
    try:
        if leak:
            changing = asyncio.create_task(change(server.address))  # as events of models do
            await soak(server, found, looped(SPEECH, tmp_path / "played.ogg", 60), 6.0)
            changing.cancel()
        else:
            await churn(server, found, 2, 0.2)
    finally:
        await asyncio.to_thread(server.kill)
    if leak:
        grown = slope(found.samples["serve"], 0.0)
        assert grown is not None and grown > 100
        assert any(line.startswith("serve grows by") for line in verdict(found, 0.0))
    else:
        ways = ("subscribers", "WHIP offers", "sessions")
        assert [one.what for one in found.rounds] == [way for way in ways for _ in range(2)]
