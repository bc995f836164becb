"""Names that libav is given in place of the URLs of a playlist: no token in one reaches its process."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from streamsvc.ingest.playlist import mapped

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,5}$")  # of a path: libav guesses a format by it


class UrlNames:
    """The names of one source's URLs. A URL has the same name for as long as it is kept."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # by URL
        self._urls: dict[str, str] = {}  # by name
        self._last = 0

    def name(self, url: str) -> str:
        """The name of a URL; a data: URL, which holds what it names, is its own."""
        if url.startswith("data:"):
            return url
        if url not in self._names:
            self._last += 1
            # libav looks for a protocol that it knows; nobody resolves this host
            self._names[url] = f"http://source/{self._last}{_extension(url)}"
            self._urls[self._names[url]] = url
        return self._names[url]

    def url(self, name: str) -> str | None:
        """The URL of a name; None: it is none, or is kept no longer."""
        return self._urls.get(name)

    def text(self, playlist: str) -> str:
        """A playlist with names for its URLs, which are absolute."""
        return mapped(playlist, self.name)

    def keep(self, urls: Collection[str]) -> None:
        """Forget all other URLs."""
        for url in self._names.keys() - urls:
            del self._urls[self._names.pop(url)]


def _extension(url: str) -> str:
    try:
        found = _EXTENSION.search(urlsplit(url).path)
    except ValueError:  # not a URL
        return ""
    return found[0] if found else ""
