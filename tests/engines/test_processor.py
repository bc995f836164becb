"""The CPU's features."""

from __future__ import annotations

import sys

import pytest

from engines.processor import flags


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/cpuinfo is Linux's")
def test_linux_tells_the_features_in_one_line() -> None:
    name, _, features = flags().partition(":")
    assert name.strip() in ("flags", "Features")
    assert len(features.split()) > 5
