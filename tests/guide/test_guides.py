"""What each guide allows and refuses, and how it says no."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pytest
import torch
from pydantic import BaseModel

from ventris.engine.errors import BadInput
from ventris.engine.tree import TokenTree
from ventris.guide import Choice, Format, Grammar, Json, JsonSchema, Regex, Words
from ventris.parts import Workshop, build_guides

from .tiny import accepts, decode, tiny_tokenizer

INVOICE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}, "paid": {"type": "boolean"}},
    "required": ["name", "count"],
    "additionalProperties": False,
}


class Invoice(BaseModel):
    name: str
    count: int


@dataclass
class InvoiceData:
    name: str
    count: int


class InvoiceTyped(TypedDict):
    name: str
    count: int


@pytest.mark.parametrize(
    ("guide", "good", "bad"),
    [
        (Regex("[0-9]{3}(a|b)"), ["123a", "000b"], ["123", "123ab", "x", ""]),
        (Regex("^(ab|cd)$"), ["ab", "cd"], ["abcd", ""]),
        (Regex(r"\$5"), ["$5"], ["5"]),
        (Regex(r"é+|日本"), ["éé", "日本"], ["e", "日"]),
        (Choice("red|green|redder"), ["red", "green", "redder"], ["gre", "redd", "blue", ""]),
        (Choice(["a|b", 'x/y"z\n', "(.*)"]), ["a|b", 'x/y"z\n', "(.*)"], ["a", "anything"]),
        (Words(["foo"], ["bar"]), ["foo", "a foo b"], ["", "a", "a foo bar", "foobar"]),
        (Words("foo|x/y", ignore_case=True), ["FOO X/y"], ["foo"]),
        (Words(exclude=["a b"]), ["", "ab", "a  b"], ["xa bx"]),
        (Json(), ['{"a":[1,null]}', "[]", '"x"', "-1.5e3"], ["{", '{"a": 1}', "01", "nul"]),
        (Json("object"), ["{}"], ["[]", "1"]),
        (Json(whitespace="flexible"), ['{ "a" :\n [1 , 2]}', '{"a":1}'], ['{"a" 1}']),
        (Json(whitespace="spaced"), ['{"a": [1, 2]}'], ['{"a":1}']),
        (Grammar('start: e\ne: e "+" e | /[0-9]+/ | "(" e ")"'), ["1", "(1+2)+3"], ["(1", "1+", ""]),
        (Grammar('root ::= "a" b*\nb ::= "x" | [0-9]+'), ["a", "ax9x"], ["", "b", "ay"]),
        (
            JsonSchema(INVOICE),
            ['{"name":"x","count":1}', '{"name":"","count":-3,"paid":true}'],
            ['{"name":"x"}'],
        ),
        (JsonSchema(Invoice), ['{"name":"x","count":1}'], ['{"name":1,"count":1}']),
        (JsonSchema(InvoiceData), ['{"name":"x","count":1}'], ['{"count":1}']),
        (JsonSchema(InvoiceTyped), ['{"name":"x","count":1}'], ['{"name":"x","count":1.5}']),
        (JsonSchema(list[int]), ["[]", "[1,2]"], ["[1.5]", "1"]),
        (JsonSchema(json.dumps(INVOICE)), ['{"name":"x","count":1}'], ["{}"]),
        (JsonSchema(True), ["[1]"], ["["]),
    ],
    ids=lambda value: value.name if hasattr(value, "name") else None,
)
def test_what_is_allowed(guide: Any, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not accepts(guide, text)] == []
    assert [text for text in bad if accepts(guide, text)] == []


def test_a_format_allows_and_reads() -> None:
    guide = Format("Name: {name:str} age {age:int}\nsize {size:S|L} {{x}} {rest}")
    text = "Name: Bo ag age 3\nsize L {x} the rest"
    assert accepts(guide, text)
    assert guide.read(text) == {"name": "Bo ag", "age": "3", "size": "L", "rest": "the rest"}
    for bad in ("Name: Bo age x", "Name: Bo age 3", "Name: Bo\n age 3\nsize L {x} r", text.replace("L", "M")):
        assert not accepts(guide, bad)
    with pytest.raises(BadInput, match="does not follow"):
        guide.read("nothing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Regex("(?=a)b"), "look-around"),
        (lambda: Regex("a("), "unclosed group"),
        (lambda: Regex("^a|b$"), "anchors one arm"),
        (lambda: Choice([]), "at least one text"),
        (lambda: Choice("a||b"), "empty"),
        (lambda: Words(), "include or exclude"),
        (lambda: Words(["abc"], ["b"]), "both include and exclude 'b'"),
        (lambda: Format("no hole"), "no hole"),
        (lambda: Format("{a:int} {a:int}"), "two holes named 'a'"),
        (lambda: Format("{a:money}"), "'money'"),
        (lambda: Format("{a"), "single '{'"),
        (lambda: Grammar("start: b"), "unknown name"),
        (lambda: Grammar("root ::= (("), "GBNF"),
        (lambda: JsonSchema("nowhere.json"), "neither a file nor a JSON schema"),
        (lambda: JsonSchema(__file__), "holds no JSON schema; that is an object, true or false"),
        (lambda: JsonSchema('{"type":'), "no JSON"),
        (lambda: JsonSchema(3), "cannot make|no JSON|not"),
        (lambda: JsonSchema({"type": "striing"}), "striing"),
        (lambda: JsonSchema({"properties": 3}), "properties must be"),
        (lambda: JsonSchema(False), "allows nothing"),
        (lambda: JsonSchema({"$ref": "#"}), "no text at all"),
        (lambda: JsonSchema({"not": {}}), "allows nothing"),
        (lambda: JsonSchema({"$ref": "https://example.org/x.json"}), "never fetched"),
        (lambda: JsonSchema({"$ref": "#/nowhere"}), "leads nowhere"),
        (lambda: JsonSchema({"format": "iri"}), "format 'iri'"),
        (lambda: JsonSchema({"pattern": "a("}), "pattern 'a\\('|unclosed"),
        (lambda: JsonSchema({"uniqueItems": True}, strict=True), "uniqueItems at /"),
        (lambda: JsonSchema({}, whitespace="none"), "whitespace"),  # type: ignore[arg-type]
        (lambda: JsonSchema({"enum": [{1, 2}]}), "set, which JSON cannot write"),
        (lambda: JsonSchema({"minimum": float("nan")}), "nan"),
    ],
)
def test_refusals_are_one_line_that_names_the_cause(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        make().bind(tiny_tokenizer())
    assert "\n" not in str(refused.value)


def test_files_and_components(tmp_path: Path) -> None:
    schema, api = tmp_path / "invoice.json", tmp_path / "openapi.json"
    schema.write_text(json.dumps(INVOICE))
    item = {"type": "object", "properties": {"id": {"$ref": "#/components/schemas/Id"}}, "required": ["id"]}
    api.write_text(
        json.dumps({"openapi": "3.1.0", "components": {"schemas": {"Item": item, "Id": {"type": "integer"}}}})
    )
    assert accepts(JsonSchema(schema), '{"name":"x","count":1}')
    assert accepts(JsonSchema(str(schema)), '{"name":"x","count":1}')
    component = JsonSchema(f"{api}#/components/schemas/Item")
    assert accepts(component, '{"id":1}')
    assert not accepts(component, '{"id":"x"}')
    grammar = tmp_path / "g.lark"
    grammar.write_text('start: "a"+')
    assert accepts(Grammar(grammar), "aa")
    assert accepts(Grammar(str(grammar)), "aa")
    with pytest.raises(BadInput, match="cannot read the grammar"):
        Grammar(tmp_path / "missing.lark")


def test_parts_are_built_by_name_and_previews_compile_nothing(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    file.write_text(json.dumps(INVOICE))
    specs = [
        f"json-schema:{file},whitespace=spaced",
        'json-schema:{"type":"object","properties":{"a":{"enum":["x,y"]}}}',
        "json",
        "regex:[0-9]{1,3}",
        "choice:yes|no",
        'format:"Age: {age:int}, paid {paid:bool}"',
        "words:include=a b|c,exclude=d",
    ]
    preview = build_guides(specs, Workshop())
    assert [guide.name for guide in preview] == [
        "json-schema",
        "json-schema",
        "json",
        "regex",
        "choice",
        "format",
        "words",
    ]
    assert all(guide._matcher is None for guide in preview)
    target: Any = object()
    built = build_guides(specs, Workshop(target=target, tokenizer=tiny_tokenizer()))
    assert accepts(built[0], '{"name": "x", "count": 1}')
    assert accepts(built[1], '{"a":"x,y"}')
    assert accepts(built[3], "12")
    assert accepts(built[5], "Age: 3, paid true")
    assert accepts(built[6], "a b, c")
    with pytest.raises(BadInput, match="no tokenizer"):
        build_guides(["json"], Workshop(target=target))


def test_an_unfinished_text_is_not_passed_off_as_valid() -> None:
    short = decode([JsonSchema(INVOICE)], tokens=4)[0]
    assert short.finish_reason == "length"
    assert short.valid is False
    whole = decode([JsonSchema(INVOICE)], tokens=80)[0]
    assert whole.finish_reason == "stop"
    assert whole.valid is True
    assert whole.guarantee is not None
    assert "json-schema" in whole.guarantee.statement


def test_a_text_that_can_only_fail_the_check_at_the_end_stops_with_an_error() -> None:
    guide = JsonSchema(
        {"type": "array", "items": {"enum": [1]}, "minItems": 2, "maxItems": 2, "uniqueItems": True}
    )
    assert [note.keyword for note in guide.enforcement.checked_at_end] == ["uniqueItems"]
    done = decode([guide], may_fail=True)[0]
    assert "[1,1]".startswith(done.text)
    assert done.finish_reason == "error"
    assert done.valid is False


def test_two_guides_intersect() -> None:
    done = decode([Regex("[0-9]{2,4}"), Choice(["12", "x"])])[0]
    assert done.text == "12"
    assert done.valid is True


def test_padding_rows_and_special_tokens_never_follow() -> None:
    tokenizer = tiny_tokenizer()
    request: Any = type("View", (), {"end_ids": frozenset({2})})
    state = Regex("(?s:.*)").bind(tokenizer).start(request)
    logits = state.adjust(torch.zeros(tokenizer.vocab_size + 7), None)
    allowed = (logits == 0).nonzero().flatten().tolist()
    assert 2 in allowed
    assert not {0, 1} & set(allowed)
    assert max(allowed) < tokenizer.vocab_size


def test_forced_text_is_what_the_tokenizer_writes() -> None:
    tokenizer = tiny_tokenizer()
    request: Any = type("View", (), {"end_ids": frozenset({2})})
    state = JsonSchema(INVOICE).bind(tokenizer).start(request)
    forced = state.forced()
    assert tokenizer.decode(forced).startswith('{"name')
    assert tokenizer.encode('{"name":"')[: len(forced)] == forced
    assert JsonSchema(INVOICE, forced=False).bind(tokenizer).start(request).forced() == []


def test_drafts_are_pruned_to_what_may_come() -> None:
    tokenizer = tiny_tokenizer()
    request: Any = type("View", (), {"end_ids": frozenset(tokenizer.eos_ids)})
    state = Regex("a(b|c)").bind(tokenizer).start(request)
    a, b, c, x = (tokenizer.encode(letter)[0] for letter in "abcx")
    tree = TokenTree.root(5)
    first = tree.add(a, 0)
    for token in (b, c, x):
        tree.add(2, tree.add(token, first))
    tree.add(2, first)
    tree.add(x, tree.add(2, 3))
    kept = state.prune(tree)
    assert [tree.tokens[node] for node in kept] == [5, a, b, 2, c, 2]
    assert state.tokens == []
    state.advance(a)
    assert state.prune(TokenTree.chain([a, b, 2, x])) == [0, 1, 2]


def test_the_guarantee_says_what_exact_means_under_a_mask() -> None:
    for settings in ({}, {"temperature": 1.0}):
        masked = decode([Regex("a+")], **settings)[0].guarantee
        assert masked is not None
        assert masked.exact
        assert "under regex, masked and renormalised token by token" in masked.statement
    free = decode([])[0].guarantee
    assert free is not None
    assert "masked" not in free.statement
