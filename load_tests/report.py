"""How load tests with promises end: a table, figures as JSON, what was missed, and the exit status."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn


def parser(description: str | None) -> argparse.ArgumentParser:
    """Options that all of them have: `--json`, `--help` with the module's docstring."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--json", type=Path, help="where the figures go")
    return made


def finish(table: str, figures: Any, wrong: Sequence[str], to: Path | None) -> NoReturn:
    """Print a table and what was promised and missed, write the figures, and exit: 1 if anything was missed.

    Args:
        table: what is printed first.
        figures: dataclasses, and lists, tuples and dicts of them.
        wrong: a line for each promise that was missed.
        to: the file of the figures; None: they are not written.
    """
    print(table)
    if to is not None:
        to.write_text(json.dumps(figures, default=_plain))
    print("\n".join(f"Wrong: {line}." for line in wrong) or "All promises were kept.", flush=True)
    sys.exit(bool(wrong))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: getattr(value, one.name) for one in fields(value)}  # asdict breaks a Counter
    raise TypeError(f"{type(value).__name__} is no figure")
