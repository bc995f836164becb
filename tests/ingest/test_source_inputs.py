"""What a source's process may read: what its source has, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from streamsvc.core.errors import Forbidden, SourceError
from streamsvc.ingest import source_inputs
from streamsvc.ingest.demuxer import FileInputs
from streamsvc.ingest.source_channel import Broken, Fields
from streamsvc.ingest.source_inputs import AskedInputs, ServedInputs
from streamsvc.ingest.source_policy import locate
from streamsvc.ingest.web_client import Readable


class Web:
    """Inputs whose nested URLs are their own content; "private" is refused."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []

    def open(self) -> Readable:
        return io.BytesIO(b"main")

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        self.asked.append((url, options))
        if url == "private":
            raise Forbidden("private", code="private_url")
        return io.BytesIO(url.encode())


def ends(inputs: Any) -> tuple[ServedInputs, AskedInputs]:
    """Both ends, joined without a socket."""
    served = ServedInputs()
    served.use(inputs)

    def ask(asked: dict[str, Any]) -> tuple[Fields, memoryview]:
        header, parts = served.answer(Fields(asked))
        return Fields(header), memoryview(b"".join(parts))

    return served, AskedInputs(ask)


def test_a_file_is_read_from_any_place(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(range(100)))
    served, asked = ends(FileInputs(locate(str(tmp_path / "a.mp4"), None), (10, 50)))
    file: Any = asked.open()
    assert file.name == "a.mp4", "its folder is not told"
    assert file.read(5) == bytes(range(10, 15))
    assert file.seek(-2, 2) == 38
    assert file.read(1000) == bytes(range(48, 50))
    assert file.tell() == 40
    file.close()
    file.close()  # we may have closed it already
    with pytest.raises(OSError, match="refused"):
        asked.open_nested(str(tmp_path / "a.mp4"), 0, {})
    served.close()


def test_a_nested_url_is_opened_by_its_source_alone() -> None:
    web = Web()
    served, asked = ends(web)
    assert asked.open_nested("seg", 0, {"offset": "1", "key": "00", "headers": "X: y"}).read(10) == b"seg"
    assert web.asked == [("seg", {"offset": "1", "key": "00"})], "other options stay there"
    with pytest.raises(SourceError) as caught:
        asked.open_nested("private", 0, {})
    assert caught.value.code == "private_url"
    assert isinstance(served.refused, Forbidden)
    served.close()


def test_no_more_is_open_than_allowed_and_nothing_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_inputs, "FILES", 2)
    opened: list[io.BytesIO] = []

    class Kept(Web):
        def open(self) -> Readable:
            opened.append(io.BytesIO())
            return opened[-1]

    served, asked = ends(Kept())
    first = asked.open()
    asked.open()
    with pytest.raises(OSError, match="refused"):
        asked.open()
    first.close()
    asked.open()
    served.close()
    assert [file.closed for file in opened] == [True] * 3


@pytest.mark.parametrize(
    "asked",
    [
        {"ask": "remove", "file": 1},
        {"ask": "read", "file": 1, "size": source_inputs.READ_BYTES + 1},
        {"ask": "read", "file": 1, "size": -1},
        {"ask": "seek", "file": 1, "offset": 0, "whence": 3},
        {"ask": "nested", "url": "x" * 20_000, "flags": 0, "options": {}},
        {"ask": "nested", "url": "x", "flags": 0, "options": {"offset": 1}},
    ],
)
def test_a_request_that_is_none_is_refused(asked: dict[str, Any]) -> None:
    served, theirs = ends(Web())
    theirs.open()
    with pytest.raises(Broken):
        served.answer(Fields(asked))
    served.close()
