"""What a source's process reads: both ends of its requests for bytes. It opens nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Protocol, runtime_checkable

from streamsvc.core.errors import SourceError, StreamsvcError
from streamsvc.ingest.demuxer import Inputs
from streamsvc.ingest.source_channel import Broken, Fields, error_header, error_of
from streamsvc.ingest.web_client import Readable

READ_BYTES = 1 << 20  # given at once
FILES = 64  # open at once (security limit)
URL_CHARACTERS = 16_384
_OPTIONS = ("offset", "end_offset", "key", "iv")  # of what libav asks for
Message = tuple[dict[str, Any], tuple[bytes, ...]]


@runtime_checkable
class Seekable(Readable, Protocol):
    """A Readable whose bytes can be read in any order, where `seekable` says so."""

    def seekable(self) -> bool:
        """Whether `seek` works."""
        ...

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; returns the position."""
        ...


@runtime_checkable
class Named(Protocol):
    """A file with a name, by which libav guesses its format."""

    name: str


class ServedInputs:
    """Our end: answers from the inputs that a source has. Blocking.

    `refused`: the first error of the inputs since they were set: it says more than what libav makes of it.
    """

    def __init__(self) -> None:
        self.refused: StreamsvcError | None = None
        self._inputs: Inputs | None = None
        self._files: dict[int, Readable] = {}
        self._last = 0

    def use(self, inputs: Inputs) -> None:
        """Answer from these inputs from now on."""
        self.close()
        self._inputs = inputs
        self.refused = None

    def close(self) -> None:
        """Close every file."""
        while self._files:
            self._files.popitem()[1].close()

    def answer(self, ask: Fields) -> Message:
        """The answer to one request. Raises Broken: it is none."""
        try:
            return self._answer(ask.text("ask", 10), ask)
        except StreamsvcError as error:
            self.refused = self.refused or error
            return error_header(SourceError(error.message, code=error.code, retryable=error.retryable)), ()
        except (OSError, ValueError):
            return {"error": {"code": "os", "message": "", "retryable": False}}, ()

    def _nested(self, ask: Fields) -> Readable:
        options = ask.inner("options")
        told = {key: options.text(key, 64) for key in _OPTIONS if options.has(key)}
        assert self._inputs is not None
        return self._inputs.open_nested(ask.text("url", URL_CHARACTERS), ask.integer("flags"), told)

    def _answer(self, what: str, ask: Fields) -> Message:
        if what in ("open", "nested"):
            if self._inputs is None or len(self._files) >= FILES:
                raise OSError("nothing more is opened")
            opened = self._inputs.open() if what == "open" else self._nested(ask)
            self._last += 1
            self._files[self._last] = opened
            name = PurePath(opened.name).name if isinstance(opened, Named) else ""
            return {"file": self._last, "seekable": _is_seekable(opened), "name": name}, ()
        number = ask.integer("file")
        if what == "close":
            if (closed := self._files.pop(number, None)) is not None:  # else we have closed it already
                closed.close()
            return {}, ()
        file = self._files.get(number)
        if file is None:
            raise OSError("closed")
        if what == "read":
            return {}, (file.read(ask.integer("size", 0, READ_BYTES)),)
        if what == "seek" and isinstance(file, Seekable) and file.seekable():
            return {"at": file.seek(ask.integer("offset", -(1 << 62)), ask.integer("whence", 0, 2))}, ()
        raise Broken("no such request")


def _is_seekable(file: Readable) -> bool:
    return isinstance(file, Seekable) and file.seekable()


Ask = Callable[[dict[str, Any]], tuple[Fields, memoryview]]


class AskedInputs:
    """The process's end: Inputs that ask for everything. `ask`: sends a request, returns its answer."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def open(self) -> Readable:
        """See Inputs."""
        return self._opened({"ask": "open"})

    def open_nested(self, url: str, flags: int, options: dict[str, str]) -> Readable:
        """See Inputs."""
        told = {key: options[key] for key in _OPTIONS if key in options}
        return self._opened({"ask": "nested", "url": url, "flags": flags, "options": told})

    def _opened(self, asked: dict[str, Any]) -> Readable:
        answer, _ = self._checked(asked)
        form = _SeekableFile if answer.flag("seekable") else _File
        return form(self._checked, answer.integer("file"), answer.text("name"))

    def _checked(self, asked: dict[str, Any]) -> tuple[Fields, memoryview]:
        answer, body = self._ask(asked)
        if (error := error_of(answer)) is not None:
            if error.code == "os":
                raise OSError("refused")
            raise error
        return answer, body


class _File:
    """A file that is read by asking."""

    def __init__(self, ask: Ask, number: int, name: str) -> None:
        self.name = name
        self._ask = ask
        self._number = number

    def read(self, size: int) -> bytes:
        """See Readable."""
        asked = {"ask": "read", "file": self._number, "size": min(size, READ_BYTES)}
        return bytes(self._ask(asked)[1])

    def close(self) -> None:
        """See Readable."""
        self._ask({"ask": "close", "file": self._number})


class _SeekableFile(_File):
    """The same with `seek`, which libav looks for."""

    def seek(self, offset: int, whence: int = 0) -> int:
        """See Seekable."""
        asked = {"ask": "seek", "file": self._number, "offset": offset, "whence": whence}
        return self._ask(asked)[0].integer("at")

    def tell(self) -> int:
        """The position."""
        return self.seek(0, 1)
