"""The shape of the project, read from its source by `ast`: who may import whom, what mirrors what, how long a file is."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOUNDATION = {"types", "errors", "clock"}
SHARED = FOUNDATION | {"config", "heap", "hosts", "kept", "outgoing", "mailbox", "metrics", "store", "worker"}  # what every room may import
# Decisions without I/O, and the only files of ours that each may import.
PURE = {
    "sample": {"types"},
    "agreement": {"types"},
    "transcriber": {"agreement", "config", "types"},
    "budget": set(),
    "kept": {"types"},
    "captions": {"types", "kept"},
    "replace": {"types"},
    "language": {"types"},
    "outbox": {"captions"},
    "lines": {"types"},
    "context": {"types", "kept", "lines"},
    "words": set(),
    "search": {"types", "words"},
    "things": {"words"},
    "questions": {"words", "things"},
    "passages": {"types", "context", "questions", "search", "words"},
    "watch": {"types", "errors", "looks", "questions", "things", "words"},
    "looks": {"types", "context", "passages", "questions", "things", "words"},
    "places": {"types", "context", "looks", "passages", "questions", "things", "words"},
    "documents": {"lines", "words"},
    "pages": {"types", "context", "documents", "lines", "passages", "questions", "screens", "words"},
    "notes": {"types", "context", "passages", "questions", "search", "words"},
    "screens": {"types", "context", "passages", "questions", "words"},
    "order": {"types", "context", "looks", "passages", "questions", "screens"},
    "talks": {"types", "context", "passages", "questions", "words"},
    "findings": {"types", "context", "looks", "notes", "pages", "passages", "order", "places", "questions", "screens", "talks", "words"},
    "picture": {"types", "context", "findings", "pages", "passages", "questions"},
    "forms": {"types", "errors", "passages", "questions", "words"},
    "follow": {"types", "context", "looks", "passages", "questions", "words"},
    "fusion": {"types", "context", "findings", "lines", "passages", "questions", "words"},
    "schema": set(),
    "score": set(),
    "grade": {"score"},
    "figures": {"grade", "score", "things"},
    "ingest.jitter": {"types"},
    "ingest.sync": {"types"},
    "ingest.video": {"types"},
}
# Each room, and the files that are parts of it; a part may import the other parts.
ROOMS = {
    "ingest": {"ingest.whip", "ingest.peer", "ingest.source", "ingest.hooks", "ingest.sdp", "ingest.place", "ingest.container"}
    | {"ingest.jitter", "ingest.sync", "ingest.video", "ingest"},
    "decode": {"decode"},
    "encode": {"encode", "glance"},
    "transcribe": {"transcribe", "transcriber", "agreement", "language"},
    "translate": {"translate"},
    "reason": {"reason", "findings", "looks", "passages", "questions", "things", "search", "words", "context"}
    | {"notes", "pages", "documents", "lines", "picture", "places", "forms", "follow", "fusion", "seer", "talks", "order", "screens"}
    | {"narrator", "lull"},
    "retrieve": {"retrieve", "search", "words"},
    "publish": {"publish", "schema"},
    "reports": {"reports"},
    "inbox": {"inbox"},
    "push": {"push", "outbox", "captions"},
    "auth": {"auth", "rate"},
    "governor": {"governor", "budget"},
    "alerts": {"alerts", "topics", "watch", "looks", "passages", "search", "context", "lines", "questions", "things", "words"},
    "recording": {"recording", "score", "scenario", "published"},
}
WIRE = {"wire.doors", "wire.realtime", "wire.configuration", "wire.deepgram", "wire.prerecorded", "wire.line", "wire.socket"}
BENCH = {"bench", "trial", "rehearsal", "eval"}  # a run of the transcriber alone or of a whole session, and many of them
ABOVE = {"session", "ear", "eye", "mouth", "service", "server", "asking", "subtitles", "__main__"} | WIRE | BENCH  # they wire the rooms
TRULY_MIRRORLESS = {"streamsvc/__init__.py", "streamsvc/ingest/__init__.py", "streamsvc/wire/__init__.py"}
WHOLE = {"test_web.py", "test_browser.py", "test_kill.py", "test_architecture.py", "test_conftest.py"}  # they mirror no single source file
LINES = 450
# Longer than the rule allows, and by how much at most: these may shrink and may not grow. A new file does not go in here.
LONG = {"worker": 575, "server": 600}
CLOCK_READERS = {"streamsvc/clock.py", "streamsvc/worker.py"}  # worker.py: its child side has no event loop


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    """streamsvc/ingest/peer.py -> ingest.peer; a package is its folder's name."""
    return ".".join(path.relative_to(ROOT / "streamsvc").with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it; `from a import b` is both `a` and `a.b`."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


OURS = {_name(path): path for path in _sources("streamsvc") if path.name != "__init__.py" or path.parent.name == "ingest"}


def _ours(path: Path) -> set[str]:
    """Files of streamsvc that a file imports."""
    return {name.removeprefix("streamsvc.") for name in _imports(path) if name.removeprefix("streamsvc.") in OURS}


@pytest.mark.parametrize("name", sorted(FOUNDATION))
def test_the_foundation_imports_nothing_of_ours(name: str) -> None:
    assert not _ours(OURS[name])


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_files_import_only_pure_files_and_do_no_input_or_output(name: str) -> None:
    assert _ours(OURS[name]) <= PURE[name]
    roots = {imported.split(".")[0] for imported in _imports(OURS[name])}
    assert not roots & {"asyncio", "threading", "socket", "subprocess", "os", "pathlib", "httpx", "av", "time"}


def test_every_file_of_the_package_has_its_place_in_these_rules() -> None:
    placed = SHARED | set(PURE) | set().union(*ROOMS.values()) | ABOVE
    assert set(OURS) - placed == set()


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_no_room_imports_another_room_or_what_wires_it(room: str) -> None:
    for name in sorted(ROOMS[room]):
        strangers = _ours(OURS[name]) - ROOMS[room] - SHARED
        assert not strangers, f"{name} imports {sorted(strangers)}"


def test_what_rooms_share_imports_no_room() -> None:
    for name in sorted(SHARED):
        assert _ours(OURS[name]) <= SHARED, name


def test_only_the_session_and_what_sits_above_import_the_rooms() -> None:
    rooms = set().union(*ROOMS.values())
    for name, path in OURS.items():
        if name not in ABOVE | rooms | set(PURE):
            assert not _ours(path) & rooms, name
    assert not _ours(OURS["session"]) & ({"service", "server", "asking", "__main__"} | WIRE | BENCH)
    assert not _ours(OURS["service"]) & ({"server", "__main__"} | WIRE | BENCH)


def test_nobody_imports_engines_and_only_three_files_name_them() -> None:
    naming = set()
    for name, path in OURS.items():
        assert not any(imported.split(".")[0] == "engines" for imported in _imports(path)), name
        texts = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str))
        if any(text.startswith("engines.") and " " not in text for text in texts):
            naming.add(name)
    assert naming <= {"worker", "service", "__main__"}  # the child's entry, the table of roles, `models`


def test_engines_import_of_us_only_types_and_errors() -> None:
    for path in _sources("engines"):
        assert _ours(path) <= {"types", "errors"}, path.name


def test_only_the_clock_and_child_processes_read_the_time() -> None:
    readers = set()
    for path in _sources("streamsvc"):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
                if node.attr in {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"}:
                    readers.add(str(path.relative_to(ROOT)))
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                readers.add(str(path.relative_to(ROOT)))
    assert readers <= CLOCK_READERS


def test_every_source_file_has_its_mirror_test() -> None:
    missing = []
    for path in _sources("streamsvc", "engines"):
        relative = path.relative_to(ROOT)
        if str(relative) in TRULY_MIRRORLESS:
            continue
        folder = Path(*relative.parts[1:-1]) if relative.parts[0] == "streamsvc" else relative.parent
        stem = {"__main__": "main"}.get(path.stem, path.stem)
        if relative == Path("engines/__init__.py"):
            continue  # the contract: no code but one call, which test_telemetry.py watches
        if not (ROOT / "tests" / folder / f"test_{stem}.py").exists():
            missing.append(str(relative))
    assert missing == []


def test_every_test_file_mirrors_a_source_file() -> None:
    orphans = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        relative = path.relative_to(ROOT / "tests")
        if path.name in WHOLE:
            continue
        stem = {"main": "__main__"}.get(path.stem.removeprefix("test_"), path.stem.removeprefix("test_"))
        folder = ROOT if relative.parts[0] == "engines" else ROOT / "streamsvc"
        if not (folder / relative.parent / f"{stem}.py").exists() and not (ROOT / "load_tests" / f"{stem}.py").exists():
            orphans.append(str(relative))
    assert orphans == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in _sources("streamsvc", "engines", "load_tests")}
    long = {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONG.get(path.stem, LINES)}
    assert long == {}


def _project_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, timeout=30)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_project_file_names_a_path_of_one_machine_or_a_package_registry() -> None:
    words = ["/wo" + "rk/", "/tmp/" + "w/", "/ro" + "ot/", "pypi" + ".org", "files.python" + "hosted", "registry.npm" + "js"]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in _project_files()
        for word in words
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_the_top_level_folders_are_the_fixed_ones() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in _project_files() if len(path.relative_to(ROOT).parts) > 1}
    assert tops <= {"streamsvc", "engines", "tests", "deploy", "load_tests", ".ci"}
