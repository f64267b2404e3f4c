"""Writing a schema out for another back end is bounded: every limit stops it, and its error names it."""

from __future__ import annotations

from typing import Any

import pytest

from ventris.engine.errors import BadInput
from ventris.guide import JsonSchema, Limits
from ventris.guide.back_ends.choice import LLGUIDANCE, OUTLINES, XGRAMMAR, is_installed
from ventris.guide.back_ends.ebnf import to_ebnf
from ventris.guide.back_ends.expression import WORK, to_expression
from ventris.guide.back_ends.from_schema import MOST_WAYS, from_schema
from ventris.guide.back_ends.language import Either, Language, Node, Row, Rule, Text
from ventris.guide.schema.notes import Enforcement

from .test_fuzz import refusal
from .tiny import tiny_tokenizer


def doubling(levels: int) -> dict[str, Any]:
    """A small schema that has ``2 ** levels`` parts once its references are written out."""
    below = {
        f"level{n}": {
            "type": "array",
            "prefixItems": [{"$ref": f"#/$defs/level{n - 1}"}] * 2,
            "minItems": 2,
            "maxItems": 2,
        }
        for n in range(1, levels + 1)
    }
    return {"$ref": f"#/$defs/level{levels}", "$defs": {"level0": {"type": "null"}, **below}}


def written_out(schema: Any, **limits: Any) -> tuple[Language, Enforcement]:
    return from_schema(schema, Enforcement(), "compact", Limits(**limits))


def test_a_schema_may_be_written_out_up_to_the_limit_of_subschemas() -> None:
    language, noted = written_out(doubling(6), rewritten_nodes=200)
    assert to_expression(language, 100_000).count("n") == 2**6
    assert noted.enforced
    with pytest.raises(BadInput, match=r"grows past 100 subschemas .*\(limit rewritten_nodes\)"):
        written_out(doubling(6), rewritten_nodes=100)
    # Sixty levels would never end.
    with pytest.raises(BadInput, match="limit rewritten_nodes"):
        written_out(doubling(60), rewritten_nodes=1000)


def test_writing_out_is_bounded_in_time() -> None:
    with pytest.raises(BadInput, match=r"more than 1e-09 s \(limit compile_seconds\)"):
        written_out(doubling(6), compile_seconds=1e-9)
    # A single subschema whose choices are multiplied.
    choices = {"anyOf": [{"minLength": n} for n in range(8)]}
    with pytest.raises(BadInput, match="limit compile_seconds"):
        written_out({"type": "string", "allOf": [choices] * 50}, compile_seconds=1e-9)


def test_choices_are_multiplied_up_to_a_limit_and_the_rest_is_told() -> None:
    def several(count: int) -> dict[str, Any]:
        pairs = [{"anyOf": [{"minLength": n}, {"maxLength": 100 - n}]} for n in range(count)]
        return {"type": "string", "allOf": pairs}

    few, many = written_out(several(4)), written_out(several(40))
    assert few[1].enforced
    assert {note.keyword for note in many[1].checked_at_end} == {"anyOf"}
    assert isinstance(many[0].start, Either)
    assert len(many[0].start.parts) <= MOST_WAYS


def test_an_expression_is_bounded_in_size() -> None:
    rules: dict[str, Node] = {"r0": Text("a")}
    rules |= {f"r{n}": Row((Rule(f"r{n - 1}"), Rule(f"r{n - 1}"))) for n in range(1, 60)}
    assert to_expression(Language(Rule("r3"), rules), 1000).count("a") == 2**3
    with pytest.raises(BadInput, match=r"grows past 1,000 bytes \(limit text_bytes\)"):
        to_expression(Language(Rule("r59"), rules), 1000)


def test_an_expression_is_bounded_in_the_work_it_takes() -> None:
    longest = 1000
    nested: Node = Text("a")
    for _ in range(100):
        nested = Row((nested, Text("b")))
    # Short, though each of its hundred levels is copied into the next.
    assert len(to_expression(Language(nested), longest)) == 101
    letters = Text("b" * 99)
    for _ in range(100):
        nested = Row((letters, letters, letters, letters, nested))
    longest = 50_000
    assert len("b") * 400 * 100 < longest
    assert WORK * longest < 400 * 100 * 100 / 2
    with pytest.raises(BadInput, match="limit text_bytes"):
        to_expression(Language(nested), longest)


# In a grammar rules are not copied into rules, so text_bytes bounds an expression alone.
@pytest.mark.parametrize(
    ("back_end", "named", "bound"),
    [
        (XGRAMMAR, "rewritten_nodes", 300),
        (OUTLINES, "rewritten_nodes", 300),
        (OUTLINES, "text_bytes", 20_000),
    ],
)
def test_a_guide_names_the_limit_and_its_back_end(back_end: Any, named: str, bound: int) -> None:
    if not is_installed(back_end):
        pytest.skip(f"{back_end} is not installed")
    guide = JsonSchema(doubling(12), backend=back_end, limits=Limits(**{named: bound}))
    with pytest.raises(BadInput, match=rf"backend {back_end}.*limit {named}") as refused:
        guide.bind(tiny_tokenizer())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["lists", "maps"])
def test_nested_lists_and_maps_are_written_once_a_level(kind: str) -> None:
    def nested(levels: int) -> Any:
        schema: Any = {"type": "string"}
        for _ in range(levels):
            lists = {"type": "array", "items": schema}
            schema = lists if kind == "lists" else {"type": "object", "additionalProperties": schema}
        return schema

    few, many = (len(to_ebnf(written_out(nested(levels))[0])) for levels in (10, 40))
    assert many < 5 * few


@pytest.mark.parametrize(
    ("back_end", "levels"), [(XGRAMMAR, 130), (OUTLINES, 90), (OUTLINES, 130), (LLGUIDANCE, 130)]
)
def test_references_to_references_end_in_one_line(back_end: Any, levels: int) -> None:
    if not is_installed(back_end):
        pytest.skip(f"{back_end} is not installed")
    below = {
        f"level{n}": {
            "type": "object",
            "properties": {"a": {"$ref": f"#/$defs/level{n - 1}"}},
            "additionalProperties": False,
        }
        for n in range(1, levels + 1)
    }
    schema = {"$ref": f"#/$defs/level{levels}", "$defs": {"level0": {"type": "null"}, **below}}
    refused = refusal(lambda: JsonSchema(schema, backend=back_end).bind(tiny_tokenizer()))
    assert "\n" not in refused
