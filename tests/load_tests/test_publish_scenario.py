"""A scenario is read as it is written, or refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests import publish_scenario
from load_tests.publish_scenario import Scenario, known, read

FOLDER = Path(publish_scenario.__file__).parent / "scenarios"
PLAIN = 'name = "a"\nprofile = "ingest"\nramp = [1]\n'


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_the_scenarios_of_the_project_are_valid(path: Path) -> None:
    try:
        read(path)
    except SystemExit as error:
        assert "does not exist" in str(error)  # real recordings are not part of the project


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ("steps = 3\n", "steps"),
        ("seconds = 1\n", "seconds"),
        ("seconds = [\n", "no TOML"),
        ('[media]\nspeech = "none.wav"\n', "none.wav does not exist"),
        ('link = "5g"\n', "link"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_named(tmp_path: Path, more: str, wrong: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(PLAIN + more)
    with pytest.raises(SystemExit, match=wrong):
        read(path)


def test_real_models_need_words(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(PLAIN.replace("ingest", "all"))
    with pytest.raises(SystemExit, match=r"media\.speech"):
        read(path)
    with pytest.raises(SystemExit, match="No such file"):
        read(tmp_path / "b.toml")


def test_words_beside_a_recording_are_known_up_to_a_time(tmp_path: Path) -> None:
    words = [{"w": "Stone-cutter", "end": 1.0}, {"w": "went", "end": 2.5}]
    (tmp_path / "a.json").write_text(f'{{"words": {words}}}'.replace("'", '"'))
    found = known(tmp_path / "a.wav", 2.0)
    assert (found.words, found.ends) == (("stone", "cutter"), (1.0, 1.0))
    with pytest.raises(SystemExit, match="not known"):
        known(tmp_path / "b.wav", 2.0)


def test_pictures_made_here_change_at_the_times_that_are_told(tmp_path: Path) -> None:
    media = {"width": 64, "height": 48, "fps": 5}
    scenario = Scenario.model_validate(
        {"name": "a", "profile": "ingest", "ramp": [1], "seconds": 7, "media": media}
    )
    made = publish_scenario.played(scenario, tmp_path)
    assert made.changes == (6.0,)
    assert made.media.video is not None and made.media.audio is not None
    assert len(made.reference.words) > 5 and made.reference.ends[-1] <= 5.5
    alone = scenario.model_copy(update={"media": scenario.media.model_copy(update={"pictures": False})})
    assert publish_scenario.played(alone, tmp_path).media.video is None
