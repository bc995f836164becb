"""What the process of a source costs: both ways read the whole clip, and both are told."""

from __future__ import annotations

import pytest

from load_tests.source_sandbox import main


@pytest.mark.load
async def test_a_clip_is_read_within_the_service_and_apart(capsys: pytest.CaptureFixture[str]) -> None:
    await main(seconds=1, turns=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["within the service", "apart, confined"]
    assert all(float(line.split(" CPU s")[0].split()[-1]) > 0 for line in lines)
