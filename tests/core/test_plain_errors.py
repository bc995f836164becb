"""Each wrong value is named, in words of ours, without what was sent."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from streamsvc.core.plain_errors import plain_errors

# What pydantic writes for a reader of its own documentation, never for a user.
RAW = ("Input should", "Extra inputs", "Field required", "String should", "permitted", "unable to parse")


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: int = Field(1, ge=1, le=5)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str = Field("x", min_length=1, max_length=5)
    speed: float | Literal["max"] = 1.0
    inner: Inner | None = None
    many: list[Inner] = Field(default_factory=list, max_length=2)
    words: dict[Annotated[str, Field(min_length=1)], str] = Field(default_factory=dict)
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    lang: str = Field("en", pattern="^[a-z]+$")
    key: SecretStr | None = Field(None, max_length=8)

    @field_validator("lang")
    @classmethod
    def _known(cls, lang: str) -> str:
        if lang == "xx":
            raise ValueError("no such language")
        return lang


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"txt": "a"},
            "txt: unknown key (meant text?); allowed: flag, inner, key, kind, lang, many, speed, text, words",
        ),
        ({"inner": {"deep": 1}}, "inner.deep: unknown key (meant depth?); allowed: depth"),
        ({"many": [{}, {"zzz": 1}]}, "many.1.zzz: unknown key; allowed: depth"),
        ({"inner": {"depth": 9}}, "inner.depth must be at most 5"),
        ({"inner": 5}, "inner must be an object of names and values"),
        ({"text": ""}, "text must not be empty"),
        ({"text": "abcdef"}, "text must be at most 5 characters long"),
        ({"text": 5}, "text must be text"),
        ({"speed": "fast"}, "speed must be a number or 'max'"),
        ({"many": [{}, {}, {}]}, "many must be at most 2 long"),
        ({"words": {"a": 1}}, "words.a must be text"),
        ({"kind": "c"}, "kind must be 'a' or 'b'"),
        ({"flag": "perhaps"}, "flag must be true or false"),
        ({"lang": "E"}, "lang must be written otherwise (its form is ^[a-z]+$)"),
        ({"lang": "xx"}, "lang: no such language"),
        ({"text": 5, "flag": "?"}, "text must be text; flag must be true or false"),
        ({"key": "a secret key"}, "key must be at most 8 long"),
        ([], "the body must be an object of names and values"),
    ],
)
def test_a_wrong_value_is_named_in_plain_words(given: Any, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate(given)
    told = plain_errors(caught.value.errors(), Body, "the body")
    assert told == said
    assert not any(raw in told for raw in RAW)
    assert "secret" not in told


def test_no_kind_of_error_is_told_in_the_words_of_the_library() -> None:
    """Kinds that no model of ours has yet are told too, if in few words."""
    for kind in (
        "date_parsing",
        "multiple_of",
        "int_from_float",
        "finite_number",
        "too_short",
        "none_required",
    ):
        told = plain_errors(
            [{"type": kind, "loc": ("when",), "msg": "Input should be", "ctx": {}}], None, "it"
        )
        assert told.startswith("when ")
        assert not any(raw in told for raw in RAW)


def test_json_that_cannot_be_read_is_told_with_its_place() -> None:
    item = {
        "type": "json_invalid",
        "loc": (7,),
        "msg": "JSON decode error",
        "ctx": {"error": "Expecting value"},
    }
    assert (
        plain_errors([item], Body, "the body")
        == "the body is not valid JSON (Expecting value, at character 7)"
    )


def test_a_long_key_of_a_client_is_cut() -> None:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate({"k" * 5000: 1})
    assert len(plain_errors(caught.value.errors(), Body, "the body")) < 300
