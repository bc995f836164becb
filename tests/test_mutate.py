"""The runner of mutations changes what a row says, and tells what became of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutate
from tests.mutate import BROKEN, CAUGHT, LATE, STALE, SURVIVED, Mutation, Stale, mutated, rows, tried

CODE = """\
def taken(places: int, most: int, closed: bool) -> bool:
    if (
        places >= most
        or closed
    ):
        raise ValueError("full")
    return True
"""


def test_the_file_can_be_read_and_names_files_and_tests_that_are_there() -> None:
    text = (mutate.ROOT / "tests" / "mutations.md").read_text(encoding="utf-8")
    written = [line for line in text.splitlines() if line.startswith("| ") and "| mutation |" not in line]
    found = rows(text)
    assert [one.line for one in found] == written
    for one in found:
        assert any((mutate.ROOT / folder / one.file).is_file() for folder in mutate.FOLDERS), one.line
        assert one.tests, one.line
        assert all((mutate.ROOT / test.partition("::")[0]).is_file() for test in one.tests), one.line


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("if (places >= most or closed):", "if False:", "    if False:"),
        ("places >= most or closed", "closed", "         closed"),
        ("or closed", "nothing", "        "),
        ('raise ValueError("full")', "nothing", "        pass"),
        ('raise ValueError("full") return True', "return True", "        pass"),
        ("places >= most", "places >= most + 1", "        places >= most + 1"),
    ],
)
def test_what_is_named_is_replaced_and_nothing_else(old: str, new: str, line: str) -> None:
    result = mutated(CODE, old, new)
    assert line in result.splitlines()
    assert result.startswith("def taken(") and result.endswith("return True\n")


@pytest.mark.parametrize(
    ("old", "new"), [("places", "seats"), ("if opened:", "if False:"), ("return True", "return )")]
)
def test_a_row_that_does_not_fit_is_stale(old: str, new: str) -> None:
    with pytest.raises(Stale):
        mutated(CODE, old, new)


def test_a_row_is_read_with_its_bars() -> None:
    row = "| x | `core/a.py`: `a \\| b` -> `a` | `core/test_a.py::test_b` (once) |"
    [one] = rows(f"| a | b | c |\n|---|---|---|\n{row}\n")
    assert (one.what, one.file, one.old, one.new) == ("x", "core/a.py", "a | b", "a")
    assert one.tests == ("tests/core/test_a.py::test_b",)


@pytest.mark.parametrize(
    ("status", "outcome"), [(0, SURVIVED), (1, CAUGHT), (2, BROKEN), (4, STALE), (124, LATE)]
)
def test_the_outcome_is_that_of_the_tests_and_the_code_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, outcome: str
) -> None:
    code = tmp_path / "streamsvc" / "places.py"
    code.parent.mkdir()
    code.write_text(CODE)
    command = ("sh", "-c", f"grep -q False {code} && echo FAILED it && exit {status}")
    monkeypatch.setattr(mutate, "PYTEST", command)
    one = Mutation("", "places", "places.py", "if (places >= most or closed):", "if False:", ("tests/a.py",))
    assert tried(one, tmp_path, 30) == (outcome, "FAILED it")
    assert code.read_text() == CODE


def test_a_failed_test_is_seen_in_what_pytest_says_before_its_end() -> None:
    for said in (b"..F", b"F                    [  5%]\n", b"..\n.s.E\n"):
        assert mutate._FAILED.search(said), said
    for said in (b"", b"....", b"..\nFAIR\n", b"Failing\n"):
        assert not mutate._FAILED.search(said), said


def test_tests_that_do_not_end_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "streamsvc" / "places.py"
    code.parent.mkdir()
    code.write_text(CODE)
    monkeypatch.setattr(mutate, "PYTEST", ("sleep", "60"))
    one = Mutation("", "places", "places.py", "or closed", "nothing", ("60",))
    assert tried(one, tmp_path, 0.1)[0] == LATE
    assert code.read_text() == CODE
