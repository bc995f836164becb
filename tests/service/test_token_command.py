"""Tokens from the terminal are those of the service with this key."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from streamsvc.__main__ import app
from streamsvc.core.config import Server
from streamsvc.service.auth import Auth

KEY = "a-key-of-this-test"


def test_a_token_opens_what_it_says_on_the_service_with_this_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSVC_SERVER__API_KEY", KEY)
    auth = Auth(Server(api_key=KEY))
    for short in ((), ("--short",)):
        done = CliRunner().invoke(app, ["token", "studio", "--hours", "1", *short])
        assert done.exit_code == 0, done.output
        token = done.stdout.strip()
        grants = auth.grants({"authorization": f"Bearer {token}"})
        assert (grants.session, grants.may) == ("studio", frozenset({"publish"}))
        assert grants.holder in done.stderr
        assert (len(token) < 100) is bool(short)
    wider = CliRunner().invoke(app, ["token", "*", "--may", "subscribe", "--may", "ask"])
    grants = auth.grants({"authorization": f"Bearer {wider.stdout.strip()}"})
    assert (grants.session, grants.may) == ("*", frozenset({"subscribe", "ask"}))


@pytest.mark.parametrize("arguments", [["a b"], ["studio", "--hours", "25"], ["studio", "--may", "all"]])
def test_what_no_token_can_say_is_an_error(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("STREAMSVC_SERVER__API_KEY", KEY)
    assert CliRunner().invoke(app, ["token", *arguments]).exit_code != 0


def test_without_a_key_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMSVC_SERVER__API_KEY", raising=False)
    done = CliRunner().invoke(app, ["token", "studio"])
    assert (done.exit_code, done.stdout) == (1, "")
