"""The shape of the project, read from its source by `ast`.

Who may import whom, what mirrors what, how long a file is.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# The import table: package -> what its files may import besides their own package. A dotted name
# is one module.
TABLE: dict[str, set[str]] = {
    "core": set(),
    "workers": {"core"},
    "ingest": {"core"},
    "timeline": {"core", "workers"},
    "speech": {"core", "workers", "timeline", "ingest.decode", "ingest.decoders"},
    "vision": {"core", "workers", "timeline", "ingest.decode", "ingest.decoders"},
    "events": {"core", "speech.captions"},
    "answers": {"core", "workers", "timeline", "vision", "events"},
    "service": {"core", "workers", "ingest", "timeline", "speech", "vision", "events", "answers"},
    "evaluation": {
        "core",
        "workers",
        "ingest",
        "timeline",
        "speech",
        "vision",
        "events",
        "answers",
        "service",
    },
    "__main__": {
        "core",
        "workers",
        "ingest",
        "timeline",
        "speech",
        "vision",
        "events",
        "answers",
        "service",
        "evaluation",
    },
}
ENGINES_MAY_IMPORT = {"core.types", "core.errors"}  # a worker process loads as little of ours as it can
NAME_ENGINES = {
    "workers.child",
    "service.engine_table",
    "evaluation.commands",
    "__main__",
}  # the only files that name engines, by dotted name
# Modules that decide without I/O: what they import does none.
PURE = {
    "answers.arguments",
    "answers.deadline",
    "answers.example_votes",
    "answers.exchanges",
    "answers.extractive_reader",
    "answers.finding",
    "answers.grounding",
    "answers.intents",
    "answers.language",
    "answers.response_schema",
    "answers.route",
    "answers.structured_output",
    "answers.times",
    "answers.tools",
    "answers.tools.boxes",
    "answers.tools.layout",
    "answers.tools.matching",
    "answers.tools.occurrences",
    "answers.tools.order",
    "answers.tools.relation",
    "answers.tools.screen",
    "answers.tools.sights",
    "answers.tools.speech",
    "answers.tools.summary",
    "answers.tools.wording",
    "answers.watch_conditions",
    "answers.watch_evaluation",
    "answers.watch_intents",
    "core.compact_words",
    "core.degradation",
    "core.latency",
    "core.types",
    "evaluation.answer_figures",
    "evaluation.figures",
    "evaluation.grade_answers",
    "evaluation.pooling",
    "evaluation.report",
    "evaluation.score_captions",
    "events.caption_posts",
    "events.hls_captions",
    "events.hls_master",
    "events.replay",
    "events.schema",
    "ingest.depacketizer",
    "ingest.first_timestamp",
    "ingest.jitter",
    "ingest.playlist",
    "ingest.rtp_clock",
    "ingest.srt_stream_id",
    "ingest.stream_choice",
    "ingest.timestamps",
    "service.coverage",
    "service.export",
    "service.ingest_stats",
    "service.load_policy",
    "service.question_history",
    "speech.agreement",
    "speech.audio_buffer",
    "speech.backlog",
    "speech.captions",
    "speech.hypothesis",
    "speech.language_id",
    "speech.replacements",
    "speech.segmenter",
    "speech.stable_words",
    "speech.vad",
    "speech.vocabulary",
    "timeline.centrality",
    "timeline.keyframe_history",
    "timeline.lines",
    "timeline.notes",
    "timeline.passages",
    "timeline.ranking",
    "timeline.screen_history",
    "timeline.text",
    "timeline.text_tracks",
    "timeline.timeline",
    "timeline.transcript",
    "timeline.window",
    "timeline.word_lists",
    "vision.frame_difference",
    "vision.keyframes",
    "vision.label_tables",
    "vision.labels",
    "vision.scenes",
}
INPUT_AND_OUTPUT = {"asyncio", "threading", "socket", "subprocess", "os", "pathlib", "httpx", "av", "time"}
# All but the first run in threads and processes without an event loop.
CLOCK_READERS = {"core.clock", "workers.child", "ingest.source_channel", "ingest.srt_child"}
WITHOUT_MIRROR = {"engines"}  # the contract alone; test_telemetry.py watches its one call
WHOLE = {
    "test_web.py",
    "test_fuzz.py",
    "test_page.py",
    "test_players.py",
    "test_browser.py",
    "test_architecture.py",
    "test_conftest.py",
    "test_mutate.py",
    "test_proxy.py",
    "test_deploy.py",
    "test_wheel.py",
    "test_readme.py",
}  # they mirror no single source file
LINES = 400


def _sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _name(path: Path) -> str:
    """Dotted name of a file below the root.

    A package is its folder's name: streamsvc/ingest/peer.py -> streamsvc.ingest.peer.
    """
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imported(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it; `from a import b` is both `a` and `a.b`."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


OURS = {_name(path).removeprefix("streamsvc."): path for path in _sources("streamsvc")}
ENGINES = {_name(path): path for path in _sources("engines")}


def _ours(path: Path) -> set[str]:
    """Modules of streamsvc that a file imports, without "streamsvc.".

    Of a package and its module, the module alone.
    """
    found = {
        name.removeprefix("streamsvc.") for name in _imported(path) if name.startswith("streamsvc.")
    } & set(OURS)
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def _package(name: str) -> str:
    return name.split(".")[0]


def upward_imports() -> list[str]:
    """Imports that TABLE does not allow, as "importer -> imported"."""
    found = []
    for name, path in OURS.items():
        if name == "streamsvc":
            continue
        allowed = TABLE.get(_package(name), set()) | {_package(name)}
        found += [
            f"{name} -> {other}"
            for other in sorted(_ours(path))
            if other not in allowed and _package(other) not in allowed
        ]
    return found


def package_edges() -> set[tuple[str, str]]:
    """Pairs of packages of which the first imports the second."""
    pairs = {
        (_package(name), _package(other))
        for name, path in OURS.items()
        if name != "streamsvc"
        for other in _ours(path)
    }
    return {(one, other) for one, other in pairs if one != other}


def circles() -> list[set[str]]:
    """Groups of modules that import each other, directly or through others.

    Imports inside functions count too.
    """
    graph = {
        f"streamsvc.{name}": {f"streamsvc.{other}" for other in _ours(path)}
        for name, path in OURS.items()
        if name not in TABLE
    }
    graph |= {
        name: {other for other in _imported(path) if other in ENGINES and other != "engines"}
        for name, path in ENGINES.items()
    }
    reach = {name: _reachable(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if name in reach.get(other, ()))
        for name in graph
        if name in reach[name]
    }
    return [set(group) for group in groups]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return seen


def test_imports_follow_the_table() -> None:
    assert upward_imports() == []


def test_every_module_lies_in_a_package_of_the_table() -> None:
    assert {_package(name) for name in OURS} - set(TABLE) == {"streamsvc"}


def test_no_modules_import_each_other() -> None:
    assert circles() == []


def test_private_names_stay_in_their_module() -> None:
    found = []
    for path in _sources("streamsvc", "engines", "load_tests"):
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
                "streamsvc",
                "engines",
                "load_tests",
            ):
                found += [
                    f"{_name(path)}: {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name.startswith("_")
                ]
    assert found == []


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules_do_no_input_or_output(name: str) -> None:
    graph = {module: _ours(path) for module, path in OURS.items()}
    for module in {name, *_reachable(graph, name)} - set(TABLE):
        roots = {imported.split(".")[0] for imported in _imported(OURS[module])}
        assert not roots & INPUT_AND_OUTPUT, module


def test_engines_are_imported_by_workers_alone_and_named_in_four_files() -> None:
    naming = set()
    for name, path in OURS.items():
        assert not any(imported.split(".")[0] == "engines" for imported in _imported(path)), name
        texts = (
            node.value
            for node in ast.walk(_tree(path))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        if any(text.startswith("engines.") and " " not in text for text in texts):
            naming.add(name)
    assert naming <= NAME_ENGINES


def test_engines_import_of_us_only_types_and_errors() -> None:
    for path in ENGINES.values():
        assert _ours(path) <= ENGINES_MAY_IMPORT, path.name


def test_only_the_clock_and_child_processes_read_the_time() -> None:
    readers = set()
    for name, path in OURS.items():
        for node in ast.walk(_tree(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "time"
            ):
                if node.attr in {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter"}:
                    readers.add(name)
            elif isinstance(node, ast.ImportFrom) and node.module == "time":
                readers.add(name)
    assert readers <= CLOCK_READERS


def _mirror(path: Path) -> Path:
    """Where the test of a source file is.

    streamsvc/a/b.py -> tests/a/test_b.py, engines/c.py -> tests/engines/test_c.py.
    """
    relative = (
        path.relative_to(ROOT / "streamsvc")
        if path.is_relative_to(ROOT / "streamsvc")
        else path.relative_to(ROOT)
    )
    return ROOT / "tests" / relative.parent / f"test_{'main' if path.stem == '__main__' else path.stem}.py"


def test_every_source_file_has_its_mirror_test() -> None:
    sources = [path for path in _sources("streamsvc", "engines") if path.name != "__init__.py"]
    assert [str(path.relative_to(ROOT)) for path in sources if not _mirror(path).exists()] == []


def test_every_test_file_mirrors_a_source_file() -> None:
    mirrors = {_mirror(path) for path in _sources("streamsvc", "engines", "load_tests")}
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if path.name not in WHOLE]
    assert [str(path.relative_to(ROOT)) for path in sorted(tests) if path not in mirrors] == []


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        _name(path): len(path.read_text(encoding="utf-8").splitlines())
        for path in _sources("streamsvc", "engines", "load_tests")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


def _project_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_no_project_file_names_a_path_of_one_machine_or_a_package_registry() -> None:
    words = [
        "/wo" + "rk/",
        "/tmp/" + "w/",
        "/ro" + "ot/",
        "pypi" + ".org",
        "files.python" + "hosted",
        "registry.npm" + "js",
    ]
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in _project_files()
        for word in words
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert found == []


def test_the_top_level_folders_are_the_fixed_ones() -> None:
    tops = {
        path.relative_to(ROOT).parts[0] for path in _project_files() if len(path.relative_to(ROOT).parts) > 1
    }
    assert tops <= {"streamsvc", "engines", "tests", "deploy", "load_tests", ".ci"}
