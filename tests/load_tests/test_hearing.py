"""Shared options: settings from the command line, and the hear role on either clock."""

from __future__ import annotations

import argparse

import pytest

from load_tests.hearing import add_arguments, hearing, settings_of
from streamsvc.core.config import Hear, Settings
from streamsvc.core.errors import ConfigError
from streamsvc.evaluation.transcriber_run import play
from tests.fakes.hear_engine import NAME, spoken

SETTINGS = Settings(hear=Hear(model="script.en"))


def chosen(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_options_say_the_model_by_its_short_name_and_any_setting_of_hearing() -> None:
    hear = settings_of(chosen("--model", "base", "--hear", "step=1.2", "--hear", "beam=1")).hear
    assert (hear.model, hear.step, hear.beam, hear.language) == ("whisper-base", 1.2, 1, "en")


def test_a_misspelt_setting_is_an_error() -> None:
    with pytest.raises(ConfigError):
        settings_of(chosen("--hear", "beams=1"))


def test_on_the_virtual_clock_one_role_hears_one_talk_after_the_other() -> None:
    with hearing(SETTINGS, live=False, engine=NAME) as (runner, role, worker):
        assert worker is None
        for words in (3, 5):
            heard = runner.run(play(spoken(words, 1.5), role, SETTINGS.hear))
            assert [word.text.lower() for word in heard.stable] == [
                f"w{number}" for number in range(1, words + 1)
            ]


def test_live_runs_use_the_worker_process_and_end_it() -> None:
    with hearing(SETTINGS, live=True, engine=NAME) as (runner, role, worker):
        assert worker is not None
        heard = runner.run(play(spoken(3, 1.0), role, SETTINGS.hear, live=False))
        assert [word.text.lower() for word in heard.stable] == ["w1", "w2", "w3"]
