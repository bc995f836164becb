"""Text without control characters, for lines of a file, a post or a prompt. Pure."""

from __future__ import annotations

import unicodedata

# Control characters, lone surrogates, line and paragraph separators.
_CONTROLS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with a blank for each character that breaks a line, controls a device, or cannot be encoded.

    Format characters stay (joiners, direction marks, soft hyphens: words of many scripts need them), as do
    all kinds of blanks and characters that this Python does not know yet. `str.isprintable` refuses these.
    """
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(char) in _CONTROLS else char for char in text)


def is_extender(char: str) -> bool:
    """Whether a character belongs to the one before it: a mark, a joiner, a selector, a skin tone."""
    return (
        char in "\u200c\u200d" or unicodedata.category(char)[0] == "M" or "\U0001f3fb" <= char <= "\U0001f3ff"
    )
