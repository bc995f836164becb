"""Take protections out one by one, and see that a test fails: `python -m tests.mutate tests/mutations.md`.

A row of the file is `| protection | `FILE`: `OLD` -> `NEW` | `TEST TEST` |`: FILE below streamsvc/ or
engines/, tests below tests/, a bar is `\\|`. OLD is found whatever its spaces and line ends are; what OLD and
NEW begin and end with alike stays as it is. `nothing` as NEW deletes OLD.

Outcomes: caught (a test failed), survived, late (no end within --seconds), broken (pytest ended otherwise
than by a failed test), stale (OLD is not there once, the code is none then, or there is no such test).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("streamsvc", "engines", ".")
CAUGHT, SURVIVED, LATE, BROKEN, STALE = "caught", "survived", "late", "broken", "stale"
_ROW = re.compile(
    r"\| (?P<what>.+?) \| `(?P<file>[^`]+)`: `(?P<old>.+?)` -> `(?P<new>.*?)` \| (?P<tests>.*) \|"
)
# Of exit statuses of pytest, and of what ends it after its time (timeout, SIGKILL); else broken.
_OUTCOMES = {0: SURVIVED, 1: CAUGHT, 4: STALE, 5: STALE, 124: LATE, 137: LATE}
_FAILED = re.compile(rb"^[.sx]*[FE](\s|$)", re.MULTILINE)  # in what pytest -x says of its progress
PYTEST = (sys.executable, "-m", "pytest", "-x", "-n0", "-p", "no:cacheprovider")


class Stale(Exception):
    """A row does not fit the code any more."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One row. `line`: as it stands in the file."""

    line: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def rows(text: str) -> list[Mutation]:
    """The mutations of a file, in its order."""
    found = []
    for line in text.splitlines():
        row = _ROW.fullmatch(line)
        if row is not None:
            tests = re.findall(r"`([^`]+)`", row["tests"])
            names = tuple(f"tests/{name}" for name in (tests[0].split() if tests else ()))
            old, new = (row[name].replace("\\|", "|") for name in ("old", "new"))
            found.append(Mutation(line, row["what"], row["file"], old, new, names))
    return found


def mutated(code: str, old: str, new: str) -> str:
    """The code with OLD replaced by NEW. Raises Stale."""
    before, after = old.split(), [] if new == "nothing" else new.split()
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    middle = before[head : len(before) - tail]
    parts = (before[:head], middle, before[len(before) - tail :])
    pattern = "".join(f"({_loose(part)})" for part in parts)
    places = list(re.finditer(pattern, code))
    if len(places) != 1:
        raise Stale(f"it is there {len(places)} times")
    start, end = places[0].span(2)
    kept = code[start:end]
    left, right = kept[: len(kept) - len(kept.lstrip())], kept[len(kept.rstrip()) :]
    text = " ".join(after[head : len(after) - tail])
    if not kept:
        left = " "
    for middle_text in (text,) if text else ("pass", ""):  # of a statement, of a part of one
        result = code[:start] + left + middle_text + right + code[end:]
        with contextlib.suppress(SyntaxError):
            compile(result, "mutated", "exec", dont_inherit=True)
            return result
    raise Stale("what comes of it is no Python")


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items they begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _loose(words: Sequence[str]) -> str:
    """A pattern of words, whatever stands between them, and inside brackets, of spaces and line ends."""
    if not words:
        return ""
    patterns = []
    for word in words:
        escaped = re.escape(word)
        escaped = re.sub(r"(\\\(|\\\[|\\\{)", r"\1\\s*", escaped)
        patterns.append(re.sub(r"(\\\)|\\\]|\\\})", r",?\\s*\1", escaped))
    return r"\s*" + r"(?:\s|#.*\n)+".join(patterns)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A copy of what is committed, within the block."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        tree = Path(folder) / "tree"
        git = ("git", "-C", str(ROOT), "worktree")
        subprocess.run((*git, "add", "--quiet", "--detach", str(tree), "HEAD"), check=True)
        try:
            yield tree
        finally:
            subprocess.run((*git, "remove", "--force", str(tree)), check=True)


def tried(mutation: Mutation, tree: Path, seconds: float, prefix: Sequence[str] = ()) -> tuple[str, str]:
    """Run the tests of a mutation in a copy, which is as before then. Returns the outcome and what to say.

    Args:
        mutation: taken from a file.
        tree: see `scratch`.
        seconds: for its tests.
        prefix: of the command that runs them, such as nice.
    """
    path = next((one for one in (tree / name / mutation.file for name in FOLDERS) if one.is_file()), None)
    if path is None or not mutation.tests:
        return STALE, "there is no such file" if path is None else "it names no test"
    code = path.read_text(encoding="utf-8")
    try:
        _write(path, mutated(code, mutation.old, mutation.new))
        return _tested((*prefix, *PYTEST, *mutation.tests), tree, seconds)
    except Stale as why:
        return STALE, str(why)
    finally:
        _write(path, code)


def _write(path: Path, code: str) -> None:
    """Write a module; of one that is changed twice within a second the old bytecode would be taken."""
    path.write_text(code, encoding="utf-8")
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def _tested(command: Sequence[str], tree: Path, seconds: float) -> tuple[str, str]:
    environment = os.environ | {"PYTHONPATH": str(tree)}
    process = subprocess.Popen(
        command,
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        has_failed = _FAILED.search(said) is not None  # and what it left behind, such as a thread, goes on
        return CAUGHT if has_failed else LATE, f"no end within {seconds:g} s"
    lines = said.decode(errors="replace").splitlines()
    failed = next((line for line in lines if line.startswith(("FAILED ", "ERROR "))), "")
    return _OUTCOMES.get(process.returncode, BROKEN), failed or (lines[-1] if lines else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try mutations and print what became of each; 1 where one was not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="rows that hold this text (repeatable)"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N of them")
    parser.add_argument("--limit", type=int, default=None, metavar="N", help="then N rows at most")
    parser.add_argument("--seconds", type=float, default=120.0, help="for the tests of one row")
    parser.add_argument("--prefix", default="", metavar="COMMAND", help="before pytest, such as `nice -n 19`")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # the copy is removed
    wanted = options.only or [""]
    every = rows(options.file.read_text(encoding="utf-8"))
    chosen = [one for one in every if any(text in one.line for text in wanted)]
    counts: dict[str, int] = {}
    with scratch() as tree:
        for mutation in chosen[options.skip :][: options.limit]:
            outcome, said = tried(mutation, tree, options.seconds, options.prefix.split())
            counts[outcome] = counts.get(outcome, 0) + 1
            print(f"{outcome}\t{mutation.what}\t{mutation.file}\t{said}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) or "no such row")
    return int(any(outcome != CAUGHT for outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
