"""A module run from changed source, to show that a test would notice the change."""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any


def executed(module: ModuleType, tree: ast.Module, **given: Any) -> ModuleType:
    """A module's source, changed, run as a module."""
    made = ModuleType(module.__name__)
    sys.modules[made.__name__], before = made, sys.modules[made.__name__]  # dataclasses look there
    try:
        exec(compile(ast.unparse(tree), "mutant", "exec"), made.__dict__)
    finally:
        sys.modules[made.__name__] = before
    made.__dict__.update(given)
    return made
