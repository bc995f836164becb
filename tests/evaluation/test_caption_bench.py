"""Recordings become figures, and the figures are streambench's."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engines import asr
from streamsvc.core.config import Hear, Models, Settings
from streamsvc.core.errors import ConfigError, WorkerError
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation import caption_bench, score_captions
from streamsvc.evaluation.caption_bench import Plan, captions, figures, reference_of, table
from streamsvc.evaluation.recordings import Clip, Truth
from streamsvc.evaluation.score_captions import Reference, Snapshot
from streamsvc.evaluation.transcriber_run import Cost
from tests.conftest import MEDIA
from tests.fakes.hear_engine import NAME, Direct, ends, spoken, written

STREAMBENCH = MEDIA.parent / "bench" / "streambench.py"
RECORDED = Path(__file__).parents[1] / "fixtures" / "captions_jfk.json"
SETTINGS = Settings(hear=Hear(model="script.en"))
TWELVE = tuple(f"w{number}" for number in range(1, 13))


def quiet(line: str) -> None:
    """No progress wanted."""


# --- the same figures as streambench ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def streambench() -> Any:
    """The module, run from its text: nothing is written beside it."""
    if not STREAMBENCH.is_file():
        pytest.skip(f"{STREAMBENCH} is not there: it is not part of the project")
    module: dict[str, Any] = {"__name__": "streambench"}
    exec(compile(STREAMBENCH.read_text(encoding="utf-8"), str(STREAMBENCH), "exec"), module)
    return SimpleNamespace(**module)


def as_streambench(shown: list[Snapshot], reference: Reference, module: Any) -> dict[str, Any]:
    run = {
        "events": shown,
        "cpu_s": 1.0,
        "stream_s": 10.0,
        "rss_mb": 1,
        "flush_s": 0.0,
        "late_feed_s": 0.0,
        "machine_busy_s": 1.0,
    }
    told: dict[str, Any] = module.score(run, {"truth": list(reference.words), "end": list(reference.ends)})
    return told


def equal(shown: list[Snapshot], reference: Reference, module: Any) -> None:
    theirs = as_streambench(shown, reference, module)
    ours = figures_of(shown, reference)
    names = {"wer", "words", "words_ok", "first_p50", "first_p95", "commit_p50", "commit_p95", "commit_max"}
    names |= {"erasure", "flicker_share", "commit_erased", "events"}
    assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}
    assert ours["end_lag_s"] == (None if np.isnan(theirs["end_lag_s"]) else theirs["end_lag_s"])


def figures_of(shown: list[Snapshot], reference: Reference) -> dict[str, float | None]:
    return dict(score_captions.figures(score_captions.score(shown, reference)))


def talk(seed: int) -> tuple[list[Snapshot], Reference]:
    """A talk of few different words (so that alignment is hard), heard with errors, loops, and tails that change; commits too."""
    chance = random.Random(seed)
    words = [
        chance.choice(["the", "stone", "cutter", "Mr.", "so", "far"]) for _ in range(chance.randint(1, 60))
    ]
    marks, at = [], 0.0
    for _ in words:
        at += chance.choice([0.2, 0.3, 0.4, 0.4, 2.0])
        marks.append(round(at, 3))
    reference = Reference(tuple(piece for word in words for piece in score_captions.norm(word)), tuple(marks))
    committed: list[str] = []
    shown: list[Snapshot] = []
    now = 0.0
    while now < at + 3:
        now += chance.uniform(0.1, 0.7)
        heard = sum(mark < now + 0.3 for mark in marks)
        grown = [
            word if chance.random() > 0.15 else chance.choice(["", "so so", "far", "wrong"])
            for word in words[:heard]
        ]
        keep = min(len(committed) + chance.randint(0, 3), len(grown))
        committed = [*committed, *grown[len(committed) : keep]]
        if chance.random() < 0.05:
            committed = committed[:-1]
        shown.append((now, " ".join(committed), " ".join(grown[len(committed) :])))
    return shown, reference


@pytest.mark.parametrize("seed", range(40))
def test_synthetic_events_score_as_in_streambench(streambench: Any, seed: int) -> None:
    equal(*talk(seed), streambench)


def test_recorded_events_score_as_in_streambench(streambench: Any) -> None:
    recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
    shown = [(at, stable, tail) for at, stable, tail in recorded["events"]]
    reference = Reference(tuple(recorded["truth"]), tuple(recorded["end"]))
    equal(shown, reference, streambench)
    equal(shown[:9], reference, streambench)  # cut off: most words are never right
    equal([], reference, streambench)


def test_words_are_taken_apart_as_in_streambench(streambench: Any) -> None:
    for text in ("Mr. O’Neil's dog -- it's 7!", "", "Dr. Mrs, forests", " a  b "):
        assert score_captions.norm(text) == streambench.norm(text)


def test_words_of_other_languages_stay_whole_where_streambench_cuts_them(streambench: Any) -> None:
    assert score_captions.norm("Les forêts") == ["les", "forêts"]
    assert streambench.norm("Les forêts") == ["les", "for", "ts"]


# --- word ends ----------------------------------------------------------------------------------------------------


def clip_of(truth: Truth | None, words: int = 12, *, cut: bool = False) -> Clip:
    return Clip(Path("talk.wav"), spoken(words, 1.5), truth, cut)


async def test_word_ends_of_the_truth_need_no_decode() -> None:
    role = Direct()
    told = await reference_of(clip_of(Truth(("a", "b"), (0.5, 1.0))), role.role(), "en")
    assert told == (Reference(("a", "b"), (0.5, 1.0)), "truth")
    assert await reference_of(clip_of(Truth(())), role.role(), "en") == (Reference((), ()), "truth")
    assert role.asked == []


async def test_a_truth_without_times_gets_them_from_a_decode_and_a_word_that_was_not_heard_lies_between() -> (
    None
):
    words = (*TWELVE[:5], "unheard", *TWELVE[6:])
    reference, where = await reference_of(clip_of(Truth(words)), Direct().role(), "en")
    assert (reference.words, reference.true, where) == (words, True, "decode")
    assert reference.ends == pytest.approx(ends(12), abs=0.002)


async def test_without_a_truth_the_decode_is_the_reference_and_says_so() -> None:
    role = Direct()
    reference, where = await reference_of(clip_of(None), role.role(), None)
    assert (reference.words, reference.true, where) == (TWELVE, False, "decode")
    assert [op for op, _ in role.asked] == ["detect_language", "transcribe"]
    assert role.asked[1][1]["language"] == "de"


async def test_a_long_recording_is_decoded_in_windows_that_the_engine_takes() -> None:
    role = Direct()
    samples = np.concatenate([spoken(12, 0.7)] * 12)  # a cut inside a word would give it twice
    reference, _ = await reference_of(Clip(Path("long.wav"), samples, None), role.role(), "en")
    assert reference.words == 12 * TWELVE
    assert reference.ends[-1] == pytest.approx(len(samples) / SAMPLE_RATE - 0.7, abs=0.05)
    lengths = [len(payload["samples"]) / SAMPLE_RATE for _, payload in role.asked]
    assert max(lengths) <= caption_bench.DECODE
    assert sum(lengths) == pytest.approx(len(samples) / SAMPLE_RATE)


async def test_a_truth_without_times_ends_where_the_recording_was_cut() -> None:
    longer = Truth((*TWELVE, "and", "again", *TWELVE, "that", "was", "never", "played"))
    reference, _ = await reference_of(clip_of(longer, cut=True), Direct().role(), "en")
    assert reference.words == TWELVE


async def test_a_truth_of_which_nothing_was_heard_keeps_its_words() -> None:
    reference, _ = await reference_of(clip_of(Truth(("nothing", "alike"))), Direct().role(), "en")
    assert (reference.words, len(reference.ends)) == (("nothing", "alike"), 2)


# --- whole runs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def talk_file(tmp_path: Path) -> Path:
    """A talk of twelve words with a manifest that has their times."""
    words = [{"w": word, "end": end} for word, end in zip(TWELVE, ends(12), strict=True)]
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": [{"path": "talk.wav", "transcript": "...", "words": words}]})
    )
    return written(tmp_path / "talk.wav", spoken(12, 1.0))


def test_a_run_on_the_virtual_clock_gives_all_figures(talk_file: Path) -> None:
    lines: list[str] = []
    plan = Plan((talk_file,), runs=2, live=False)
    rows, offline = captions(SETTINGS, plan, NAME, lines.append)
    told = figures(rows)
    assert (
        told["wer"],
        told["words"],
        told["committed"],
        told["commit_erased"],
        told["non_speech_words"],
    ) == (0.0, 24, 24, 0, 0)
    assert 0.0 < (told["commit_p50"] or 0.0) < 1.2
    assert 0.0 < (told["longest_gap_s"] or 0.0) < 1.0
    assert (told["pss_hear_mb"], told["lost_s"], offline) == (None, 0, None)
    assert len(lines) == 2
    assert caption_bench.as_json(rows, None, plan, "script.en")["all"] == told


def test_a_run_in_real_time_weighs_the_hear_worker(talk_file: Path) -> None:
    plan = Plan((talk_file,), seconds=1.4)
    rows, _ = captions(SETTINGS, plan, NAME, quiet)
    told = figures(rows)
    assert (told["wer"], told["words"], told["committed"]) == (
        0.25,
        4,
        5,
    )  # the fifth word is cut, and heard all the same
    assert 0 < (told["pss_hear_mb"] or 0) < (told["pss_all_mb"] or 0)
    assert 0.0 < (told["cpu_per_audio_s"] or 0.0) < 1.0
    assert (told["seconds"], told["lost_s"]) == (3.4, 0)


def test_what_is_captioned_where_nobody_speaks_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    path = written(tmp_path / "noise.wav", spoken(3, 1.0))
    rows, _ = captions(SETTINGS, Plan((path,), tmp_path / "empty.txt", live=False), NAME, quiet)
    assert figures(rows)["non_speech_words"] == 3
    assert figures(rows)["wer"] is None


def test_without_a_truth_there_is_everything_but_a_word_error_rate(tmp_path: Path) -> None:
    rows, _ = captions(
        SETTINGS, Plan((written(tmp_path / "talk.wav", spoken(12, 1.0)),), live=False), NAME, quiet
    )
    told = figures(rows)
    assert told["wer"] is None
    assert told["first_p50"] is not None
    assert told["commit_max"] is not None
    assert "there is no WER" in table(rows, None, Plan(()))


def test_a_worker_that_dies_during_a_run_makes_it_worthless(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        pids = iter([os.getpid(), None])
        pid = property(lambda self: next(self.pids))

    monkeypatch.setattr(caption_bench, "TAIL", 0.1)
    short = Clip(Path("a.wav"), np.zeros(1600, np.float32), Truth(()))
    with pytest.raises(WorkerError, match="died during the run"):
        asyncio.run(caption_bench._rows([short], Plan(()), SETTINGS.hear, Direct().role(), Dying(), quiet))  # type: ignore[arg-type]


def test_a_recording_that_cannot_be_read_is_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        captions(SETTINGS, Plan((tmp_path / "absent.wav",)), "no.such.engine", quiet)


# --- told ---------------------------------------------------------------------------------------------------------


def test_the_table_has_a_line_a_run_and_one_for_all_and_no_word_that_was_said(talk_file: Path) -> None:
    plan = Plan((talk_file,), runs=2, live=False, offline=True)
    rows, _ = captions(SETTINGS, Plan((talk_file,), runs=2, live=False), NAME, quiet)
    lines = table(rows, None, plan).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:5]] == ["talk (1)", "talk (2)", "all"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert "w1" not in "\n".join(lines)
    assert "nothing to compare" in lines[-1]


def test_the_table_says_what_makes_a_run_doubtful(talk_file: Path) -> None:
    (row,), _ = captions(SETTINGS, Plan((talk_file,), live=False), NAME, quiet)
    cost = Cost(1.0, 0.9 * row.seconds, 10_000_000, 20_000_000)
    doubtful = caption_bench.Row(
        "talk",
        1,
        row.seconds,
        "truth",
        row.reference,
        row.score,
        cost,
        flush=0.1,
        late=0.5,
        lost=2.0,
        edits=np.array([1]),
    )
    difference = score_captions.Difference(0.01, 0.02, 3)
    told = table([doubtful], caption_bench.Offline(0.05, difference), Plan((talk_file,), offline=True))
    for remark in (
        "0.50 s late",
        "0.90 CPU s/s",
        "2.0 s of audio",
        "+1.0 points, upper 95 % bound +2.0",
        "So few pieces",
        "10 / 20",
    ):
        assert remark in told
    assert not any(
        remark in table([row], None, Plan((talk_file,), live=False))
        for remark in ("late", "So few", "given up")
    )


# --- real weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened() -> None:
    """The speech engine was loaded once: ONNX Runtime opens files then that it keeps as long as the process lives."""
    asr.load({"models": Models().dir / "models", "model": "whisper-tiny.en", "workers": 1})


@pytest.mark.models
@pytest.mark.media
@pytest.mark.usefixtures("opened")
def test_a_real_recording_is_measured_and_compared_with_offline_decoding(media: Path) -> None:
    plan = Plan((media / "speech" / "jfk_inaugural_excerpt.flac",), live=False, offline=True)
    rows, offline = captions(
        Settings(hear=Hear(model="whisper-tiny.en"), models=Models()), plan, "engines.asr", quiet
    )
    told = figures(rows)
    assert (told["wer"] or 0.0) <= 0.14
    assert 0.2 < (told["commit_p50"] or 0.0) < 2.0
    assert 0.0 < (told["cpu_per_audio_s"] or 0.0) < 1.0
    assert (told["commit_erased"], told["non_speech_words"], rows[0].ends) == (0, 0, "truth")
    assert offline is not None
    assert offline.wer <= 0.1
    assert offline.difference.points == pytest.approx((told["wer"] or 0.0) - offline.wer, abs=1e-3)


def test_the_columns_of_a_table_stand_under_each_other() -> None:
    assert caption_bench.markdown(("a", "bb"), [("ccc", "d")]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"
