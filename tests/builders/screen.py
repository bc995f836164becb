"""A terminal: a pty whose output is interpreted, so that a test sees what its user would see."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Iterator

_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])")


class Screen:
    """What a terminal of so many columns shows.

    `rows`: from the first line ever written on. `drawn`: every content that the last row has had.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows = [""]
        self.drawn: list[str] = []
        self._row = 0
        self._column = 0

    def feed(self, text: str) -> None:
        """Interpret output. Raises ValueError: a sequence that it does not know."""
        at = 0
        while at < len(text):
            found = _SEQUENCE.match(text, at)
            if found is not None:
                self._obey(found[1], found[2])
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, char: str) -> None:
        if char == "\r":
            self._column = 0
        elif char == "\n":
            self._row += 1
        elif char == "\x1b":
            raise ValueError("a sequence that is cut or unknown")
        else:
            if self._column == self.columns:
                self._row, self._column = self._row + 1, 0
            self._reach()
            row = self.rows[self._row].ljust(self._column)
            self.rows[self._row] = row[: self._column] + char + row[self._column + 1 :]
            self._column += 1
            self.drawn.append(self.rows[self._row])
        self._reach()

    def _reach(self) -> None:
        while len(self.rows) <= self._row:
            self.rows.append("")

    def _obey(self, numbers: str, kind: str) -> None:
        match kind:
            case "m" | "h" | "l":  # colours; the cursor hidden and shown
                return
            case "A":
                self._row = max(0, self._row - int(numbers or 1))
            case "K":
                self.rows[self._row] = "" if numbers == "2" else self.rows[self._row][: self._column]
            case _:
                raise ValueError(f"unknown sequence {numbers}{kind}")


class Terminal:
    """Both ends of a pty. `output`: descriptor that a program writes to. `screen`: what it has drawn."""

    def __init__(self, columns: int = 60) -> None:
        self.screen = Screen(columns)
        self._master, self.output = pty.openpty()
        fcntl.ioctl(self.output, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.set_blocking(self._master, False)

    def read(self) -> list[str]:
        """Interpret what has come since; returns the rows, without empty ones at the end."""
        data = b""
        with contextlib.suppress(BlockingIOError, OSError):
            while block := os.read(self._master, 65536):
                data += block
        self.screen.feed(data.decode())
        rows = list(self.screen.rows)
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def close(self) -> None:
        """Close both ends."""
        os.close(self.output)
        os.close(self._master)


@contextlib.contextmanager
def terminal(columns: int = 60) -> Iterator[Terminal]:
    """A terminal that is closed at the end."""
    opened = Terminal(columns)
    try:
        yield opened
    finally:
        opened.close()
