"""A schema in short: what it stands for, and where it cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ventris.engine.errors import BadInput
from ventris.guide import JsonSchema, concise_schema


def fields(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def listed(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("name", fields(name=STRING)),
        ("name, age int, tags [str]", fields(name=STRING, age=INTEGER, tags=listed(STRING))),
        ("a? int", {**fields(a=INTEGER), "required": []}),
        ("a?", {**fields(a=STRING), "required": []}),
        ("a int|null", fields(a={"anyOf": [INTEGER, {"type": "null"}]})),
        ("a S|M|int", fields(a={"anyOf": [INTEGER, {"enum": ["S", "M"]}]})),
        ('a "int"|"New York"|-1.5|2|01', fields(a={"enum": ["int", "New York", -1.5, 2, "01"]})),
        ("o {x float, y [[int]]}", fields(
            o=fields(x={"type": "number"}, y=listed(listed(INTEGER))))),
        ("[{name}]", listed(fields(name=STRING))),
        ("{name}", fields(name=STRING)),
        ("when date,\n who email", fields(
            when={"type": "string", "format": "date"}, who={"type": "string", "format": "email"})),
        ('"a b" any', fields(**{"a b": {}})),
    ],
)  # fmt: skip
def test_what_it_stands_for(text: str, schema: Any) -> None:
    assert concise_schema(text) == schema
    JsonSchema(schema)


@pytest.mark.parametrize(
    "text", ["", "a,", "a b c", "a [int", "a {", "a, a", "[int] x", "a !", "a |", "[", "{}", "a [" * 80, "?"]
)
def test_what_cannot_be_read_is_one_line(text: str) -> None:
    with pytest.raises(BadInput) as refused:
        concise_schema(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("age itn", "did you mean 'int'"),
        ("a [tme]", "did you mean 'time'"),
        ("a Berlin", "there are: str, int"),
    ],
)
def test_a_word_alone_that_is_no_kind_is_a_slip(text: str, hint: str) -> None:
    with pytest.raises(BadInput, match="is no kind of value.*" + hint):
        concise_schema(text)
    assert concise_schema('a "Berlin", b 5') == fields(a={"enum": ["Berlin"]}, b={"enum": [5]})


@given(st.text(alphabet='ab1,?|[]{}"\\ \n-é$', max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        schema = concise_schema(text)
    except BadInput:
        return
    JsonSchema(schema)
