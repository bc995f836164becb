"""Structured output: fields are filled from the answer's evidence alone; the result is valid."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsvc.answers import response_schema, structured_output
from streamsvc.answers.route import Arguments
from streamsvc.core.errors import InvalidRequest, Unprocessable
from streamsvc.core.types import Answer, Evidence
from tests.builders.response_format import response_format

CAT = Evidence(12.25, 20.0, "sight", "cat 0.94", 12.25)
HEARD = Evidence(3.0, 7.5, "speech", "the meeting is moved to room 204 on Friday")
TITLE = Evidence(40.0, 61.0, "screen", "Budget 2026", 40.0)
TEXT, NUMBER, WHOLE, TRUTH, NULL = (
    {"type": name} for name in ("string", "number", "integer", "boolean", "null")
)


def filled(
    question: str, text: str, *evidence: Evidence, values: tuple[str, ...] = (), **properties: Any
) -> Any:
    """An answer filled into an object of some properties, validated by the schema as it was sent."""
    wanted = response_format(properties)
    schema = response_schema.read(wanted)
    assert schema is not None
    answer = Answer("q", text, bool(evidence), evidence, (), values)
    output = json.loads(structured_output.fill(schema, question, answer))
    jsonschema.Draft202012Validator(wanted["json_schema"]["schema"]).validate(output)
    return output


def test_the_form_of_the_question_says_that_any_number_of_the_answer_is_the_count() -> None:
    schema = response_schema.read(response_format({"count": WHOLE}))
    assert schema is not None
    answer = Answer("q", "I see two people.", True, (CAT,))
    counted = structured_output.fill(schema, "How many people?", answer, Arguments(form="how often"))
    assert json.loads(counted) == {"count": 2}
    both = Answer("q", "I see two cups and three plates.", True, (CAT,))
    with pytest.raises(Unprocessable):
        structured_output.fill(schema, "How many?", both, Arguments(form="how often"))


def unmet(*args: Any, **properties: Any) -> str:
    with pytest.raises(Unprocessable) as caught:
        filled(*args, **properties)
    assert caught.value.code == "response_format_unmet"
    return caught.value.message


def test_any_object_holds_answer_support_and_evidence() -> None:
    schema = response_schema.read({"type": "json_object"})
    assert schema is not None
    output = json.loads(structured_output.fill(schema, "What is shown?", Answer("q", "A cat.", True, (CAT,))))
    assert output == {
        "answer": "A cat.",
        "supported": True,
        "evidence": [{"start": 12.25, "end": 20, "kind": "sight", "quote": "cat 0.94"}],
    }
    refused = json.loads(
        structured_output.fill(schema, "What is shown?", Answer("q", "I have not seen or heard that.", False))
    )
    assert refused == {"answer": "I have not seen or heard that.", "supported": False, "evidence": []}


def test_times_are_given_in_the_type_and_unit_of_their_field() -> None:
    output = filled(
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
    assert output == {
        "when": 12.25,
        "at": 12,
        "time": "0:12",
        "start_ms": 12250,
        "endTime": 20,
        "duration": 7.75,
    }


def test_a_count_is_a_number_or_text() -> None:
    asked = "How many cats are there?", "2, as far as I can see, at 0:12.", CAT
    assert filled(*asked, values=("2",), count=WHOLE, number_of_cats=TEXT, answer=NUMBER) == {
        "count": 2,
        "number_of_cats": "2",
        "answer": 2,
    }
    assert filled(*asked, values=("2",), dog_count={"type": ["integer", "null"]}) == {"dog_count": None}, (
        "the question is not about dogs"
    )
    assert filled("How many people sit there?", "Two people sit at a table.", CAT, count=WHOLE) == {
        "count": 2
    }
    assert "count" in unmet("How many cups?", "I see two cups.", CAT, count=WHOLE), "not at its beginning"


def test_yes_and_no_fill_fields_named_answer_or_by_the_question_s_words() -> None:
    asked = "Is a cat visible?", "Yes, a cat is shown since 0:12.", CAT
    maybe = {"anyOf": [TRUTH, NULL]}
    output = filled(
        *asked, answer=TRUTH, cat_visible=TRUTH, is_raining=maybe, reply={"enum": ["YES", "NO", "UNKNOWN"]}
    )
    assert output == {"answer": True, "cat_visible": True, "is_raining": None, "reply": "YES"}
    no = filled("Is a dog visible?", "No, no dog is in the picture.", CAT, answer=TRUTH)
    assert no == {"answer": False}
    refused = filled(
        "Is a dog visible?",
        "I have not seen or heard that.",
        answer=maybe,
        reply={"enum": ["yes", "no", "unknown"]},
    )
    assert refused == {"answer": None, "reply": "unknown"}


def test_a_list_has_one_entry_per_value_and_is_never_empty_for_want_of_knowledge() -> None:
    things = {"type": "array", "items": TEXT}
    asked = "What has been shown so far?", 'So far: a cat, "Budget 2026".', CAT, TITLE
    output = filled(
        *asked, values=("cat", "Budget 2026"), things=things, times={"type": "array", "items": NUMBER}
    )
    assert output == {"things": ["cat", "Budget 2026"], "times": [12.25, 40]}
    rows = {
        "type": "array",
        "items": {"type": "object", "properties": {"name": TEXT, "at": NUMBER}, "required": ["name", "at"]},
    }
    assert filled(*asked, values=("cat", "Budget 2026"), items=rows)["items"] == [
        {"name": "cat", "at": 12.25},
        {"name": "Budget 2026", "at": 40},
    ]
    assert filled(*asked, values=("cat", "Budget 2026"), things=things | {"maxItems": 1.0}) == {
        "things": ["cat"]
    }
    assert "things" in unmet("What is shown?", "I have not seen or heard that.", things=things)
    assert filled("What is shown?", "I have not seen or heard that.", quotes=things) == {"quotes": []}, (
        "that there is no evidence is known"
    )


def test_a_field_named_by_the_question_holds_the_value_or_the_quote() -> None:
    total = filled(
        "What is the total?",
        '$12.50, on the screen at 0:40: "Total $12.50"',
        TITLE,
        values=("$12.50",),
        total=NUMBER,
        amount=TEXT,
    )
    assert total == {"total": 12.5, "amount": "$12.50"}
    room = filled(
        "Which room is the meeting in?",
        'At 0:03: "the meeting is moved to room 204"',
        HEARD,
        room=TEXT,
        number=NULL,
    )
    assert room == {"room": "the meeting is moved to room 204", "number": None}
    assert filled("Which room is the meeting in?", 'At 0:03: "room 204"', HEARD, room=WHOLE) == {"room": 204}
    season = {"enum": ["spring", "winter", None]}
    assert filled(
        "Which season is it?", 'At 0:03: "winter came"', HEARD, values=("winter",), season=season
    ) == {"season": "winter"}
    assert filled("Which season is it?", 'At 0:03: "not in the spring"', HEARD, season=season) == {
        "season": None
    }


def test_evidence_fills_an_object_or_a_list_of_objects() -> None:
    place = {
        "type": "object",
        "properties": {"quote": TEXT, "kind": {"enum": ["sight", "speech"]}, "start": NUMBER},
        "required": ["quote", "kind", "start"],
    }
    one = filled("What was said?", 'At 0:03: "the meeting"', HEARD, evidence=place)
    assert one["evidence"] == {"quote": HEARD.quote, "kind": "speech", "start": 3}
    many = filled(
        "What was said?",
        "…",
        HEARD,
        CAT,
        sources={"type": "array", "items": place},
        quotes={"type": "array", "items": TEXT},
    )
    assert [item["kind"] for item in many["sources"]] == ["speech", "sight"]
    assert many["quotes"] == [HEARD.quote, CAT.quote]


def test_a_number_beside_the_question_is_not_an_answer() -> None:
    maybe = {"type": ["number", "null"]}
    assert filled("What is shown?", "A cat.", CAT, answer=maybe) == {"answer": None}, (
        "the detector's score answers nothing"
    )
    assert filled("Did they move to a room?", "Yes, at 0:03.", HEARD, room=maybe) == {"room": None}
    assert filled("What number is it?", "…", TITLE, values=("9" * 400,), number=maybe) == {"number": None}


def test_a_searched_span_is_not_a_time() -> None:
    nothing = Evidence(0.0, 60.0, "timeline", "no mention of tea")
    output = filled(
        "Did they mention tea?",
        "No, nothing said or written so far mentions tea.",
        nothing,
        at={"type": ["number", "null"]},
        answer=TRUTH,
    )
    assert output == {"at": None, "answer": False}


def test_long_text_is_cut_at_a_word_and_constants_and_formats_hold() -> None:
    output = filled(
        "What was said?",
        HEARD.quote,
        HEARD,
        answer=TEXT | {"maxLength": 20},
        version={"const": 3},
        date={"type": ["string", "null"], "format": "date"},
    )
    assert output == {"answer": "the meeting is…", "version": 3, "date": None}


def test_an_optional_field_without_a_value_is_left_out() -> None:
    schema = response_schema.read(response_format({"answer": TEXT, "weather": TEXT}, required=["answer"]))
    assert schema is not None
    assert json.loads(
        structured_output.fill(schema, "What is shown?", Answer("q", "A cat.", True, (CAT,)))
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
        lambda members, required: {
            "type": "object",
            "properties": members,
            "required": [*members][:required],
        },
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
def test_for_any_schema_the_output_is_valid_or_an_error_is_raised(
    fields: dict[str, Any], value: str, known: bool
) -> None:
    wanted = response_format(fields)
    try:
        schema = response_schema.read(wanted)
    except InvalidRequest:
        return
    assert schema is not None
    answer = Answer(
        "q",
        "Yes, a cat." if known else "No idea.",
        known,
        (CAT, HEARD) if known else (),
        (),
        (value,) if value and known else (),
    )
    try:
        output = structured_output.fill(schema, "Is a cat shown?", answer)
    except Unprocessable:
        return
    jsonschema.Draft202012Validator(wanted["json_schema"]["schema"]).validate(json.loads(output))
