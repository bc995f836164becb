"""What a process claims to have demuxed is checked; what its inputs refused is told instead of its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, TypeVar, cast

import pytest

from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest import remote_demuxer, source_channel
from streamsvc.ingest.demuxer import Demuxed, Form, OneInput, Opening
from streamsvc.ingest.remote_demuxer import RemoteDemuxer
from streamsvc.ingest.source_channel import Broken, Fields
from streamsvc.ingest.source_inputs import ServedInputs
from streamsvc.ingest.source_process import SourceProcess

T = TypeVar("T")
TRACK = {
    "kind": "audio",
    "name": "aac",
    "codec": 1,
    "extradata": "1190",
    "pixel_aspect": None,
    "parameters": {"context": "aac", "rate": 48_000, "layout": "stereo", "format": "fltp"},
}
OPENED = {"form": "mov", "duration": 1.5, "start": None, "others": False, "tracks": [TRACK]}
PACKET: dict[str, Any] = {
    "kind": "audio",
    "size": 3,
    "keyframe": True,
    "pts": 7,
    "dts": None,
    "duration": 1,
    "base": [1, 48_000],
    "pos": None,
    "strange": False,
    "changed": None,
}


class Process:
    """Answers as it is told; `refuse`: an error of its inputs before that."""

    def __init__(self, *answers: tuple[dict[str, Any], bytes], refuse: Forbidden | None = None) -> None:
        self.answers = list(answers)
        self.refuse = refuse

    def demux(
        self,
        header: Mapping[str, Any],
        served: ServedInputs,
        check: Callable[[Fields, memoryview], T],
        waits: float,
        most: float = float("inf"),
    ) -> T:
        self.most = most
        served.refused = self.refuse
        answer, body = self.answers.pop(0)
        return check(Fields(answer), memoryview(body))


def demuxer(*answers: tuple[dict[str, Any], bytes], refuse: Forbidden | None = None) -> RemoteDemuxer:
    return RemoteDemuxer(cast(SourceProcess, Process(*answers, refuse=refuse)))


def opened(answer: dict[str, Any], refuse: Forbidden | None = None) -> Any:
    return demuxer((answer, b""), refuse=refuse).open(Opening("a"), OneInput(None))


def packets(*answers: tuple[dict[str, Any], bytes], damaged: list[int] | None = None) -> list[Demuxed]:
    counted = damaged if damaged is not None else []
    return list(demuxer(*answers).packets(lambda: counted.append(1)))


def some(*found: dict[str, Any], end: str = "", damaged: int = 0) -> dict[str, Any]:
    return {"packets": list(found), "damaged": damaged, "end": end}


def test_what_is_told_is_taken_over() -> None:
    found = opened(OPENED)
    assert (found.form, found.duration, found.start, found.others) == ("mov", 1.5, None, False)
    assert (found.tracks[0].kind, found.tracks[0].codec) == ("audio", "aac")
    assert found.tracks[0].context.extradata == b"\x11\x90"
    damaged: list[int] = []
    changed = PACKET | {"size": 2, "changed": TRACK | {"extradata": "1210"}}
    answers = (some(PACKET, changed, damaged=2), b"abcde"), (some(end="end"), b"")
    first, second = packets(*answers, damaged=damaged)
    assert (first.payload, first.pts, first.dts, first.time_base) == (b"abc", 7, None, Fraction(1, 48_000))
    assert second.payload == b"de"
    assert second.changed is not None
    assert second.changed.context.extradata == b"\x12\x10"
    assert len(damaged) == 2


def test_the_end_and_a_failure_are_told_apart() -> None:
    assert packets((some(end="end"), b"")) == []
    with pytest.raises(OSError, match="cannot read on"):
        packets((some(end="broken"), b""))
    error = {"error": {"code": "corrupt", "message": "broken", "retryable": False}}
    with pytest.raises(SourceError, match="broken"):
        packets((error, b""))
    with pytest.raises(SourceError, match="broken"):
        opened(error)
    with pytest.raises(Forbidden):
        opened(error, refuse=Forbidden("private", code="private_url"))


@pytest.mark.parametrize(
    "lie",
    [
        {"duration": "long"},
        {"tracks": [TRACK] * 3},
        {"tracks": [TRACK | {"kind": "data"}]},
        {"tracks": [TRACK | {"extradata": "xy"}]},
        {"tracks": [TRACK | {"pixel_aspect": 1e9}]},
        {"form": 1},
        {"others": None},
    ],
)
def test_a_container_that_cannot_be_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        opened(OPENED | lie)


@pytest.mark.parametrize(
    "lie",
    [
        {"size": 4},
        {"size": 0},
        {"base": [1, 0]},
        {"base": [1]},
        {"pts": 1 << 63},
        {"pos": 0.5},
        {"kind": "subtitle"},
        {"keyframe": 1},
        {"changed": [1]},
    ],
)
def test_a_packet_that_cannot_be_is_refused(lie: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        packets((some(PACKET | lie), b"abc"))


@pytest.mark.parametrize("answer", [some(damaged=1), some(end="end", damaged=source_channel.DAMAGED + 1)])
def test_an_answer_by_which_nothing_ends_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(Broken):
        packets((answer, b""))


@pytest.mark.parametrize(("form", "most"), [("file", remote_demuxer.OPEN_SECONDS), ("hls", float("inf"))])
def test_a_file_is_opened_in_time_or_never(form: Form, most: float) -> None:
    process = Process((OPENED, b""))
    RemoteDemuxer(cast(SourceProcess, process)).open(Opening("a", form), OneInput(None))
    assert process.most == most
