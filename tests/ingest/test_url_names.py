"""Names in place of URLs: the same for a URL as long as it is kept, and without anything of it."""

from __future__ import annotations

import pytest

from streamsvc.ingest.url_names import UrlNames


@pytest.mark.parametrize(
    ("url", "extension"),
    [
        ("https://me:secret@host/secret/a.ts?secret=1", ".ts"),
        ("http://host/a.m4s#secret.secret", ".m4s"),
        ("http://host/secret", ""),
        ("http://host/a.secrets", ""),
        ("http://host/s?secret=a.ts", ""),
        ("http://[secret", ""),
        ("", ""),
    ],
)
def test_a_name_tells_nothing_of_its_url_but_the_extension(url: str, extension: str) -> None:
    names = UrlNames()
    name = names.name(url)
    assert name == f"http://source/1{extension}"
    assert names.name(url) == name
    assert names.url(name) == url
    assert names.url(url) is None
    assert names.name(f"{url}x") != name


def test_a_playlist_has_names_in_its_lines_and_attributes() -> None:
    names = UrlNames()
    data = "data:text/plain;base64,AAAA"
    text = f'#EXTM3U\n#EXT-X-MAP:URI="http://h/i.mp4?t=1"\n#EXT-X-KEY:URI="{data}"\n#EXTINF:1,\nhttp://h/a.ts?t=1\n'
    assert names.text(text).splitlines() == [
        "#EXTM3U",
        '#EXT-X-MAP:URI="http://source/1.mp4"',
        f'#EXT-X-KEY:URI="{data}"',
        "#EXTINF:1,",
        "http://source/2.ts",
    ]


def test_what_is_not_kept_is_forgotten_and_its_name_never_used_again() -> None:
    names = UrlNames()
    first, second = names.name("http://h/a"), names.name("http://h/b")
    names.keep(["http://h/b", "http://h/unnamed"])
    assert (names.url(first), names.url(second)) == (None, "http://h/b")
    assert names.name("http://h/a") not in (first, second)
