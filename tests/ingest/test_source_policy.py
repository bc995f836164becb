"""Access is decided before a source is touched; no message contains a password or a key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.errors import Forbidden, SourceError, StreamsvcError
from streamsvc.ingest.source_policy import (
    URL_SCHEMES,
    check_file,
    locate,
    redacted,
)


def refused(url: str, roots: tuple[Path, ...] | None = None) -> str:
    with pytest.raises((SourceError, Forbidden)) as caught:
        locate(url, roots)
    assert caught.value.message
    return caught.value.code


@pytest.mark.parametrize(
    "url",
    [
        *("concat:/etc/passwd", "ftp://x/y", "data:audio/wav;base64,AA", "gopher://x/y", "pipe:0"),
        *(
            "file://host/x",
            "file:",
            "file:/a%00b",
            "/a\0b",
            "",
            "http://",
            "https:///x",
            "rtsp://:554/a",
            "http://h:99999/a",
            "http://[::1",
        ),
        *("file:/a\ud800b", "http://\ud800/a"),
    ],
)
def test_invalid_sources_are_refused(url: str) -> None:
    assert refused(url) == "bad_scheme"


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://h/a", 80),
        ("https://h/a", 443),
        ("rtsp://h/a", 554),
        ("RTSPS://H/a", 322),
        ("http://h:81/a", 81),
    ],
)
def test_a_url_has_the_port_of_its_scheme_unless_it_names_one(url: str, port: int) -> None:
    place = locate(url, ())
    assert (place.host, place.port, place.path) == ("h", port, None)


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ("RTSP://Host/Live?a=RTSP://x", "rtsp://Host/Live?a=RTSP://x"),
        ("Https://h/A.m3u8", "https://h/A.m3u8"),
        (" HTTP://me:pw@h:8080/a", "http://me:pw@h:8080/a"),
        ("rtsp://h/a", "rtsp://h/a"),
    ],
)
def test_a_scheme_in_capitals_is_passed_on_in_small_letters(given: str, passed_on: str) -> None:
    """libav answers "Protocol not found" otherwise."""
    assert locate(given, ()).url == passed_on


def test_a_file_url_may_have_capitals(tmp_path: Path) -> None:
    assert locate(f"FILE://{tmp_path}/A.wav", None).path == tmp_path / "A.wav"


def test_messages_contain_no_password_or_key() -> None:
    url = "rtsp://user:secret@cam.example:8554/live?key=secret#secret"
    assert locate(url, ()).name == redacted(url) == "rtsp://cam.example:8554/live"
    assert redacted("http://[::1]:80/a") == "http://[::1]:80/a"
    assert redacted("talk.mp4") == "talk.mp4"
    for broken in (
        "http://user:secret@h:99999/a",
        "http://user:secret@/a",
        "http://user:secret@[::1",
        "file://user:secret@host/a",
    ):
        with pytest.raises(SourceError) as caught:
            locate(broken, ())
        assert "secret" not in str(caught.value)


def test_files_are_read_only_below_the_roots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "a.wav").touch()
    (inside / "link.wav").symlink_to(outside / "a.wav")
    (inside / "folder").symlink_to(outside)
    (tmp_path / "in2").mkdir()
    for url in (
        f"file:{outside}/a.wav",
        f"file:{inside}/../out/a.wav",
        f"file:{inside}/%2e%2e/out/a.wav",
        f"file:{inside}/link.wav",
        f"file:{inside}/folder/a.wav",
        f"file:{outside}/not_there.wav",
        f"file:{tmp_path}/in2/a.wav",
        f"{outside}/a.wav",
    ):
        assert refused(url, (inside,)) == "outside_sources"
    assert refused(f"file:{inside}/b.wav", ()) == "outside_sources"
    place = locate(f"file://{inside}/b%20c.wav", (outside, inside))
    assert (place.scheme, place.path) == ("file", inside / "b c.wav")
    assert locate(f"file://localhost{inside}/b.wav", (inside,)).path == inside / "b.wav"
    assert locate("talk #1?.mp4", None).path == Path.cwd() / "talk #1?.mp4"


def test_circular_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "one")
    with pytest.raises(SourceError) as caught:
        place = locate(f"file:{tmp_path}/one", (tmp_path,))
        assert place.path is not None  # newer Pythons resolve it as far as they can; check_file fails
        check_file(place.path, place.name)
    assert caught.value.code in ("bad_scheme", "not_found")


@given(
    st.text(max_size=60)
    | st.builds("{}://{}/{}".format, st.sampled_from(URL_SCHEMES), st.text(max_size=20), st.text(max_size=20))
)
def test_any_text_is_located_or_refused(text: str) -> None:
    try:
        place = locate(text, ())
    except StreamsvcError as error:
        assert error.message
    else:
        assert place.scheme in URL_SCHEMES
        assert place.host


def test_a_file_must_be_regular_and_not_empty(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "good.mp4").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would block
    for name, code in (
        ("none.mp4", "not_found"),
        ("", "not_found"),
        ("pipe.mp4", "not_found"),
        ("n" * 300, "not_found"),
        ("empty.mp4", "empty"),
    ):
        with pytest.raises(SourceError) as caught:
            check_file(tmp_path / name, name)
        assert caught.value.code == code
        assert not caught.value.retryable
    check_file(tmp_path / "good.mp4", "good.mp4")
