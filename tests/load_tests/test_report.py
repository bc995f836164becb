"""The end of a load test: its table, its figures, what it missed, its exit status."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from load_tests.report import finish, parser


@dataclass(frozen=True, slots=True)
class Figures:
    late: float
    ended: Counter[str] = field(default_factory=Counter)


@pytest.mark.parametrize(
    ("wrong", "status", "said"),
    [
        ([], 0, "All promises were kept."),
        (["it was late", "a is lost"], 1, "Wrong: it was late.\nWrong: a is lost."),
    ],
)
def test_what_was_missed_is_told_after_the_table_and_by_the_status(
    wrong: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    with pytest.raises(SystemExit) as ended:
        finish("a table", {"all": [Figures(1.5, Counter(a=2))]}, wrong, path)
    assert ended.value.code == status
    assert capsys.readouterr().out == f"a table\n{said}\n"
    assert json.loads(path.read_text()) == {"all": [{"late": 1.5, "ended": {"a": 2}}]}


def test_figures_are_written_where_they_are_wanted_alone(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        finish("", object(), [], None)
    with pytest.raises(TypeError, match="object is no figure"):
        finish("", object(), [], tmp_path / "figures.json")


def test_all_have_the_option_of_the_figures_and_tell_the_docstring_as_it_is() -> None:
    made = parser("one line\n\n    a command")
    assert made.parse_args(["--json", "a"]).json == Path("a")
    assert made.parse_args([]).json is None
    assert "\n    a command" in made.format_help()
