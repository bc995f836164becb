"""Answers as JSON of a form that was asked for: read and bounded at the door, filled only with what is known."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.answers import structured_output
from streamsvc.answers.rules.parse import parse
from streamsvc.core.errors import InvalidRequest, Unprocessable
from streamsvc.core.types import Answer, Evidence

CAT = Evidence(12.25, 20.0, "sight", "cat 0.94", 12.25)
HEARD = Evidence(3.0, 7.5, "speech", "the meeting is moved to room 204 on Friday")
TITLE = Evidence(40.0, 61.0, "screen", "Budget 2026", 40.0)
TEXT, NUMBER, WHOLE, TRUTH, NULL = (
    {"type": name} for name in ("string", "number", "integer", "boolean", "null")
)


def wanted(properties: dict[str, Any], **rest: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **rest,
    }
    return {"type": "json_schema", "json_schema": {"name": "told", "schema": schema}}


def told(
    question: str, text: str, *evidence: Evidence, values: tuple[str, ...] = (), **properties: Any
) -> Any:
    """An answer in the form of some properties, held against the schema as it was asked for."""
    asked = wanted(properties)
    schema = structured_output.read(asked)
    assert schema is not None
    found = json.loads(
        structured_output.filled(
            schema, parse(question), Answer("q", text, bool(evidence), evidence, {}, values)
        )
    )
    jsonschema.Draft202012Validator(asked["json_schema"]["schema"]).validate(found)
    return found


def unmet(*args: Any, **properties: Any) -> str:
    with pytest.raises(Unprocessable) as caught:
        told(*args, **properties)
    assert caught.value.code == "response_format_unmet"
    return caught.value.message


# --- the door -------------------------------------------------------------------------------------------------------


def test_without_a_form_an_answer_is_plain_words() -> None:
    assert structured_output.read(None) is None
    assert structured_output.read({"type": "text"}) is None


@pytest.mark.parametrize(
    "asked",
    [
        "json",
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": True}},
        wanted({"a": {"type": "strange"}}),
        wanted({"a": {"type": "string", "minLength": "long"}}),
        wanted({"a": 7}),
        wanted({"a": {"type": "string", "pattern": "(a+)+$"}}),
        wanted({"a": {"allOf": [TEXT]}}),
        wanted({"a": {"$ref": "https://example.org/schema.json"}}),
        wanted({"a": {"$ref": "#/$defs/none"}}),
        wanted({"a": {"$ref": "#"}}),
        wanted(
            {"a": {"$ref": "#/$defs/it"}},
            **{"$defs": {"it": {"type": "array", "items": {"$ref": "#/$defs/it"}}}},
        ),
        wanted({"a": {"$ref": "#/$defs/it", "type": "string"}}, **{"$defs": {"it": TEXT}}),
        wanted({"a": {"const": float("nan")}}),
        wanted({"a": {"const": "\ud800"}}),  # half a character: it cannot be sent
        wanted({}, type="array"),
        wanted({"a": TEXT}, **{"$defs": "none"}, description="x" * structured_output.MOST_BYTES),
        wanted({f"a{n}": TEXT for n in range(structured_output.MOST_PARTS)}),
    ],
)
def test_what_is_no_schema_or_more_than_can_be_filled_is_refused(asked: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        structured_output.read(asked)
    assert caught.value.code == "bad_response_format"
    assert "bad" not in caught.value.message


def test_a_schema_that_doubles_with_every_reference_is_refused_quickly() -> None:
    laughs: dict[str, Any] = {f"l{n}": {"anyOf": [{"$ref": f"#/$defs/l{n + 1}"}] * 10} for n in range(20)}
    with pytest.raises(InvalidRequest):
        structured_output.read(wanted({"a": {"$ref": "#/$defs/l0"}}, **{"$defs": {**laughs, "l20": TEXT}}))


def test_references_within_the_schema_are_put_in_and_notes_left_out() -> None:
    place = {"type": "object", "title": "Place", "properties": {"start": NUMBER}}
    schema = structured_output.read(
        wanted({"evidence": {"$ref": "#/$defs/Place", "description": "where"}}, **{"$defs": {"Place": place}})
    )
    assert schema is not None
    assert schema["properties"] == {"evidence": {"type": "object", "properties": {"start": NUMBER}}}


# --- filling --------------------------------------------------------------------------------------------------------


def test_any_object_holds_answer_support_and_evidence() -> None:
    schema = structured_output.read({"type": "json_object"})
    assert schema is not None
    found = json.loads(
        structured_output.filled(schema, parse("What is shown?"), Answer("q", "A cat.", True, (CAT,)))
    )
    assert found == {
        "answer": "A cat.",
        "supported": True,
        "evidence": [{"start": 12.25, "end": 20, "kind": "sight", "quote": "cat 0.94"}],
    }
    refused = json.loads(
        structured_output.filled(
            schema, parse("What is shown?"), Answer("q", "I have not seen or heard that.", False)
        )
    )
    assert refused == {"answer": "I have not seen or heard that.", "supported": False, "evidence": []}


def test_times_are_told_in_the_type_and_the_unit_of_their_field() -> None:
    found = told(
        "When was a cat shown?",
        "At 0:12 (12.2 s).",
        CAT,
        when=NUMBER,
        at=WHOLE,
        time=TEXT,
        start_ms=WHOLE,
        endTime=NUMBER,
        duration=NUMBER,
    )
    assert found == {
        "when": 12.25,
        "at": 12,
        "time": "0:12",
        "start_ms": 12250,
        "endTime": 20,
        "duration": 7.75,
    }


def test_a_count_is_a_number_or_a_text() -> None:
    asked = "How many cats are there?", "2, as far as I can see, at 0:12.", CAT
    assert told(*asked, values=("2",), count=WHOLE, number_of_cats=TEXT, answer=NUMBER) == {
        "count": 2,
        "number_of_cats": "2",
        "answer": 2,
    }
    assert told(*asked, values=("2",), dog_count={"type": ["integer", "null"]}) == {"dog_count": None}, (
        "nobody asked for dogs"
    )
    assert told("How many people sit there?", "Two people sit at a table.", CAT, count=WHOLE) == {"count": 2}
    assert "count" in unmet("How many cups?", "Two cups and three plates.", CAT, count=WHOLE)


def test_yes_and_no_go_where_the_question_s_own_words_or_an_answer_are_named() -> None:
    asked = "Is a cat visible?", "Yes, a cat is shown since 0:12.", CAT
    maybe = {"anyOf": [TRUTH, NULL]}
    found = told(
        *asked, answer=TRUTH, cat_visible=TRUTH, is_raining=maybe, reply={"enum": ["YES", "NO", "UNKNOWN"]}
    )
    assert found == {"answer": True, "cat_visible": True, "is_raining": None, "reply": "YES"}
    no = told("Is a dog visible?", "No, no dog is in the picture.", CAT, answer=TRUTH)
    assert no == {"answer": False}
    refused = told(
        "Is a dog visible?",
        "I have not seen or heard that.",
        answer=maybe,
        reply={"enum": ["yes", "no", "unknown"]},
    )
    assert refused == {"answer": None, "reply": "unknown"}


def test_a_list_has_one_entry_for_each_thing_and_is_never_empty_for_want_of_knowledge() -> None:
    things = {"type": "array", "items": TEXT}
    asked = "What has been shown so far?", 'So far: a cat, "Budget 2026".', CAT, TITLE
    found = told(
        *asked, values=("cat", "Budget 2026"), things=things, times={"type": "array", "items": NUMBER}
    )
    assert found == {"things": ["cat", "Budget 2026"], "times": [12.25, 40]}
    rows = {
        "type": "array",
        "items": {"type": "object", "properties": {"name": TEXT, "at": NUMBER}, "required": ["name", "at"]},
    }
    assert told(*asked, values=("cat", "Budget 2026"), items=rows)["items"] == [
        {"name": "cat", "at": 12.25},
        {"name": "Budget 2026", "at": 40},
    ]
    assert told(*asked, values=("cat", "Budget 2026"), things=things | {"maxItems": 1.0}) == {
        "things": ["cat"]
    }
    assert "things" in unmet("What is shown?", "I have not seen or heard that.", things=things)
    assert told("What is shown?", "I have not seen or heard that.", quotes=things) == {"quotes": []}, (
        "there is no evidence, and that is known"
    )


def test_what_the_question_asks_for_by_name_is_the_value_or_what_was_quoted() -> None:
    total = told(
        "What is the total?",
        '$12.50, on the screen at 0:40: "Total $12.50"',
        TITLE,
        values=("$12.50",),
        total=NUMBER,
        amount=TEXT,
    )
    assert total == {"total": 12.5, "amount": "$12.50"}
    room = told(
        "Which room is the meeting in?",
        'At 0:03: "the meeting is moved to room 204"',
        HEARD,
        room=TEXT,
        number=NULL,
    )
    assert room == {"room": "the meeting is moved to room 204", "number": None}
    assert told("Which room is the meeting in?", 'At 0:03: "room 204"', HEARD, room=WHOLE) == {"room": 204}
    season = {"enum": ["spring", "winter", None]}
    assert told(
        "Which season is it?", 'At 0:03: "winter came"', HEARD, values=("winter",), season=season
    ) == {"season": "winter"}
    assert told("Which season is it?", 'At 0:03: "not in the spring"', HEARD, season=season) == {
        "season": None
    }


def test_evidence_is_one_object_or_several_and_its_fields_are_its_own() -> None:
    place = {
        "type": "object",
        "properties": {"quote": TEXT, "kind": {"enum": ["sight", "speech"]}, "start": NUMBER},
        "required": ["quote", "kind", "start"],
    }
    one = told("What was said?", 'At 0:03: "the meeting"', HEARD, evidence=place)
    assert one["evidence"] == {"quote": HEARD.quote, "kind": "speech", "start": 3}
    many = told(
        "What was said?",
        "…",
        HEARD,
        CAT,
        sources={"type": "array", "items": place},
        quotes={"type": "array", "items": TEXT},
    )
    assert [item["kind"] for item in many["sources"]] == ["speech", "sight"]
    assert many["quotes"] == [HEARD.quote, CAT.quote]


def test_a_number_that_nobody_told_is_no_answer() -> None:
    maybe = {"type": ["number", "null"]}
    assert told("What is shown?", "A cat.", CAT, answer=maybe) == {"answer": None}, (
        "how sure the detector is answers nothing"
    )
    assert told("Did they move to a room?", "Yes, at 0:03.", HEARD, room=maybe) == {"room": None}
    assert told("What number is it?", "…", TITLE, values=("9" * 400,), number=maybe) == {"number": None}


def test_a_stretch_that_is_no_moment_gives_no_time() -> None:
    nothing = Evidence(0.0, 60.0, "timeline", "no mention of tea")
    found = told(
        "Did they mention tea?",
        "No, nothing said or written so far mentions tea.",
        nothing,
        at={"type": ["number", "null"]},
        answer=TRUTH,
    )
    assert found == {"at": None, "answer": False}


def test_long_words_are_cut_at_a_word_and_constants_and_formats_are_kept() -> None:
    found = told(
        "What was said?",
        HEARD.quote,
        HEARD,
        answer=TEXT | {"maxLength": 20},
        version={"const": 3},
        date={"type": ["string", "null"], "format": "date"},
    )
    assert found == {"answer": "the meeting is…", "version": 3, "date": None}


def test_what_is_not_demanded_and_not_known_is_left_out() -> None:
    schema = structured_output.read(wanted({"answer": TEXT, "weather": TEXT}, required=["answer"]))
    assert schema is not None
    assert json.loads(
        structured_output.filled(schema, parse("What is shown?"), Answer("q", "A cat.", True, (CAT,)))
    ) == {"answer": "A cat."}
    assert "weather" in unmet("What is shown?", "A cat.", CAT, weather=TEXT)


_LEAVES = st.sampled_from(
    [TEXT, NUMBER, WHOLE, TRUTH, NULL, {"enum": ["yes", 1, None]}, {"type": ["string", "null"]}]
)
_NAMES = st.sampled_from(
    [
        "answer",
        "supported",
        "count",
        "at",
        "end",
        "quote",
        "evidence",
        "items",
        "cat",
        "x_y",
        "",
        "Ü",
        "kind",
        "list",
    ]
)


def _wider(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(_NAMES, parts, max_size=4)
    objects = st.builds(
        lambda made, some: {"type": "object", "properties": made, "required": [*made][:some]},
        fields,
        st.integers(0, 4),
    )
    return (
        objects
        | st.builds(lambda item: {"type": "array", "items": item}, parts)
        | st.builds(lambda a, b: {"anyOf": [a, b]}, parts, parts)
    )


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(_NAMES, st.recursive(_LEAVES, _wider, max_leaves=8), max_size=5),
    st.sampled_from(["cat", "2", ""]),
    st.booleans(),
)
def test_whatever_the_schema_the_text_is_valid_or_the_answer_is_an_error(
    fields: dict[str, Any], value: str, known: bool
) -> None:
    asked = wanted(fields)
    try:
        schema = structured_output.read(asked)
    except InvalidRequest:
        return
    assert schema is not None
    answer = Answer(
        "q",
        "Yes, a cat." if known else "No idea.",
        known,
        (CAT, HEARD) if known else (),
        {},
        (value,) if value and known else (),
    )
    try:
        found = structured_output.filled(schema, parse("Is a cat shown?"), answer)
    except Unprocessable:
        return
    jsonschema.Draft202012Validator(asked["json_schema"]["schema"]).validate(json.loads(found))
