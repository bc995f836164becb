"""The front door: short, its example is the file it names, and its links lead somewhere."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest

from tests.builders.service import open_session, serving

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "*/README.md", "deploy/decisions.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 130
    assert len(README.encode()) <= 8_000


def test_the_example_in_the_readme_is_the_file() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert example == (ROOT / "deploy" / "subscribe.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_to_files(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    relative = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in relative if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(("name", "said"), [("0.wrong", "there is no session '0.wrong'"), (None, "")])
async def test_the_example_runs_and_tells_a_wrong_session_in_one_line(
    tmp_path: Path, name: str | None, said: str
) -> None:
    async with serving(tmp_path) as (_, place, client):
        session = name or await open_session(client)
        example = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ROOT / "deploy" / "subscribe.py"), f"http://{place}", session, "Anything?"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await example.communicate()
    assert errors.decode().splitlines() == ([said] if said else [])
    assert (example.returncode, b"answer.done" in out) == ((1, False) if said else (0, True))
